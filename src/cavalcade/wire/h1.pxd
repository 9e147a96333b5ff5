# cython: language_level=3
# Types for h1.py when it is compiled. Only what makes the hot path faster: names and meaning are in h1.py.

cimport cython
from cavalcade.wire.h1_plain cimport read_block, read_line
from cavalcade.wire.h1_response cimport Responses, Rules
from cavalcade.wire.sink cimport Head

# Compiled, these names of h1.py are C variables, and no attributes of the module.
cdef int HEAD, BODY_LENGTH, BODY_CHUNKED, WAIT
cdef int SIZE_LINE, CHUNK_DATA, TRAILERS
cdef int HOST_FIELD, STRANGE, STRANGE_TURNS
cdef dict LINES, METHODS, REQUEST_NAMES, TARGETS


cdef class H1(Responses):
    cdef public object sink
    cdef public object parser
    cdef public bint plain
    cdef public bytes block
    cdef public tuple known
    cdef public Py_ssize_t block_bytes
    cdef public int strange
    cdef public int state
    cdef public bint feeding
    cdef public bytes rest
    cdef public bytes url
    cdef public list headers
    cdef public int hosts
    cdef public object length
    cdef public bint expects_continue
    cdef public bytes tail
    cdef public Py_ssize_t head_bytes
    cdef public object body_left, body_seen
    cdef public int chunk_state
    cdef public object chunk_left
    cdef public bytes line
    cdef public list spans
    cdef public bint head_complete, complete
    cdef public Py_ssize_t empty_bytes

    @cython.locals(state=int, turns=int)
    cpdef feed(self, bytes data)
    cpdef next_request(self)
    cpdef close(self)
    cpdef release(self)
    cpdef bint idle(self)
    cpdef bint due(self)
    @cython.locals(size=Py_ssize_t, end=Py_ssize_t, tail=bytes, rest=bytes, upgrade=bint, first=int)
    cpdef bytes feed_head(self, bytes data)
    @cython.locals(rules=Rules, head=Head, cut=Py_ssize_t, text=bytes, line=tuple, block=bytes, known=tuple)
    cpdef bint take_plain(self, bytes data, Py_ssize_t end) except -1
    cpdef begin_parsing(self)
    cpdef stay_in_head(self, bytes data)
    cpdef tokenize(self, bytes data)
    @cython.locals(head=Head, method=bytes, url=bytes, headers=list, split=tuple, line=bytes)
    cpdef finish_head(self, bint upgrade, bytes data)
    cpdef begin(self, length, bint upgrade)
    cpdef expect_body(self, length, bint upgrade)
    cpdef decline_upgrade(self)
    cpdef bytes feed_length(self, bytes data)
    cpdef bytes feed_chunked(self, bytes data)
    @cython.locals(spans=list)
    cpdef deliver(self, bint ended)
    cpdef on_url(self, bytes url)
    @cython.locals(entry=tuple, kind=int)
    cpdef on_header(self, bytes name, bytes value)
    cpdef on_special(self, int kind, bytes value)
    cpdef on_headers_complete(self)
    cpdef on_body(self, bytes body)
    cpdef on_message_complete(self)
