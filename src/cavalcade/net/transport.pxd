# cython: language_level=3
# Types for transport.py when it is compiled: names and meaning are there.

cimport cython
from cavalcade.net cimport syscalls
from cavalcade.observe.access cimport AccessLog

# Compiled, these names of transport.py are C variables, and no attributes of the module.
cdef Py_ssize_t HOLD_BYTES, READ_BYTES, READ_MAX_BYTES, READS
cdef int MORE


cdef class Turn:
    cdef public object loop
    cdef public list waiting
    cdef public bint tells_once
    cdef public AccessLog access

    cpdef add(self, Transport transport)
    cpdef add_lines(self, AccessLog access)
    @cython.locals(waiting=list, transport=Transport, access=AccessLog)
    cpdef end(self)


cdef class Transport:
    cdef public Turn turn
    cdef public object loop, sock, protocol, error
    cdef public int fd
    cdef public bint in_turn, taken, wanted, watching, left_off, eof_seen, blocked, closing, lost, eof_due, eof_sent, paused
    cdef public Py_ssize_t read_bytes, size, high, low
    cdef public list held

    cpdef int fileno(self)
    cpdef bint is_closing(self)
    cpdef pause_reading(self)
    cpdef resume_reading(self)
    cpdef watch(self)
    cpdef unwatch(self)
    cpdef read(self)
    @cython.locals(data=bytes, size=Py_ssize_t)
    cpdef bint read_once(self)
    cpdef Py_ssize_t get_write_buffer_size(self)
    cpdef write(self, data)
    @cython.locals(held=list, sent=Py_ssize_t)
    cpdef push(self)
    @cython.locals(held=list, sent=Py_ssize_t)
    cpdef Py_ssize_t send_file(self, int file, offset, Py_ssize_t count)
    @cython.locals(held=list, pieces=Py_ssize_t, given=Py_ssize_t)
    cpdef drop(self, Py_ssize_t sent)
    cpdef on_room(self)
    cpdef unblock(self)
    cpdef tell_size(self)
    cpdef write_eof(self)
    cpdef send_eof(self)
    cpdef close(self)
    cpdef abort(self)
    cpdef lose(self, error)
    cpdef fail(self, error)
    cpdef end_turn(self)
