# cython: language_level=3
# Types for row.py when it is compiled: names and meaning are there. The one place where the board is touched as memory and not by Python's
# own means: a typed view, whose items are single aligned 64-bit loads and stores.

cimport cython


cdef class Row:
    cdef object _memory
    cdef unsigned long long[::1] _words

    cpdef unsigned long long get(self, Py_ssize_t word)
    cpdef set(self, Py_ssize_t word, unsigned long long value)
    cpdef add(self, Py_ssize_t word, long long n)
