# cython: language_level=3
# Types for ledger.py when it is compiled: names and meaning are there.

cimport cython
from cavalcade.board.row cimport Row

# Compiled, these names of ledger.py are C variables, and no attributes of the module.
cdef int BUCKETS, FIRST_BYTE, LATENCY, OTHER_AT, REQUESTS, SENT, STATUSES
cdef dict METHOD_AT
cdef tuple BOUNDS_S


cdef class Ledger(Row):
    @cython.locals(words="unsigned long long[::1]", at=int, bucket=int)
    cpdef answered(self, str method, int status, long long sent_bytes, double seconds, double first_byte_s)
    cpdef refused(self, int status)
    cpdef observe(self, int histogram, double seconds)


@cython.locals(bucket=int, bound=double)
cpdef int bucket_of(double seconds)
