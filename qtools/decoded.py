"""Bodies in a binary format whose JSON value is known: what is published and stored is the bytes, and what expressions
see is the value. Plain data.

    DecodedBody       `value` is the body as JSON
    UndecodableBody   `reason` says why it has no value; an expression fails on it with this text

Both are the bytes of the message. So a body keeps its value wherever the batch goes: through filters, routes, keys of
--dedupe and partitions. `flow/filter.py` is the one place that reads the value. A tombstone (attributes.TOMBSTONE) has
the value null.
"""

from __future__ import annotations

from typing import Any


class DecodedBody(bytes):
    """A body, and its JSON value (None, bool, int, float, str, list, dict)."""

    value: Any

    @classmethod
    def of(cls, body: bytes, value: Any) -> DecodedBody:
        made = cls(body)
        made.value = value
        return made


class UndecodableBody(bytes):
    """A body that could not be decoded, and the reason, without the message's name."""

    reason: str

    @classmethod
    def of(cls, body: bytes, reason: str) -> UndecodableBody:
        made = cls(body)
        made.reason = reason
        return made
