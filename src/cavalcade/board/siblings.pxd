# cython: language_level=3
# Types for siblings.py when it is compiled: names and meaning are there.

cimport cython
from cavalcade.board.row cimport Row

# Compiled, these names of siblings.py are C variables, and no attributes of the module.
cdef long long STALE_NS, STALE_IDLE_NS, LOOK_EVERY_NS
cdef int READY


cdef class Siblings:
    cdef object _board
    cdef int _slot
    cdef list _rows
    cdef long long _look_at

    cpdef refresh(self)
    @cython.locals(now="long long", least="long long", load="long long", stale_before="long long", row=Row)
    cpdef long long least_load(self)
