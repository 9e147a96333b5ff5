# cython: language_level=3
# Types for h2_frames.py when it is compiled: names and meaning are there.

cimport cython

cpdef bytes frame(int kind, int flags, Py_ssize_t stream_id, bytes payload)
cpdef bytes header_frames(Py_ssize_t stream_id, bytes block, bint last, Py_ssize_t most)
@cython.locals(flags=int, start=Py_ssize_t, padding=Py_ssize_t)
cpdef bytes fragment(bytes data)
