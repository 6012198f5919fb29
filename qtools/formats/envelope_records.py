"""Messages that were read from envelopes, with what they have besides a body. In: envelopes. Out: records, columns.

A block of input that keeps its envelopes is a RecordOrigin (message.py), whose records are those of this file. They
hold key and headers as bytes, checked when the input was read; the rest is read from an envelope when something asks
for it. Timestamps are known to expressions and are not published: a topic keeps a message by its timestamp, so that an
old one could be deleted at once.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from typing import Any, NamedTuple

from qtools.attributes import Attributes, Headers
from qtools.formats.envelope import headers_of, key_of
from qtools.message import Message, Messages

MOST_ATTEMPTS = 65_535  # that a Message can hold
MOST_TIMESTAMP = (1 << 63) - 1


class EnvelopeRecord(NamedTuple):
    """An envelope, and the key and the headers in it."""

    fields: dict[str, Any]
    key: bytes | None
    headers: Headers


def record_of_envelope(fields: dict[str, Any]) -> EnvelopeRecord:
    """The record of an envelope of JSON; ValueError if its key or its headers cannot be read."""
    return EnvelopeRecord(fields, key_of(fields), headers_of(fields))


def record_of_msgpack(fields: dict[str, Any]) -> EnvelopeRecord:
    """The record of an envelope of msgpack, whose key and headers are bytes; ValueError as above."""
    key, found = fields.get("key"), fields.get("headers") or {}
    if key is not None and not isinstance(key, bytes):
        raise ValueError('it has a "key" that is not binary')
    if not isinstance(found, dict):
        raise ValueError('it has "headers" that are not a map')
    headers = [
        (name, each) for name, value in found.items() for each in (value if isinstance(value, list) else [value])
    ]
    for name, value in headers:
        if not isinstance(name, str) or (value is not None and not isinstance(value, bytes)):
            raise ValueError(f"it has a header {name!r} that is not binary")
    return EnvelopeRecord(fields, key, headers)


RECORD_OF: dict[str, Callable[[dict[str, Any]], EnvelopeRecord]] = {
    "envelope": record_of_envelope,
    "msgpack": record_of_msgpack,
}
"""The function that makes the record of an envelope, by format."""


# ── what a RecordOrigin answers ─────────────────────────────────────────────────────────────────


def messages_of(records: Sequence[EnvelopeRecord], bodies: list[bytes]) -> Messages:
    """Ids, timestamps and attempts as the envelopes have them; what they lack is empty or 0."""
    return Messages.of(
        Message(_number(fields, "timestamp", MOST_TIMESTAMP), attempts_of(fields), _id_of(fields), body)
        for (fields, _, _), body in zip(records, bodies, strict=True)
    )


def attributes_of(records: Sequence[EnvelopeRecord], only: Container[str]) -> Attributes:
    """Keys, headers and the like, as the envelopes have them, but not timestamps."""
    partitions: list[Any] = [record.fields.get("partition") for record in records] if "partitions" in only else []
    offsets: list[Any] = [record.fields.get("offset") for record in records] if "offsets" in only else []
    return Attributes(
        keys=[record.key for record in records] if "keys" in only else None,
        headers=[record.headers for record in records] if "headers" in only else None,
        partitions=partitions or None,
        offsets=offsets or None,
        topics=[_text(record.fields, "topic") for record in records] if "topics" in only else None,
    )


def delivered_more_than(times: int, records: Sequence[EnvelopeRecord]) -> dict[int, int]:
    """The messages that were delivered more than `times` before they were written: place → deliveries."""
    found = {place: attempts_of(record.fields) for place, record in enumerate(records)}
    return {place: deliveries for place, deliveries in found.items() if deliveries > times}


def attempts_of(fields: dict[str, Any]) -> int:
    return _number(fields, "attempts", MOST_ATTEMPTS)


def _id_of(fields: dict[str, Any]) -> bytes:
    return _text(fields, "id").encode("latin-1", "replace")


def _text(fields: dict[str, Any], name: str) -> str:
    value = fields.get(name)
    return value if isinstance(value, str) else ""


def _number(fields: dict[str, Any], name: str, most: int) -> int:
    value = fields.get(name)
    return min(value, most) if type(value) is int and value >= 0 else 0


class EnvelopeOrigin:
    """A RecordOrigin of envelopes that nothing acknowledges."""

    topic = ""
    address = ""
    is_lost = False

    def finish(self, ids: Sequence[Any]) -> None: ...
    def requeue(self, ids: Sequence[Any], delay_ms: int) -> None: ...
    def touch(self, ids: Sequence[Any]) -> None: ...

    def messages_of(self, records: Sequence[Any], bodies: list[bytes]) -> Messages:
        return messages_of(records, bodies)

    def attributes_of(self, records: Sequence[Any], only: Container[str] = Attributes._fields) -> Attributes:
        return attributes_of(records, only)

    def delivered_more_than(self, times: int, records: Sequence[Any]) -> dict[int, int]:
        return delivered_more_than(times, records)
