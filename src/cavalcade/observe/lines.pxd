# cython: language_level=3
# Types for lines.py when it is compiled: names and meaning are there.

# Compiled, this name of lines.py is a C variable, and no attribute of the module.
cdef Py_ssize_t _PIPE_CHUNK


cdef class LineWriter:
    cdef public Py_ssize_t dropped
    cdef public str trouble
    cdef public double _patience_s
    cdef public object _kept, _socket
    cdef public Py_ssize_t _kept_bytes
    cdef public int _own_fd, _fd
    cdef public bint _ask_first, _atomic

    cpdef write(self, bytes lines)
    cpdef flush(self)
    cpdef bytes _send(self, bytes data)
    cpdef bytes _lose(self, bytes data)
    cpdef _keep(self, bytes lines)
