"""What the reader of a group, which is a thread, and its owner, which is the source, know of each other."""

from __future__ import annotations

from typing import Any, Protocol

from qtools.engines.kafka.consume.partition import KafkaPartition, PartitionRecords


class ReaderOwner(Protocol):
    """What a reader needs of its owner, the source. `grant` and `take` are called in the reader's thread, the other
    methods in the event loop's."""

    def grant(self, most: int) -> int:
        """How many messages may be read now, at most `most`; they count as read until `take` says how many were."""

    def take(self, granted: int, read: int) -> None:
        """Of the messages that were granted, `read` were read."""

    def make_partition(self, topic: str, number: int) -> KafkaPartition:
        """A partition that was assigned; called in the reader's thread."""

    def arrived(self, reader: Any, found: list[tuple[KafkaPartition, PartitionRecords]]) -> None: ...

    def taken_away(self, partitions: list[KafkaPartition]) -> None: ...

    def reached(self, partition: KafkaPartition, offset: int) -> None:
        """The end of a partition was read; the next message will have `offset`, or a higher one."""

    def failed(self, topic: str, code: int, reason: str) -> None: ...
