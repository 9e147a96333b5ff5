# cython: language_level=3
# Types for environ.py when it is compiled: names and meaning are there.

cimport cython
from cavalcade.wire.sink cimport Head

# Compiled, these names of environ.py are C variables, and no attributes of the module.
cdef dict KEYS, TARGETS


@cython.locals(environ=dict, split=tuple, name=bytes, value=bytes, key=str, text=str)
cpdef dict build(dict template, Head head)
