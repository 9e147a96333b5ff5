# cython: language_level=3
# Types for gate.py when it is compiled: names and meaning are there.

from cavalcade.board.ledger cimport Ledger
from cavalcade.board.siblings cimport Siblings
from cavalcade.net.context cimport ConnectionContext


cdef class Gate:
    cdef ConnectionContext _context
    cdef Ledger _ledger
    cdef Siblings _siblings
    cdef object _name_peer, _tls, _loop, _queue, _proxied
    cdef Py_ssize_t _connections_max
    cdef list _listeners
    cdef public bint _open
    cdef bint _watching, _first
    cdef int _stepped_back
    cdef double _exhausted_at
    cdef Py_ssize_t _shed

    cpdef _on_wake(self, take)
    cpdef _step_back(self, Py_ssize_t excess)
    cpdef bint _accept(self, listener)
    cpdef _new_link(self, client, server)
    cpdef bint _take_over(self, queue)
    cpdef _adopt(self, int fd, connection, sock)
