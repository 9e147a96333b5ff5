# cython: language_level=3
# Types for inline.py when it is compiled: names and meaning are there.

cimport cython
from cavalcade.apps.wsgi.call cimport WsgiCall

# Compiled, these names of inline.py are C variables, and no attributes of the module.
cdef int BODY, COMPLETE, NOTHING
cdef object BytesIO, set_running_loop


cdef class InlineCall(WsgiCall):
    cdef public bint whole, begun
    cdef public list chunks
    cdef public Py_ssize_t received
    cdef public object file, result, pieces
    cdef public list held
    cdef public Py_ssize_t given
    cdef public bint waiting

    cpdef begin(self)
    cpdef Py_ssize_t feed_body(self, bytes chunk)
    cpdef feed_end(self)
    @cython.locals(environ=dict)
    cpdef run(self)
    cpdef enter(self, work)
    cpdef call_app(self)
    cpdef send_whole(self, bytes body)
    cpdef step(self)
    cpdef bint next_pieces(self)
    cpdef send_piece(self, bytes piece)
    cpdef send_last(self)
    cpdef close_result(self)
    cpdef end(self)
    cpdef let_go(self)
    cpdef disconnect(self)
