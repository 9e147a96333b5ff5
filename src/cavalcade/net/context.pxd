# cython: language_level=3
# Types for context.py when it is compiled: names and meaning are there.

from cavalcade.apps.stream cimport Serving
from cavalcade.board.row cimport Row
from cavalcade.net.transport cimport Turn
from cavalcade.observe.access cimport AccessLog
from cavalcade.wire.h1_response cimport Rules


cdef class ConnectionContext:
    cdef public Serving serving
    cdef public Rules rules
    cdef public Turn turn
    cdef public AccessLog access
    cdef public object loop, wsgi, new_call, peer_log, overload_log, tls_log
    cdef public object connection_class, request_ids, http2
    cdef public Py_ssize_t limit
    cdef public set connections
    cdef public Row row
    cdef public object on_first
    cdef public Py_ssize_t load
    cdef public object forwarding
    cdef public double now
    cdef public bint draining, closes, last_call
    cdef public object handover
    cdef public double keep_alive_s, head_s, body_s, write_s
    cdef public object closing

    cpdef opened(self)
    cpdef closed(self)
