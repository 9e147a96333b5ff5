# cython: language_level=3
# Types for tasks.py when it is compiled: names and meaning are there.

cimport cython

# Compiled, these names of tasks.py are C variables, and no attributes of the module.
cdef object _Task, OVER, first_step, rest
cdef bint _EAGER
cdef dict _running
cdef str _NAME


cdef class Starter:
    cdef public object loop, asked, coroutine, context, rest, task, step
    cdef public bint late

    cpdef run(self, coroutine, context)
    cpdef start(self, coroutine, context)
    cpdef new(self, coroutine, context)
    cpdef take_step(self, context)
    cpdef make(self)


@cython.locals(callbacks=list)
cpdef end_wait(waiter, loop)
