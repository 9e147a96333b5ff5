# cython: language_level=3
# Types for h1_plain.py when it is compiled: names and meaning are there.

cimport cython

# Compiled, these names of h1_plain.py are C variables, and no attributes of the module.
cdef int CONNECTION, CONTENT_LENGTH, EXPECT, FORWARDING, HOST_FIELD, TRANSFER_ENCODING
cdef dict METHODS, REQUEST_NAMES
cdef bytes _NO_TEXT
cdef frozenset _KEPT


cpdef tuple read_line(bytes line)
@cython.locals(headers=list, hosts=int, new=Py_ssize_t, keep_alive=bint, forwarded=bint, line=bytes, field=tuple, kind=int)
cpdef tuple read_block(bytes block, Py_ssize_t most)
@cython.locals(name=bytes, value=bytes, colon=bytes, known=tuple, lower=bytes, kind=int)
cpdef tuple read_field(bytes line)
