# cython: language_level=3
# Types for access.py when it is compiled: names and meaning are there.


cimport cython

# Compiled, these names of access.py are C variables, and no attributes of the module.
cdef list _NUMBERS, _TENTHS
cdef Py_ssize_t _SMALL


cdef class AccessLog:
    cdef public list pending
    cdef public object append
    cdef public object _logger, _log, _encoder, _pid, _worker
    cdef public dict _known
    cdef public double _say_dropped_at
    cdef public object _said_dropped

    cpdef add(self, str client, str method, str target, str version, int status, sent_bytes, double seconds)
    @cython.locals(entry=tuple, client=str, method=str, target=str, version=str, status=Py_ssize_t, size=Py_ssize_t, seconds=double,
                   tenths=Py_ssize_t, lines=list)
    cpdef bytes _plain_lines(self, list batch, double now)


cdef class NamedAccessLog(AccessLog):
    cdef public str request_id

    cpdef bytes _plain_lines(self, list batch, double now)

    cpdef add(self, str client, str method, str target, str version, int status, sent_bytes, double seconds)


cdef class DetailedAccessLog(NamedAccessLog):
    cdef public object seen, _line, _named
    cdef public Py_ssize_t _every, _skipped

    cpdef bytes _plain_lines(self, list batch, double now)

    cpdef add(self, str client, str method, str target, str version, int status, sent_bytes, double seconds)
