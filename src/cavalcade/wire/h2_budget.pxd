# cython: language_level=3
# Types for h2_budget.py when it is compiled: names and meaning are there.


cdef class Budget:
    cdef public double _most, _left, _per_second, _at

    cpdef bint spend(self, double now, double cost=*)
    cpdef earn(self, double gain)
