# cython: language_level=3
# Types for stream.py when it is compiled: names and meaning are there.

from cavalcade.apps.tasks cimport Starter


from cavalcade.board.ledger cimport Ledger


cdef class Serving:
    cdef public Starter starter
    cdef public object app, loop, context
    cdef public dict state
    cdef public dict running
    cdef public Ledger ledger
    cdef public object draining
    cdef public set websockets
    cdef public object websocket_rules
    cdef public int leave_code
    cdef public dict extensions
    cdef public bint cancel_on_disconnect
    cdef public str root_path
    cdef public bytes raw_root_path
    cdef public object websocket_serving
