"""Decoded keys of a batch. In: a batch of an engine with keys. Out: the same batch, whose keys have values.

Keys are made by the origin of the messages, when something asks for them. So each origin gets one before it that knows
the decoded keys: its records are pairs of a record and a key. Everything else it passes on.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Any, NamedTuple, cast

from qtools.attributes import Attributes
from qtools.message import Batch, Messages, Parts, RecordOrigin


class KeyedRecord(NamedTuple):
    """A record of an engine, and the decoded key of its message."""

    record: Any
    key: bytes | None


class DecodedKeyOrigin:
    """A RecordOrigin with KeyedRecords, before `origin`."""

    def __init__(self, origin: RecordOrigin) -> None:
        self._origin = origin
        self.topic = origin.topic
        self.address = origin.address

    @property
    def is_lost(self) -> bool:
        return self._origin.is_lost

    def finish(self, ids: Sequence[Any]) -> None:
        self._origin.finish(ids)

    def requeue(self, ids: Sequence[Any], delay_ms: int) -> None:
        self._origin.requeue(ids, delay_ms)

    def touch(self, ids: Sequence[Any]) -> None:
        self._origin.touch(ids)

    def messages_of(self, records: Sequence[KeyedRecord], bodies: list[bytes]) -> Messages:
        return self._origin.messages_of([each.record for each in records], bodies)

    def attributes_of(self, records: Sequence[KeyedRecord], only: Container[str] = Attributes._fields) -> Attributes:
        made = self._origin.attributes_of([each.record for each in records], only)
        return made._replace(keys=[each.key for each in records]) if "keys" in only else made

    def delivered_more_than(self, times: int, records: Sequence[KeyedRecord]) -> dict[int, int]:
        return self._origin.delivered_more_than(times, [each.record for each in records])

    def __repr__(self) -> str:
        return repr(self._origin)


def with_keys(batch: Batch, keys: Sequence[bytes | None]) -> Batch:
    """`batch`, which has records, with other keys."""
    known: dict[int, DecodedKeyOrigin] = {}
    parts: Parts = []
    for origin, start, stop in batch.parts:
        made = known.get(id(origin)) or DecodedKeyOrigin(cast("RecordOrigin", origin))
        known[id(origin)] = made
        parts.append((made, start, stop))
    records = [KeyedRecord(*pair) for pair in zip(batch.records, keys, strict=True)]
    return Batch(parts, None, batch.bodies, batch.ids, records)
