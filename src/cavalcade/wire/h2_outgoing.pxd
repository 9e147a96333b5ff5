# cython: language_level=3
# Types for h2_outgoing.py when it is compiled: names and meaning are there.

cimport cython

from cavalcade.wire.h1_response cimport Rules
from cavalcade.wire.h2_budget cimport Budget
from cavalcade.wire.h2_stream cimport StreamState


cdef class Outgoing:
    cdef public object sink, library
    cdef public Rules rules
    cdef public bint spoke, held_back, settling
    cdef public dict streams, lately_reset, waiting
    cdef public object highest, last_taken, window_extra
    cdef public Budget control, resets
    cdef public list output
    cdef public Py_ssize_t made

    @cython.locals(block=bytes)
    cpdef send_block(self, StreamState stream, bytes block, list kind, bint last)
    @cython.locals(block=bytes, last=bint)
    cpdef send_head(self, StreamState stream, Py_ssize_t size, bint more)
    @cython.locals(size=Py_ssize_t)
    cpdef send(self, StreamState stream, body, bint more)
    @cython.locals(before=Py_ssize_t)
    cpdef send_some(self, StreamState stream)
    @cython.locals(size=Py_ssize_t, room=Py_ssize_t, last=bint)
    cpdef bint send_frame(self, StreamState stream)
    cpdef send_data(self, StreamState stream, piece, Py_ssize_t size, bint last)
    cpdef send_end(self, StreamState stream)
    cpdef end_response(self, StreamState stream)
    cpdef give_back(self, StreamState stream, unread=*)
    cpdef reset(self, StreamState stream, code)
    cpdef forget(self, StreamState stream)
    cpdef put(self, bytes data)
    @cython.locals(output=list, data=bytes)
    cpdef bytes take_output(self)
