# cython: language_level=3
# Types for h2.py when it is compiled: names and meaning are there.

cimport cython

from cavalcade.wire.h2_hpack cimport FieldDecoder, Fields
from cavalcade.wire.h2_outgoing cimport Outgoing
from cavalcade.wire.h2_request cimport Request
from cavalcade.wire.h2_stream cimport StreamState
from cavalcade.wire.sink cimport Head


cdef class H2(Outgoing):
    cdef public bint websocket, closed, set_up
    cdef public FieldDecoder decoder
    cdef public Head head
    cdef public double now
    cdef public bytes tail, preface_left
    cdef public list head_frames
    cdef public Py_ssize_t head_bytes, window_unacked
    cdef public object initial_room

    @cython.locals(at=Py_ssize_t, size=Py_ssize_t, length=Py_ssize_t, end=Py_ssize_t, stream_id=Py_ssize_t)
    cpdef feed(self, bytes data)
    cpdef on_frame(self, int kind, int flags, Py_ssize_t stream_id, bytes data)
    cpdef spend(self, str what, double cost=*)
    @cython.locals(taken=bint, stream=StreamState, fields=Fields)
    cpdef on_headers(self, Py_ssize_t stream_id, int flags, list frames)
    @cython.locals(request=Request)
    cpdef open(self, StreamState stream, Fields fields, bint ended)
    @cython.locals(block=bytes, piece=bytes, data=bytes)
    cpdef Fields decode(self, list frames)
    @cython.locals(stream=StreamState)
    cpdef on_data(self, Py_ssize_t stream_id, int flags, bytes data)
    cpdef end_request(self, StreamState stream)
    @cython.locals(stream=StreamState)
    cpdef on_window_update(self, Py_ssize_t stream_id, bytes data)
