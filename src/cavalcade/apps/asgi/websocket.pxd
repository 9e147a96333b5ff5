# cython: language_level=3
# Types for websocket.py when it is compiled: names and meaning are there.

cimport cython
from cavalcade.board.ledger cimport Ledger
from cavalcade.apps.asgi.exchange cimport Exchange
from cavalcade.apps.tasks cimport end_wait
from cavalcade.wire.ws cimport WebSocketEngine, WebSocketRules

# Compiled, these names of websocket.py are C variables, and no attributes of the module.
cdef int ACCEPT, BODY, CLOSE, CLOSED, COMPLETE, DENY, NOTHING, OPEN, SEND, START, STARTED
cdef Py_ssize_t BYTES_RECEIVED, BYTES_SENT, WEBSOCKET_RECEIVED, WEBSOCKET_SENT
cdef Py_ssize_t JOIN_BYTES
cdef list WEBSOCKET_LEGAL


cdef class WebSocketExchange(Exchange):
    cdef public WebSocketRules rules
    cdef public list offered, answer
    cdef public WebSocketEngine engine
    cdef public object messages, pipe
    cdef public int code
    cdef public str reason
    cdef public bint lost, leaving, heard, pinged
    cdef public Py_ssize_t turns
    cdef public bint flush_due, starved, choked

    cpdef begin(self)
    @cython.locals(legal=dict, step=int, engine=WebSocketEngine)
    cpdef send(self, message)
    cpdef send_rest(self, int step, message)
    cpdef dict take_news(self)
    cpdef bint is_complete(self)
    @cython.locals(news=list)
    cpdef feed_data(self, bytes data)
    cpdef go_on(self)
    @cython.locals(engine=WebSocketEngine)
    cpdef look(self)
    @cython.locals(engine=WebSocketEngine, out=list, size=Py_ssize_t)
    cpdef flush(self)
    cpdef disconnect(self)
    cpdef on_sweep(self)
    cpdef app_returned(self)
