# cython: language_level=3
# Types for exchange.py when it is compiled: names and meaning are there.

cimport cython
from cavalcade.apps.stream cimport Serving

# Compiled, these names of exchange.py are C variables, and no attributes of the module.
cdef int BODY, COMPLETE, DEBUG, FILE, HINT, NOTHING, PATH, SEND_FILE, START, STARTED, TRAILERS, WRITE
cdef list LEGAL


cdef class Done:
    pass


cdef class Exchange:
    cdef public Serving serving
    cdef public object stream
    cdef public dict scope
    cdef public int sent, after_file
    cdef public bint gone, noticed, body_ended, end_told
    cdef public list trailers
    cdef public list chunks
    cdef public Py_ssize_t buffered
    cdef public list news
    cdef public object task
    cdef object __weakref__

    @cython.locals(serving=Serving)
    cpdef begin(self)
    cpdef receive(self)
    @cython.locals(event=dict, legal=dict, step=int)
    cpdef send(self, message)
    cpdef dict take_news(self)
    cpdef wake(self)
    cpdef bint is_complete(self)
    cpdef Py_ssize_t feed_body(self, bytes chunk)
    cpdef feed_end(self)
    cpdef disconnect(self)
    cpdef finish(self)
    cpdef app_returned(self)
