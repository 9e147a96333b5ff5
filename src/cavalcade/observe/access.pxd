# cython: language_level=3
# Types for access.py when it is compiled: names and meaning are there.


cdef class AccessLog:
    cdef public list pending
    cdef public object append
    cdef public object _logger, _log, _encoder, _pid, _worker
    cdef public dict _known
    cdef public double _say_dropped_at
    cdef public object _said_dropped

    cpdef add(self, str client, str method, str target, str version, int status, sent_bytes, double seconds)


cdef class NamedAccessLog(AccessLog):
    cdef public str request_id

    cpdef add(self, str client, str method, str target, str version, int status, sent_bytes, double seconds)


cdef class DetailedAccessLog(NamedAccessLog):
    cdef public object seen, _line, _named
    cdef public Py_ssize_t _every, _skipped

    cpdef add(self, str client, str method, str target, str version, int status, sent_bytes, double seconds)
