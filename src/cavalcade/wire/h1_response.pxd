# cython: language_level=3
# Types for h1_response.py when it is compiled: names and meaning are there.

cimport cython
from cavalcade.wire.sink cimport Head

# Compiled, these names of h1_response.py are C variables, and no attributes of the module.
cdef int CONTENT_LENGTH, PLAIN
cdef Py_ssize_t RESPONSE_HEAD_KEPT_FIELDS, RESPONSE_HEADS_MAX
cdef dict RESPONSE_FIELDS, RESPONSE_HEADS, STATUS_LINES


cdef class Rules:
    cdef public Py_ssize_t request_line, header_fields, head_bytes
    cdef public object body_bytes
    cdef public bytes server, date, common


cdef class Responses:
    cdef public Rules rules
    cdef public Head head
    cdef public bint keep_alive
    cdef public list response_lines
    cdef public bytes response_common
    cdef public int response_status
    cdef public object response_length, response_left
    cdef public bint response_chunked, response_bodiless, head_due

    @cython.locals(line=bytes, given=tuple, known=tuple)
    cpdef start_response(self, status, headers)
    @cython.locals(out=list, special=bint, learnt=bint, entry=tuple)
    cpdef read_fields(self, bytes line, tuple given, int status)
    @cython.locals(before=bytes, out=list)
    cpdef bytes respond(self, bytes body)
    @cython.locals(before=bytes)
    cpdef tuple frame(self, Py_ssize_t size, bint more)
    @cython.locals(framing=bytes)
    cpdef bytes take_head(self, Py_ssize_t size, bint more)
    cpdef bytes switch_protocols(self, bytes protocol, headers)
    cpdef response_short(self)
