# cython: language_level=3
# Types for h2_hpack.py when it is compiled: names and meaning are there.

cimport cython

cdef int _COMPLETE, _EMIT, _FAIL
cdef bytes _NEXT, _FLAGS, _SYMBOLS
cdef list _STATIC
cdef Py_ssize_t _STATIC_END


cdef class Fields:
    cdef public list these
    cdef public Py_ssize_t size
    cdef public object read


cdef class FieldDecoder:
    cdef public object _table
    cdef public Py_ssize_t _table_most, _most
    cdef public dict _kept, _strings
    cdef public bint _changed

    cpdef Fields decode(self, bytes block)
    @cython.locals(these=list, most=Py_ssize_t, total=Py_ssize_t, at=Py_ssize_t, size=Py_ssize_t, first=int, index=Py_ssize_t, field=tuple,
                   name=bytes, value=bytes)
    cpdef Fields _read(self, bytes data)
    @cython.locals(coded=int, length=Py_ssize_t, end=Py_ssize_t, piece=bytes, text=bytes)
    cpdef tuple _string(self, bytes data, Py_ssize_t at)
    cpdef tuple _entry(self, Py_ssize_t index)


@cython.locals(following=bytes, actions=bytes, symbols=bytes, state=int, flags=int, failed=int, at=Py_ssize_t, byte=cython.uchar)
cpdef bytes decode_huffman(bytes data)
@cython.locals(number=Py_ssize_t, byte=Py_ssize_t, shift=int)
cpdef tuple _integer(bytes data, Py_ssize_t at, Py_ssize_t most)
