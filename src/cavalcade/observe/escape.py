"""Text of peers, fit for a line of the log."""

from __future__ import annotations

import re

from cavalcade import limits

# What could end a line early, close the quotes or steer a terminal. The peer chooses the target, and often the method.
_UNSAFE = re.compile(r'[^\x20-\x7e]|["\\]')


def quoted(text: str) -> str:
    """`text` fit for one line between double quotes: printable ASCII, everything else escaped, cut where it is endless."""
    if len(text) > limits.LOG_TARGET_CHARS:
        text = text[: limits.LOG_TARGET_CHARS] + "..."
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return text
    return _UNSAFE.sub(_escape, text)


def shown(text: str) -> str:
    """`text` cut where it is endless, and without lone surrogates, which JSON cannot carry."""
    if len(text) > limits.LOG_TARGET_CHARS:
        text = text[: limits.LOG_TARGET_CHARS] + "..."
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _escape(match: re.Match[str]) -> str:
    char = match[0]
    code = ord(char)
    if char in '"\\':
        return "\\" + char
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
