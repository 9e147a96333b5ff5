# cython: language_level=3
# Types for h2_stream.py when it is compiled: names and meaning are there.


cdef class StreamState:
    cdef public Py_ssize_t stream_id
    cdef public bint closed, ours, remote_ended, bodiless, head_due, end_due, ended
    cdef public object room, expected, received, held, unacked, window
    cdef public str method
    cdef public int status
    cdef public bytes response_block, trailers
    cdef public object length, left
    cdef public object pending
    cdef public Py_ssize_t pending_bytes

    cpdef bint is_short(self)
