# cython: language_level=3
# Types for headers.py when it is compiled: names and meaning are there.

cimport cython

# Compiled, these names of headers.py are C variables, and no attributes of the module.
cdef dict FIELDS, NAMES


@cython.locals(entry=tuple, length=object)
cpdef read_headers(headers, list out)
@cython.locals(lower=bytes, entry=tuple)
cpdef tuple read_field(pair)
