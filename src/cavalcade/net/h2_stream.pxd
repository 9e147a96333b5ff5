# cython: language_level=3
# Types for h2_stream.py when it is compiled: names and meaning are there. `link` has none: its module imports this one.

cimport cython
from cpython cimport time

from cavalcade.apps.asgi.scope cimport build as build_scope
from cavalcade.net.context cimport ConnectionContext
from cavalcade.wire.h2_stream cimport StreamState
from cavalcade.wire.sink cimport Head


cdef class H2Stream(StreamState):
    cdef public object link, exchange, file, pipe
    cdef public bytes target
    cdef public double started, first_at, deadline, write_deadline
    cdef public object sent_bytes, discarded
    cdef public list early, writers
    cdef public bint continue_due, write_paused
    cdef public str asker

    @cython.locals(context=ConnectionContext)
    cpdef on_request(self, Head head)
    cpdef start(self, status, headers)
    cpdef send_due_head(self)
    cpdef write(self, bytes body, bint more)
    cpdef send(self, data, bint more)
    cpdef response_done(self)
    cpdef bint head_is_out(self)
    cpdef let_go(self)
    @cython.locals(context=ConnectionContext, now=double, seconds=double, first_byte_s=double)
    cpdef account(self, int status)
