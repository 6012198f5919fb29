"""Partitions of a log (Kafka) while they are archived: what is archived already, and what may not be committed yet.

    split: batch ─▶ messages of one partition and directory each, without those that are archived     ▶ files
    begin ─▶ hold: nothing is committed from the file's first offset on ─▶ settle: the file is in the archive

A file of a log has the messages of one partition, in one directory, in the order of their offsets. Such files form a
chain: each continues after the last offset of the one before it. What is read and not yet in the archive is not
committed, so a process that is killed loses nothing and leaves nothing behind: the next reader of the partition begins
at the same message, looks up how far each chain is, and leaves out what is archived. Two processes that believe to own
the same partition begin the next file of a chain at the same offset, and only one of them can give it its name.

All methods but `settle` and `fail` are called in one thread. Offsets are those of the engine; -1 is before the first.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, cast

from qtools.cli.types import plural
from qtools.errors import SinkError
from qtools.message import Batch, PartitionOrigin

logger = logging.getLogger("qtools.to_file")

_NOTE = "q-to-file"
LONGEST_NOTE = 2000  # bytes; Kafka's default of offset.metadata.max.bytes is 4096
MOST_REMEMBERED = 10_000  # directories of a partition whose chains are remembered


class ChainEnd(NamedTuple):
    """How far a chain is. offset: its last. latest: the latest timestamp, ns, in its files from the asked offset on.
    topic_id: of the topic that its last file is of, or ""."""

    offset: int = -1
    latest: int = 0
    topic_id: str = ""


class LostOffsets(NamedTuple):
    """Offsets of messages that were archived, and whose file is not in the archive any more; both included."""

    first: int
    last: int


class NewestFile(NamedTuple):
    """The file of a partition that ends last, of those that are archived: its offsets, and its directory. It is
    committed with the offsets of the group, so that the next reader sees whether it was removed meanwhile. archive:
    tells the archive from others to which the same group has written."""

    archive: str
    first: int
    last: int
    directory: str

    @classmethod
    def from_note(cls, note: str) -> NewestFile | None:
        """What `to_note` has made; None for any other text."""
        parts = note.split(" ", 4)
        if len(parts) != 5 or parts[0] != _NOTE or not (parts[2].isdecimal() and parts[3].isdecimal()):
            return None
        return cls(parts[1], int(parts[2]), int(parts[3]), parts[4])

    def to_note(self) -> str:
        """As a text; "" if it is longer than a broker may accept."""
        note = f"{_NOTE} {self.archive} {self.first} {self.last} {self.directory}"
        return note if len(note.encode()) <= LONGEST_NOTE else ""


# (topic, number of the partition, directory, offset) ─▶ the end of the chain. OSError when that cannot be known now.
LookUp = Callable[[str, int, str, int], ChainEnd]


class ArchivedPartition:
    """One partition, as long as this process reads it without interruption. OSError when its topic's id cannot be asked
    for now."""

    def __init__(self, origin: PartitionOrigin) -> None:
        self.topic_id = origin.topic_id()
        self.origin = origin
        self.topic = origin.topic
        self.number = origin.number
        self.is_broken = False  # it is read again, by another object
        self.lost: LostOffsets | None = None  # until a file of this process, whose record has it, is archived
        self._archive = ""
        self._newest = NewestFile.from_note(origin.note)
        self._chains: dict[str, int] = {}  # directory → the last offset that is archived, or in a file of ours
        self._begun: dict[tuple[str, int], None] = {}  # directory and first offset of files that are not archived
        self._lock = threading.Lock()

    @property
    def is_over(self) -> bool:
        """Whether another process may read the partition: what is not archived must not be any more."""
        return self.is_broken or self.origin.is_lost

    def known_end(self, directory: str) -> int | None:
        """The last offset of the chain, -1 if it has none; None if it was not looked up."""
        return self._chains.get(directory)

    def end_of(self, directory: str) -> int:
        """The last offset of the chain; -1 if it has none, or was not looked up."""
        return self._chains.get(directory, -1)

    def set_end(self, directory: str, offset: int) -> None:
        self._chains[directory] = offset

    def forget_ends(self) -> None:
        """Forget chains without a file of ours, if there are very many. Called between two batches."""
        if len(self._chains) >= MOST_REMEMBERED:
            begun = {name for name, _ in self._begun}
            self._chains = {name: end for name, end in self._chains.items() if name in begun}

    def find_lost(self, archive: str, look_up: LookUp) -> None:
        """Look whether the newest file of the partition, by what was committed, is still in the archive. OSError when
        that cannot be known now."""
        self._archive = archive
        newest = self._newest
        if newest is None or newest.archive != archive:
            self._newest = None
            return
        end = look_up(self.topic, self.number, newest.directory, newest.last).offset
        if end < newest.last:
            self.lost = LostOffsets(end + 1 if end >= 0 else newest.first, newest.last)
            logger.error(
                "%s, partition %d: offsets %d to %d were archived%s, and are not in the archive any more; q-to-file"
                " verify reports a gap. While the topic has them, another channel can archive them to another place",
                self.topic, self.number, *self.lost, f" in {newest.directory}" if newest.directory else "",
            )  # fmt: skip

    def begin(self, directory: str, first: int) -> None:
        """A file with this first offset was begun: nothing from there on is committed."""
        with self._lock:
            self._begun[directory, first] = None
            self._hold()

    def settle(self, directory: str, first: int, last: int) -> None:
        """The file with these offsets is in the archive. Called in any thread."""
        with self._lock:
            self._begun.pop((directory, first), None)
            self.lost = None
            if self._newest is None or last > self._newest.last:
                self._newest = NewestFile(self._archive, first, last, directory)
                self.origin.note = self._newest.to_note()
            if not self.is_broken:
                self._hold()

    def _hold(self) -> None:
        self.origin.commit_limit = min((first for _, first in self._begun), default=None)

    def fail(self, why: str) -> None:
        """Read the partition again from what is committed: `why` is a sentence for the log. Called in any thread."""
        with self._lock:
            if self.is_over:
                return
            self.is_broken = True
        logger.warning("%s, partition %d: %s; what is not archived is read again", self.topic, self.number, why)
        self.origin.read_again()

    def __repr__(self) -> str:
        return f"<ArchivedPartition {self.topic} {self.number} begun={len(self._begun)} is_over={self.is_over}>"


class ArchivedPartitions:
    """All partitions that are read. look_up: asks the archive for the end of a chain. name: tells this archive from
    others. skipped, skipped_bytes: messages that were in the archive already, and the bytes of their bodies. dropped,
    dropped_bytes: messages that are not archived from here, as their partition was taken away, or is read again."""

    def __init__(self, look_up: LookUp, name: str = "") -> None:
        self._name = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:16]
        self.skipped = self.skipped_bytes = 0
        self.dropped = self.dropped_bytes = 0
        self._look_up = look_up
        self._sources: dict[PartitionOrigin, ArchivedPartition] = {}

    def split(self, groups: Sequence[tuple[str, str, Batch]]) -> list[tuple[str, str, ArchivedPartition, Batch]]:
        """Groups (topic, directory, messages) as groups of one partition each, without the messages that are archived.

        OSError when an end cannot be looked up now; nothing was changed then. SinkError when the archive has other
        messages under the same offsets.
        """
        # One that is broken stays until its origin is lost: what is still read through that is left out.
        self._sources = {origin: source for origin, source in self._sources.items() if not origin.is_lost}
        for source in self._sources.values():
            source.forget_ends()
        pieces = [
            (topic, directory, self._source_of(origin), part)
            for topic, directory, batch in groups
            for origin, part in _by_origin(batch)
        ]
        kept = [each for each in pieces if not each[2].is_over]
        found = [
            (topic, directory, source, self._fresh(source, directory, part)) for topic, directory, source, part in kept
        ]
        for _, _, source, part in pieces:
            if source.is_over:
                self.count_dropped(len(part), sum(map(len, part.bodies)))
        for (_, _, _, part), (_, _, _, fresh) in zip(kept, found, strict=True):
            if fresh is not part:
                self.count_skipped(part, len(part) - len(fresh))
        return [each for each in found if each[3].bodies]

    def count_dropped(self, count: int, size: int) -> None:
        """`count` messages, with bodies of `size` bytes, do not get into the archive from here."""
        self.dropped += count
        self.dropped_bytes += size

    def count_skipped(self, part: Batch, count: int) -> None:
        """The first `count` messages of `part` were in the archive already."""
        self.skipped += count
        self.skipped_bytes += sum(map(len, part.bodies[:count]))

    def _source_of(self, origin: PartitionOrigin) -> ArchivedPartition:
        if (source := self._sources.get(origin)) is None:
            source = ArchivedPartition(origin)
            source.find_lost(self._name, self._look_up)
            self._sources[origin] = source
        return source

    def _fresh(self, source: ArchivedPartition, directory: str, part: Batch) -> Batch:
        """Those of `part` that are behind the end of the chain."""
        offsets = part.ids
        end = source.known_end(directory)
        found = None
        if end is None:
            found = self._look_up(source.topic, source.number, directory, offsets[0])
            if source.topic_id and found.topic_id and source.topic_id != found.topic_id:
                raise SinkError(
                    f"{source.topic}, partition {source.number}: the archive has messages of another topic of that"
                    " name: the topic was created again, or is of another cluster; archive it to another place"
                )
            end = found.offset
            source.set_end(directory, end)
        if offsets[0] > end:
            return part
        old, fresh = part.split(bisect_right(offsets, end))
        self._check(source, old, found or self._look_up(source.topic, source.number, directory, offsets[0]))
        return fresh

    def _check(self, source: ArchivedPartition, old: Batch, found: ChainEnd) -> None:
        """SinkError if some of `old` are newer than all that the archive has from their offsets on, where no id tells
        that it has messages of this topic. A filter may have left out the newest."""
        newest = old.messages.first_and_last()[1]
        if newest > found.latest and not (source.topic_id and found.topic_id):
            raise SinkError(
                f"{source.topic}, partition {source.number}: the archive has other messages at the offsets"
                f" {old.ids[0]} to {old.ids[-1]}: the topic was created again, or is of another cluster;"
                " archive it to another place"
            )
        logger.info("%s, partition %d: %s archived already", source.topic, source.number, plural(len(old), "message"))


def _by_origin(batch: Batch) -> Iterator[tuple[PartitionOrigin, Batch]]:
    """The messages of each origin, in their order."""
    if len(batch.parts) == 1:
        yield cast("PartitionOrigin", batch.parts[0][0]), batch
        return
    places: dict[PartitionOrigin, list[range]] = {}
    for origin, start, stop in batch.parts:
        places.setdefault(cast("PartitionOrigin", origin), []).append(range(start, stop))
    for partition, ranges in places.items():
        if len(places) == 1:
            yield partition, batch
        elif len(ranges) == 1:
            yield partition, batch.pick(ranges[0])
        else:
            yield partition, batch.pick([place for some in ranges for place in some])
