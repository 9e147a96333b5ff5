# cython: language_level=3
# Types for access.py when it is compiled: names and meaning are there.

cimport cython
from cpython cimport time
from cavalcade.observe.lines cimport LineWriter

# Compiled, these names of access.py are C variables, and no attributes of the module.
cdef list _MILLISECONDS, _SIZES, _TIMES
cdef Py_ssize_t _KNOWN, _KNOWN_CHARS, _PIECES, _SMALL


cdef class AccessLog:
    cdef public list pending
    cdef public bint _usual
    cdef public object _handler, _line, _logger, _log, _encoder, _pid, _worker
    cdef public dict _clients, _methods, _targets, _answers
    cdef public long long _second
    cdef public str _before, _after
    cdef public double _say_dropped_at
    cdef public object _said_dropped

    cpdef add(self, str client, str method, bytes target, str version, int status, Py_ssize_t sent_bytes, double seconds)
    cpdef begin(self)
    @cython.locals(pieces=list, answers=list, tenths=Py_ssize_t)
    cpdef add_usual(self, str client, str method, bytes target, str version, int status, Py_ssize_t size, double seconds)
    @cython.locals(batch=list, now=double, writer=LineWriter)
    cpdef flush(self)
    @cython.locals(second="long long", head=str)
    cpdef bytes _usual_lines(self, list pieces, double now)
    cpdef bytes _lines(self, str shape, list batch, double now)


cdef class NamedAccessLog(AccessLog):
    cdef public str request_id

    cpdef add(self, str client, str method, bytes target, str version, int status, Py_ssize_t sent_bytes, double seconds)


cdef class DetailedAccessLog(NamedAccessLog):
    cdef public object seen, _named
    cdef public Py_ssize_t _every, _skipped

    cpdef add(self, str client, str method, bytes target, str version, int status, Py_ssize_t sent_bytes, double seconds)
    cpdef bytes _lines(self, str shape, list batch, double now)


cpdef str _text(bytes target)
cpdef str _learn(dict known, text, str safe)
