# cython: language_level=3
# Types for h2.py when it is compiled: names and meaning are there.

cimport cython

from cavalcade.net.link cimport Link
from cavalcade.wire.h2 cimport H2


cdef class H2Connection(Link):
    cdef public H2 engine
    cdef public object template
    cdef public bint feeding, flush_due, lingering, leaving
    cdef public double partial_deadline, settle_deadline
    cdef public list at_work

    cpdef begin(self, bytes data=*)
    @cython.locals(engine=H2)
    cpdef data_received(self, bytes data)
    cpdef new_stream(self, Py_ssize_t stream_id)
    cpdef on_stream_closed(self)
    cpdef leave_behind(self, call)
    cpdef schedule_flush(self)
    @cython.locals(engine=H2, data=bytes)
    cpdef flush(self)
    cpdef await_request(self)
