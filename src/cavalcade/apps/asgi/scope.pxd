# cython: language_level=3
# Types for scope.py when it is compiled: names and meaning are there.

cimport cython
from cavalcade.apps.stream cimport Serving
from cavalcade.wire.sink cimport Head

# Compiled, this name of scope.py is a C variable, and no attribute of the module.
cdef dict _ASGI


@cython.locals(scope=dict, root_path=str, extensions=dict, tls=dict)
cpdef dict build(Serving serving, dict template, Head head)
