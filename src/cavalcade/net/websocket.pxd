# cython: language_level=3
# Types for websocket.py when it is compiled: names and meaning are there.

from cavalcade.net.link cimport Link

# Compiled, this name of websocket.py is a C variable, and no attribute of the module.
cdef Py_ssize_t TURN_BYTES


cdef class WebSocketLink(Link):
    cdef public object call, before
    cdef public bint lingering, closed

    cpdef take_rest(self)
    cpdef data_received(self, bytes data)
    cpdef write(self, bytes data)
    cpdef stop_parsing(self)
    cpdef abandon(self)
    cpdef drain(self)
    cpdef bint is_idle(self)
    cpdef close_idle(self)
    cpdef on_flushed(self, double now)
    cpdef on_deadline(self, double now)
    cpdef abort(self)
