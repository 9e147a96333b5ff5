# cython: language_level=3
# Types for h2_request.py when it is compiled: names and meaning are there.

cimport cython

from cavalcade.wire.h1_response cimport Rules
from cavalcade.wire.sink cimport Head

cdef int PLAIN, HOST, CONTENT_LENGTH, EXPECT, FORWARDING, COOKIE, TE, FORBIDDEN, PSEUDO
cdef dict _KNOWN


cdef class Request:
    cdef public str method, protocol
    cdef public bytes target
    cdef public tuple split
    cdef public list headers
    cdef public object length
    cdef public bint expects_continue, forwarded

    cpdef fill(self, Head head)


@cython.locals(request=Request, pseudo=dict, hosts=list, cookies=list, headers=list, expectation=bytes, regular=bint, field=tuple,
               known=tuple, own=tuple, kind=int, name=bytes, value=bytes)
cpdef Request read_request(these, Py_ssize_t size, Rules rules)
cpdef tuple _learn(bytes name, bytes value)
cpdef tuple _learn_pseudo(bytes name, bytes value)
@cython.locals(method=bytes, scheme=bytes, path=bytes, protocol=bytes)
cpdef _read_pseudo(Request request, dict pseudo, list hosts)
cpdef bytes _read_host(bytes authority, list hosts)
cpdef _apply_limits(Request request, Py_ssize_t size, Rules rules)
