"""The decoder against the library's: the same fields, or an error, block after block."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hpack import Decoder, Encoder, HPACKDecodingError, HPACKError, NeverIndexedHeaderTuple, OversizedHeaderListError
from hpack.huffman_table import decode_huffman as decode_by_library
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cavalcade import limits
from cavalcade.wire.h2_hpack import FieldDecoder, decode_huffman
from cavalcade.wire.h2_response import encode_field, integer

HEAD_BYTES = limits.HEAD_BYTES
TEXT = (
    st.binary(max_size=8) | st.binary(min_size=60, max_size=130) | st.sampled_from([b":method", b"GET", b"cookie", b"accept", b"text/html"])
)
FIELD = st.tuples(TEXT, TEXT)


class Both:
    def __init__(self) -> None:
        self.ours = FieldDecoder(HEAD_BYTES)
        self.theirs = Decoder(max_header_list_size=HEAD_BYTES * limits.H2_HEAD_FACTOR)

    def decode(self, block: bytes) -> bool:
        """Is it a good block, for both?"""
        try:
            wanted: Any = [(bytes(name), bytes(value)) for name, value in self.theirs.decode(block, raw=True)]
        except (HPACKError, IndexError) as error:
            with pytest.raises(OversizedHeaderListError if isinstance(error, OversizedHeaderListError) else HPACKError):
                self.ours.decode(block)
            return False
        fields = self.ours.decode(block)
        assert fields.these == wanted
        assert fields.size == sum(len(name) + len(value) + 32 for name, value in wanted)
        return True


@settings(max_examples=100, deadline=None, derandomize=True)
@example([([((b"", b""), False)] * 4, False, 32), ([((b"", b""), False)] * 3 + [((b"", b"\0"), False)], False, None)])
@given(
    st.lists(st.tuples(st.lists(st.tuples(FIELD, st.booleans()), max_size=12), st.booleans(), st.integers(0, 4096) | st.none()), max_size=8)
)
def test_what_an_encoder_makes(blocks: list[Any]) -> None:
    both, encoder = Both(), Encoder()
    for fields, huffman, size in blocks:
        if size is not None:
            encoder.header_table_size = size
        table = encoder.header_table.dynamic_entries
        began_empty = not table
        block = encoder.encode([NeverIndexedHeaderTuple(*field) if never else field for field, never in fields], huffman=huffman)
        assert both.decode(block)
        if began_empty and not table:  # else it changes the table, or needs what it took out of it
            assert both.decode(block)


PIECE = (
    st.binary(max_size=6)
    | st.integers(0, 300).map(lambda number: integer(number, 7, 0x80))
    | st.integers(0, 5000).map(lambda number: integer(number, 5, 0x20))
    | st.builds(
        lambda number, value: integer(number, 6, 0x40) + integer(len(value), 7, 0) + value, st.integers(0, 70), st.binary(max_size=9)
    )
    | st.builds(
        lambda number, value: integer(number, 4, 0x10) + integer(len(value), 7, 0x80) + value, st.integers(0, 70), st.binary(max_size=9)
    )
    | st.builds(encode_field, st.binary(max_size=9), st.binary(max_size=9))
)


@settings(max_examples=1000, deadline=None, derandomize=True)
@given(st.lists(st.lists(PIECE, max_size=6).map(b"".join), max_size=4))
def test_whatever_comes(blocks: list[bytes]) -> None:
    both = Both()
    for block in blocks:
        if not both.decode(block):
            return


@pytest.mark.parametrize(
    "block", [b"\xff\xff\xff\xff\xff\xff\x01", b"\xff\x80\x80\x80\x80\x80\x80", b"\x7f", b"\xff", b"\x40", b"\x40\x01", b"\x40\x7f\xff"]
)
def test_what_ends_too_early_or_never(block: bytes) -> None:
    with pytest.raises(HPACKDecodingError):
        FieldDecoder(HEAD_BYTES).decode(block)
    assert not Both().decode(block)


@settings(max_examples=500, deadline=None, derandomize=True)
@given(st.binary(max_size=40).map(Encoder().huffman_coder.encode) | st.binary(max_size=12))
def test_the_huffman_code(code: bytes) -> None:
    try:
        wanted = bytes(decode_by_library(code))
    except HPACKDecodingError:
        with pytest.raises(HPACKDecodingError):
            decode_huffman(code)
    else:
        assert decode_huffman(code) == wanted


def test_a_table_smaller_than_what_was_put_into_it() -> None:
    both = Both()
    assert both.decode(encode_table([(b"a", b"x" * 100), (b"b", b"y" * 100)]))
    assert both.decode(b"\xbe\xbf")
    assert both.decode(b"\x3f\x8a\x01" + b"\xbe")  # 169 bytes: one of them is left
    assert not both.decode(b"\xbf")


def encode_table(fields: list[tuple[bytes, bytes]]) -> bytes:
    return b"".join(b"\x40" + integer(len(name), 7, 0) + name + integer(len(value), 7, 0) + value for name, value in fields)


def test_a_block_full_of_tiny_fields_is_no_lever() -> None:
    """The library's loop copies what is left of the block for each."""
    block = b"\0\1a\0" * (HEAD_BYTES // 4)
    took = []
    for _ in range(3):  # of a busy machine's caches something is lost now and then
        decoder = FieldDecoder(HEAD_BYTES)
        began = time.process_time()
        with pytest.raises(OversizedHeaderListError):
            decoder.decode(block)
        took.append(time.process_time() - began)
    assert min(took) < 0.05
