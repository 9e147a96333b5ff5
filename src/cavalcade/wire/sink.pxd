# cython: language_level=3
# Types for sink.py when it is compiled: names and meaning are there.


cdef class Head:
    cdef public str method, path, protocol, version
    cdef public bytes target, raw_path, query
    cdef public list headers
    cdef public object length
    cdef public bint keep_alive, expects_continue, forwarded, upgrade
