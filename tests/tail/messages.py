"""Batches for the tests of output: made of plain data, of NSQ's or of Kafka's kind."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Any

from qtools.attributes import Attributes
from qtools.message import Batch, Message, Messages

STAMP = 1_700_000_000_123_456_789  # ns


class Origin:
    """Where messages came from. attributes: of all of them, or None for an engine without."""

    is_lost = False
    address = "127.0.0.1:4150"

    def __init__(self, topic: str = "orders", attributes: Attributes | None = None) -> None:
        self.topic = topic
        self._attributes = attributes

    def messages_of(self, records: Sequence[Any], bodies: list[bytes]) -> Messages:
        pairs = zip(records, bodies, strict=True)
        return Messages.of([Message(STAMP, 1, b"%016d" % number, body) for number, body in pairs])

    def attributes_of(self, records: Sequence[Any], only: Container[str] = Attributes._fields) -> Attributes:
        assert self._attributes is not None
        return self._attributes.pick(list(records))

    def delivered_more_than(self, times: int, records: Sequence[Any]) -> dict[int, int]:
        return {}

    def finish(self, ids: Sequence[Any]) -> None: ...
    def requeue(self, ids: Sequence[Any], delay_ms: int) -> None: ...
    def touch(self, ids: Sequence[Any]) -> None: ...


def batch_of(*bodies: bytes, topic: str = "orders", attempts: int = 1) -> Batch:
    """Messages without keys and headers."""
    return Batch.of(
        Origin(topic), Messages.of([Message(STAMP, attempts, b"%016d" % n, b) for n, b in enumerate(bodies)])
    )


def record_batch(attributes: Attributes, *bodies: bytes) -> Batch:
    """Messages with `attributes`."""
    return Batch.of_bodies(Origin("orders", attributes), list(bodies), records=range(len(bodies)))
