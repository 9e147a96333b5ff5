# cython: language_level=3
# Types for ws.py when it is compiled: names and meaning are there.

cimport cython

# Compiled, these names of ws.py are C variables, and no attributes of the module.
cdef int BINARY, MASKED, TEXT
cdef list BINARY_HEADS, TEXT_HEADS


cdef class WebSocketRules:
    cdef public Py_ssize_t message_bytes, queue
    cdef public bint deflate
    cdef public double ping_s, pong_s, accept_s
    cdef public Py_ssize_t ping_turns, pong_turns, accept_turns, close_turns


cdef class WebSocketEngine:
    cdef public Py_ssize_t message_bytes, queue, queue_bytes
    cdef public object protocol, deflate, messages
    cdef public Py_ssize_t queued
    cdef public bint full
    cdef public bytes data
    cdef public Py_ssize_t at
    cdef public object foreign
    cdef public object fragments
    cdef public bint fragments_text
    cdef public list out
    cdef public Py_ssize_t out_bytes
    cdef public bint closing, ended
    cdef public int close_code
    cdef public str close_reason, fault

    cpdef feed(self, bytes data)
    @cython.locals(
        data=bytes, end=Py_ssize_t, at=Py_ssize_t, room=Py_ssize_t, queued=Py_ssize_t, first=int, size=Py_ssize_t, start=Py_ssize_t,
        stop=Py_ssize_t, payload=bytes,
    )
    cpdef go_on(self)
    @cython.locals(payload=bytes, size=Py_ssize_t)
    cpdef send_text(self, str text)
    @cython.locals(size=Py_ssize_t)
    cpdef send_binary(self, bytes payload)
    cpdef send_long(self, int first, bytes payload)
