# cython: language_level=3
# Types for h2_response.py when it is compiled: names and meaning are there.

cimport cython

from cavalcade.wire.h1_response cimport Rules
from cavalcade.wire.h2_stream cimport StreamState

cdef dict _ENCODED, _STATUS, _LINES

@cython.locals(out=list, dated=bint, named=bint, entry=tuple, block=bytes, kind=int)
cpdef give_head(StreamState stream, status, headers, Rules rules)
cpdef bytes encode_length(Py_ssize_t size)
cpdef bytes integer(Py_ssize_t number, int bits, int pattern)
cpdef bytes encode_field(bytes name, bytes value)
cpdef bytes _line(bytes line)
