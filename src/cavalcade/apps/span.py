"""A part of an open file, on its way from an adapter to a stream."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)  # not frozen, which makes it seven times as dear to make
class Span:
    """`fd` belongs to whoever holds the span; it outlives the file object of the app. Offset and count are in bytes."""

    fd: int
    offset: int
    count: int
