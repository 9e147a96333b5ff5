# cython: language_level=3
# Types for connection.py when it is compiled: names and meaning are there.

cimport cython
from cpython cimport time
from cavalcade.apps.asgi.exchange cimport Exchange
from cavalcade.apps.asgi.scope cimport build as build_scope
from cavalcade.apps.stream cimport Serving
from cavalcade.board.ledger cimport Ledger
from cavalcade.net.context cimport ConnectionContext
from cavalcade.net.link cimport Link
from cavalcade.observe.access cimport AccessLog
from cavalcade.wire.h1 cimport H1
from cavalcade.wire.sink cimport Head

# Compiled, these names of connection.py are C variables, and no attributes of the module.
cdef int BODY, BYTES_RECEIVED, FIRST_BYTE, FLUSH, HEAD, IDLE, LINGER
cdef int NOTHING_SENT
cdef Py_ssize_t JOIN_BYTES


cdef class Connection(Link):
    cdef public H1 engine
    cdef public dict template, own_template
    cdef public str asker
    cdef public bint moved_in
    cdef public object exchange, unbegun
    cdef public bint lingering
    cdef public object discarded
    cdef public str method
    cdef public bytes target
    cdef public str version
    cdef public bint body_pending, continue_due, switched, turn_due
    cdef public double started, first_at
    cdef public object sent_bytes
    cdef public object file

    @cython.locals(engine=H1)
    cpdef data_received(self, bytes data)
    @cython.locals(context=ConnectionContext, serving=Serving)
    cpdef on_request(self, Head head)
    cpdef begin_call(self)
    cpdef await_request_body(self, Head head)
    cpdef on_body(self, bytes chunk)
    cpdef on_end(self)
    cpdef go_ahead(self)
    @cython.locals(engine=H1)
    cpdef start(self, status, headers)
    cpdef send_head(self, exchange)
    @cython.locals(engine=H1, size=Py_ssize_t)
    cpdef write(self, bytes body, bint more)
    @cython.locals(engine=H1, before=bytes, after=bytes)
    cpdef write_piece(self, bytes body, Py_ssize_t size, bint more)
    cpdef file_sent(self, Py_ssize_t count, bytes behind, bint last, done)
    cpdef Py_ssize_t most_read(self)
    cpdef bint head_is_out(self)
    cpdef want_body(self)
    @cython.locals(engine=H1, context=ConnectionContext)
    cpdef response_done(self)
    @cython.locals(engine=H1)
    cpdef end_response(self, exchange)
    @cython.locals(engine=H1, context=ConnectionContext)
    cpdef go_on(self)
    @cython.locals(engine=H1)
    cpdef next_request(self)
    @cython.locals(engine=H1)
    cpdef hold_rest(self)
    @cython.locals(context=ConnectionContext, ledger=Ledger, now=double, seconds=double, access=AccessLog)
    cpdef account(self, int status)
    cpdef refuse(self, error, data)
    cpdef close(self)
    cpdef linger(self)
    cpdef discard(self, bytes data)
    cpdef await_head(self)
    cpdef await_body(self, bint running)
    cpdef leave(self)
