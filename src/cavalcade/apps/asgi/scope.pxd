# cython: language_level=3
# Types for scope.py when it is compiled: names and meaning are there.

cimport cython
from cavalcade.apps.stream cimport Serving
from cavalcade.wire.sink cimport Head


@cython.locals(scope=dict, root_path=str, extensions=dict, tls=dict)
cpdef dict build(Serving serving, dict template, Head head)
