# cython: language_level=3
# Types for link.py when it is compiled: names and meaning are there.

cimport cython
from cavalcade.net.context cimport ConnectionContext


cdef class Link:
    cdef public ConnectionContext context
    cdef public str scheme
    cdef public bint secure
    cdef public tuple client, server
    cdef public double opened_at
    cdef public str client_name
    cdef public object transport
    cdef public int fd
    cdef public double deadline
    cdef public int deadline_for
    cdef public bint read_paused, write_paused, turn_ending
    cdef public double write_deadline
    cdef public Py_ssize_t write_size, turn_bytes
    cdef public list writers

    cpdef str peer(self)
    cpdef stop_parsing(self)
    cpdef abandon(self)
    cpdef on_deadline(self, double now)
    cpdef on_writable(self)
    cpdef drain(self)
    cpdef bint is_idle(self)
    cpdef close_idle(self)
    cpdef attach(self, transport)
    cpdef succeed(self, Link before)
    cpdef connection_lost(self, error)
    cpdef pause_writing(self)
    cpdef resume_writing(self)
    cpdef end_turn(self)
    cpdef next_turn(self)
    cpdef wake_writers(self)
    cpdef pause_reading(self)
    cpdef resume_reading(self)
    cpdef bint has_unread(self)
    cpdef on_sweep(self, double now)
    cpdef on_flushed(self, double now)
    cpdef await_flush(self)
    cpdef bint taken(self)
    cpdef give_up_writing(self, double now)
    cpdef reset(self)
    cpdef abort(self)
