# cython: language_level=3
# What compiled modules take in place of the functions of syscalls.py: what they mean is written there. The GIL is kept: nothing here
# waits, and a thread that was let in could keep the loop out for its whole switch interval.

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_SetFromErrno
from cpython.object cimport PyObject
from libc.errno cimport EAGAIN, EINTR, errno

cdef extern from "<sys/socket.h>":
    int MSG_NOSIGNAL
    ssize_t recv(int fd, void* buffer, size_t size, int flags)
    ssize_t send(int fd, const void* data, size_t size, int flags)

cdef extern from "Python.h":
    PyObject* new_bytes "PyBytes_FromStringAndSize" (const char* data, Py_ssize_t size) except NULL
    int shorten "_PyBytes_Resize" (PyObject** data, Py_ssize_t size) except -1
    bytes take "__Pyx_NewRef" (PyObject* data)
    void drop "Py_XDECREF" (PyObject* data)

cdef enum:
    SMALL_BYTES = 16384  # up to this it costs less to copy what was read than to cut a large object to its length


cdef inline bint not_now() except -1:
    """True where the last call has done nothing for now; raises what else was wrong."""
    if errno == EAGAIN or errno == EINTR:
        return True
    PyErr_SetFromErrno(OSError)


cdef inline bytes receive(int fd, Py_ssize_t size):
    cdef char small[SMALL_BYTES]
    cdef ssize_t got
    if size > SMALL_BYTES:
        return receive_much(fd, size)
    got = recv(fd, small, size, 0)
    if got < 0:
        not_now()
        return None
    return PyBytes_FromStringAndSize(small, got)


cdef inline bytes receive_much(int fd, Py_ssize_t size):
    cdef PyObject* data = new_bytes(NULL, size)
    cdef ssize_t got = recv(fd, PyBytes_AS_STRING(<object>data), size, 0)
    try:
        if got < 0:
            not_now()
            return None
        shorten(&data, got)
        return take(data)
    finally:
        drop(data)


cdef inline Py_ssize_t give(int fd, bytes data) except -1:
    cdef ssize_t sent = send(fd, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), MSG_NOSIGNAL)
    if sent < 0:
        not_now()
        return 0
    return sent
