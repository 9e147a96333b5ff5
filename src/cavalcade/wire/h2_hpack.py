"""HPACK decoding (RFC 7541), over the library's table, its Huffman code and its errors.

The loop is ours because the library's copies what is left of a block for every literal in it, which is quadratic in what a peer sends, and
because most of a usual block is one-byte references that need no more than a look into the table. So is the loop over the Huffman code,
whose table is the library's: compiled it is ten times as fast. A test holds both to the library's.

This file is plain Python and, compiled with the h2_hpack.pxd beside it, an extension module.
"""

from __future__ import annotations

from typing import Any

from hpack import HPACKDecodingError, InvalidTableIndex, InvalidTableSizeError, OversizedHeaderListError
from hpack.huffman_table import HUFFMAN_COMPLETE, HUFFMAN_EMIT_SYMBOL, HUFFMAN_FAIL, HUFFMAN_TABLE
from hpack.table import HeaderTable

from cavalcade import limits

Field = tuple[bytes, bytes]

KEPT_BLOCKS = 64  # decoded heads that are kept for one connection
KEPT_BLOCK_BYTES = 512
KEPT_STRINGS = 64
KEPT_STRING_BYTES = 256

_STATIC: list[Field] = [(b"", b""), *HeaderTable.STATIC_TABLE]  # from 1 on
_STATIC_END = len(_STATIC)

_COMPLETE, _EMIT, _FAIL = HUFFMAN_COMPLETE, HUFFMAN_EMIT_SYMBOL, HUFFMAN_FAIL
# The library's table, by state and four bits of input: the next state (256, which is none, comes with FAIL), what to do, and the symbol.
_NEXT = bytes(state & 0xFF for state, _, _ in HUFFMAN_TABLE)
_FLAGS = bytes(flags for _, flags, _ in HUFFMAN_TABLE)
_SYMBOLS = bytes(symbol for _, _, symbol in HUFFMAN_TABLE)


class Fields:
    """The decoded fields of one header block. `read` is for whoever makes something of them, and lives as long as they do."""

    __slots__ = ("read", "size", "these")

    def __init__(self, these: list[Field], size: int) -> None:
        self.these = these
        self.size = size  # as SETTINGS_MAX_HEADER_LIST_SIZE counts it (RFC 9113 section 6.5.2)
        self.read: Any = None


class FieldDecoder:
    """The decoder of one connection. Blocks that change nothing in its table mean the same until one comes that does: they are decoded
    once."""

    def __init__(self, head_bytes: int) -> None:
        self._table = HeaderTable()  # of the size that every peer may use unless it is told otherwise
        self._table_most = self._table.maxsize
        self._most = head_bytes * limits.H2_HEAD_FACTOR
        self._kept: dict[bytes, Fields] = {}
        self._strings: dict[bytes, bytes] = {}  # a peer whose table is too small says the same again and again
        self._changed = False

    def decode(self, block: bytes) -> Fields:
        """Raises `OversizedHeaderListError`, and other `HPACKError`s for what cannot be decoded. No other block can be after that."""
        fields = self._kept.get(block)
        if fields is not None:
            return fields
        self._changed = False
        try:
            fields = self._read(block)
        except IndexError:
            raise HPACKDecodingError("a header block that ends too early") from None
        if self._changed:
            self._kept.clear()
        elif len(block) <= KEPT_BLOCK_BYTES:
            if len(self._kept) >= KEPT_BLOCKS:
                self._kept.clear()
            self._kept[block] = fields
        return fields

    def _read(self, data: bytes) -> Fields:
        table = self._table
        these: list[Field] = []
        most = self._most
        total = 0
        at = 0
        size = len(data)
        while at < size:
            first = data[at]
            if first & 0x80:  # section 6.1: an entry of the table
                if first == 0xFF:
                    index, at = _integer(data, at, 0x7F)
                else:
                    index = first & 0x7F
                    at += 1
                if 0 < index < _STATIC_END:
                    field = _STATIC[index]
                else:
                    field = self._entry(index)
            elif first & 0x60 == 0x20:  # section 6.3: the size of the table
                if these:
                    raise HPACKDecodingError("a table size behind a field")
                index, at = _integer(data, at, 0x1F)
                if index > self._table_most:
                    raise InvalidTableSizeError("a table that is larger than allowed")
                table.maxsize = index
                self._changed = True
                continue
            else:  # section 6.2: a literal, whose name may be that of an entry
                index, at = _integer(data, at, 0x3F if first & 0x40 else 0x0F)
                if index:
                    name = self._entry(index)[0]
                else:
                    name, at = self._string(data, at)
                value, at = self._string(data, at)
                field = (name, value)
                if first & 0x40:
                    table.add(name, value)
                    self._changed = True
            total += len(field[0]) + len(field[1]) + 32
            if total > most:
                raise OversizedHeaderListError(f"a header list over {most} bytes")
            these.append(field)
        return Fields(these, total)

    def _string(self, data: bytes, at: int) -> tuple[bytes, int]:
        """The string at `at`, and where it ends (section 5.2)."""
        coded = data[at] & 0x80
        length, at = _integer(data, at, 0x7F)
        end = at + length
        if end > len(data):
            raise HPACKDecodingError("a string beyond the end of its block")
        piece = data[at:end]
        if not coded:
            return piece, end
        text = self._strings.get(piece)
        if text is None:
            text = decode_huffman(piece)
            if length <= KEPT_STRING_BYTES:
                if len(self._strings) >= KEPT_STRINGS:
                    self._strings.clear()
                self._strings[piece] = text
        return text, end

    def _entry(self, index: int) -> Field:
        if 0 < index < _STATIC_END:
            return _STATIC[index]
        entries = self._table.dynamic_entries
        if not 0 <= index - _STATIC_END < len(entries):
            raise InvalidTableIndex(f"no entry {index} in the table")
        return entries[index - _STATIC_END]


def decode_huffman(data: bytes) -> bytes:
    """The string behind a code (section 5.2)."""
    following, actions, symbols = _NEXT, _FLAGS, _SYMBOLS
    out = bytearray()
    state = flags = 0
    for byte in data:
        at = state << 4 | byte >> 4
        flags = actions[at]
        if flags & _EMIT:
            out.append(symbols[at])
        failed = flags
        at = following[at] << 4 | byte & 0x0F
        flags = actions[at]
        if (failed | flags) & _FAIL:
            raise HPACKDecodingError("a string that is not in the Huffman code")
        if flags & _EMIT:
            out.append(symbols[at])
        state = following[at]
    if data and not flags & _COMPLETE:
        raise HPACKDecodingError("a string whose last code is not whole, or padded with more than it may be")
    return bytes(out)


def _integer(data: bytes, at: int, most: int) -> tuple[int, int]:
    """The integer at `at`, behind a prefix that leaves it `most`, and where it ends (section 5.1)."""
    number = data[at] & most
    at += 1
    if number < most:
        return number, at
    for shift in (0, 7, 14, 21, 28):
        byte = data[at]
        at += 1
        number += (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
    raise HPACKDecodingError("an integer beyond any sense")
