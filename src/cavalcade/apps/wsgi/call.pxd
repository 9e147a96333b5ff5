# cython: language_level=3
# Types for call.py when it is compiled: names and meaning are there.

cimport cython
from cavalcade.apps.stream cimport Serving
from cavalcade.apps.wsgi.environ cimport build
from cavalcade.apps.wsgi.headers cimport read_headers
from cavalcade.wire.sink cimport Head

# Compiled, these names of call.py are C variables, and no attributes of the module.
cdef int COMPLETE, NOTHING, STARTED
cdef dict STATUSES


cdef class WsgiApp:
    cdef public object app, context, spool_bytes
    cdef public Serving serving


cdef class WsgiCall:
    cdef public WsgiApp service
    cdef public object stream
    cdef public Serving serving
    cdef public dict environ
    cdef public str method
    cdef public bytes target
    cdef public long long body_length, length
    cdef public int sent
    cdef public bint gone, awaits_continue
    cdef public object done
    cdef public int status
    cdef public bytes reason
    cdef public list headers
    cdef public bint bodiless, head_sent

    cpdef take(self, WsgiApp service, stream, Head head, dict template)
    @cython.locals(entry=tuple, out=list, code=int)
    cpdef take_head(self, status, headers)
    cpdef check_piece(self, Py_ssize_t size)
    @cython.locals(code=int)
    cpdef start_stream(self, Py_ssize_t size)
    cpdef finish(self)
