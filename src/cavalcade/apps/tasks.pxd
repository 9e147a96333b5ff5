# cython: language_level=3
# Types for tasks.py when it is compiled: names and meaning are there.

cimport cython

# Compiled, these names of tasks.py are C variables, and no attributes of the module.
cdef object _Task, _current_task
cdef bint _EAGER
cdef str _NAME


cdef class Starter:
    cdef public object loop, step

    cpdef start(self, coroutine, context)


@cython.locals(callbacks=list)
cpdef go_on(waiter, loop)
