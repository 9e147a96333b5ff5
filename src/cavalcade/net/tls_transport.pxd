# cython: language_level=3
# Types for tls_transport.py when it is compiled: names and meaning are there.

cimport cython
from cavalcade.net.transport cimport Transport

# Compiled, this name of tls_transport.py is a C variable, and no attribute of the module.
cdef Py_ssize_t RECORD_BYTES


cdef class TlsTransport:
    cdef public Transport raw
    cdef public object tls, records, incoming, outgoing, link
    cdef public bint read_paused, input_over, output_over
    cdef public Py_ssize_t unasked_bytes

    cpdef int fileno(self)
    cpdef Py_ssize_t get_write_buffer_size(self)
    cpdef bint is_closing(self)
    @cython.locals(done=Py_ssize_t)
    cpdef write(self, data)
    cpdef write_eof(self)
    cpdef close(self)
    cpdef abort(self)
    cpdef pause_reading(self)
    cpdef resume_reading(self)
    cpdef data_received(self, data)
    cpdef eof_received(self)
    @cython.locals(size=Py_ssize_t, data=bytes)
    cpdef pump(self)
    cpdef answer(self)
    cpdef bint end_input(self)
    cpdef end_output(self)
    cpdef fail(self, error)
