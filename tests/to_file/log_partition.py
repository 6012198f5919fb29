"""A partition of a log, and a group that reads it, as an engine with such has them; in memory, and without threads."""

from __future__ import annotations

import threading
from collections.abc import Container, Sequence
from typing import Any

from qtools.attributes import Attributes
from qtools.message import Batch, Message, Messages
from to_file.house import NOW


class Log:
    """offsets: of its messages, which tell their offsets. committed: where the next reader begins."""

    def __init__(self, number: int, offsets: Sequence[int], begin: int = 0, topic_id: str = "") -> None:
        self.topic_id = topic_id
        self.number = number
        self.offsets = list(offsets)
        self.committed = begin
        self.note = ""
        self.reader: Reader | None = None

    def read(self) -> Reader:
        """Read on from what is committed, as the only reader."""
        if self.reader is not None:
            self.reader.is_lost = True
        self.reader = Reader(self)
        return self.reader


class Reader:
    """One assignment of `log`: a message.PartitionOrigin."""

    topic = "events"
    address = "10.0.0.5:9092"

    def __init__(self, log: Log) -> None:
        self.log = log
        self.number = log.number
        self.is_lost = False
        self.commit_limit: int | None = None
        self.ownership_lock = threading.Lock()
        self.note = log.note
        self.again = 0  # how often it was to be read again
        self.finished = log.committed
        self._next = next((nth for nth, each in enumerate(log.offsets) if each >= log.committed), len(log.offsets))

    def take(self, count: int) -> Batch | None:
        """The next messages, at most `count`; None at the end."""
        offsets = self.log.offsets[self._next : self._next + count]
        self._next += len(offsets)
        return self.batch(offsets) if offsets else None

    def batch(self, offsets: Sequence[int]) -> Batch:
        return Batch([(self, 0, len(offsets))], None, [self.body(each) for each in offsets], offsets, list(offsets))

    def body(self, offset: int) -> bytes:
        return b'{"p":%d,"o":%d,"at":%d}' % (self.number, offset, NOW + offset % 3 * 3600)

    def commit(self) -> None:
        """As an engine does from time to time."""
        if not self.is_lost:
            held = self.finished if self.commit_limit is None else min(self.finished, self.commit_limit)
            if held > self.log.committed:
                self.log.committed, self.log.note = held, self.note

    def finish(self, ids: Sequence[int]) -> None:
        self.finished = ids[-1] + 1

    def requeue(self, ids: Sequence[int], delay_ms: int) -> None: ...
    def touch(self, ids: Sequence[int]) -> None: ...

    def topic_id(self) -> str:
        return self.log.topic_id

    def read_again(self) -> None:
        self.again += 1

    def messages_of(self, records: Sequence[int], bodies: list[bytes]) -> Messages:
        return Messages.of(
            Message(int(NOW * 1e9) + offset * 1_000_000, 1, b"%04x%012x" % (self.number, offset), body)
            for offset, body in zip(records, bodies, strict=True)
        )

    def attributes_of(self, records: Sequence[int], only: Container[str] = Attributes._fields) -> Attributes:
        return Attributes(partitions=[self.number] * len(records), offsets=records)

    def delivered_more_than(self, times: int, records: Sequence[Any]) -> dict[int, int]:
        return {}
