"""All open files, and those to be closed. In: batches, and the time. Out: finished files, each passed to `on_finished`.

    write ─▶ settle ─▶ sort by file ─▶ add ─▶ sync            settle: close and name the files that are due

Every call may fail with an OSError (a full disk). The caller then repeats it until it succeeds: nothing is written
twice and nothing is lost by that. All calls are made in one thread, one call a batch.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from qtools.cli.types import plural
from qtools.formats.encoders import Format
from qtools.message import Batch
from qtools.to_file.archive.archived_partitions import ArchivedPartition, ArchivedPartitions
from qtools.to_file.archive.compression import open_stream
from qtools.to_file.archive.file_namer import FileNamer
from qtools.to_file.archive.file_record import FileRecord, beside
from qtools.to_file.archive.journal import JournalHead
from qtools.to_file.archive.layout import Layout
from qtools.to_file.archive.manifest import COMPLETE
from qtools.to_file.archive.output_chains import OutputChains
from qtools.to_file.archive.partitioner import Partitioner
from qtools.to_file.archive.partitions import Partitions
from qtools.to_file.archive.workdir import WorkDir
from qtools.to_file.archive.workfile import WorkFile
from qtools.to_file.stores.directory import link_new

logger = logging.getLogger("qtools.to_file")

CHECK_SECONDS = 1.0  # between two checks whether another process removed a file that gets no messages
SALVAGES = 3  # attempts within one sync to write removed files again, before the sync fails


@dataclass(frozen=True, slots=True)
class Rotation:
    """When a file is closed, apart from when its name changes. size: bytes on disk; age: s since it was created; count:
    messages. None for no limit."""

    size: int | None = None
    age: float | None = None
    count: int | None = None


@dataclass(frozen=True, slots=True)
class Encoding:
    """How messages are encoded in a file. level: of the compression; None for its default."""

    format: str
    form: Format
    compression: str = "none"
    level: int | None = None


_Key = tuple[str, str, ArchivedPartition | None]  # topic, partition, and where the messages are read
_Group = tuple[str, str, ArchivedPartition | None, Batch]


@dataclass(slots=True)
class _Open:
    file: WorkFile
    since: float
    period: str


class Archive:
    """Files below `output`, which grow in `work`.

    on_finished: called with each file that has its name, and with True if it may have been called for this file before,
        which a crash or an OSError within the call can cause.
    spooled: keep the facts about a finished file in a second file beside it, for the upload.
    partitions: gets the partitions in which files are created, and how far each source has been read.
    sources: the partitions of a log that are read, for an engine that has such; then no file of an earlier run is
        finished, as its messages are not committed, and read again. names: gives such a file its name, once; None if it
        is `spooled`, as the upload does that.
    most_open: the most files that are open at once. wall: s since 1970, for names. steady: s, for ages.
    """

    def __init__(
        self,
        work: WorkDir,
        output: Path,
        layout: Layout,
        partitioner: Partitioner,
        encoding: Encoding,
        rotation: Rotation,
        on_finished: Callable[[FileRecord, bool], None],
        *,
        spooled: bool = False,
        partitions: Partitions | None = None,
        sources: ArchivedPartitions | None = None,
        names: OutputChains | None = None,
        most_open: int = 64,
        wall: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self.at = work.path  # the path last worked on, for error messages
        self.syncs = 0
        self.files = 0
        self.recovered = 0
        self.lost = 0  # finished messages whose file another process removed or cut beyond recovery
        self._work = work
        self._output = output
        self._layout = layout
        self._partitioner = partitioner
        self._encoding = encoding
        self._rotation = rotation
        self._on_finished = on_finished
        self._spooled = spooled
        self._namer = FileNamer(output, spooled=spooled, on_try=self._work_on)
        self._partitions = partitions
        self._sources = sources
        self._names = names
        self._most_open = most_open
        self._wall = wall
        self._steady = steady
        self._open: OrderedDict[_Key, _Open] = OrderedDict()  # least lately used first
        self._closing: deque[WorkFile] = deque()
        self._added: Batch | None = None
        self._checked = float("-inf")  # time of the last check for removed files, by the steady clock

    @property
    def open(self) -> int:
        """The number of files that are not finished yet."""
        return len(self._open) + len(self._closing)

    @property
    def is_of_log(self) -> bool:
        """Whether its messages have partitions and offsets, by which each is archived once."""
        return self._sources is not None

    @property
    def skipped(self) -> int:
        """The number of messages that were in the archive already."""
        return 0 if self._sources is None else self._sources.skipped

    @property
    def not_added(self) -> tuple[int, int]:
        """Messages that were in the archive already, or whose partition was taken away; and their bytes."""
        each = self._sources
        return (0, 0) if each is None else (each.skipped + each.dropped, each.skipped_bytes + each.dropped_bytes)

    def adopt(self) -> int:
        """Take over the files that earlier runs left in the work directory, for `settle` to finish; their number."""
        self.at = self._work.path
        found = list(self._work.left())
        for file in [file for file in found if file.head.partition >= 0 and not self._namer.has_name(file)]:
            found.remove(file)
            file.remove()
        self._closing.extend(found)
        self.recovered += len(found)
        return len(found)

    def write(self, batch: Batch) -> None:
        """Make all of `batch` durable. After an OSError call it again with the same batch."""
        self.settle()
        if self._added is not batch:
            groups: Sequence[_Group] = [
                (topic, partition, None, part) for topic, partition, part in self._partitioner.sort(batch)
            ]
            if self._sources is not None:
                groups = self._sources.split([(topic, partition, part) for topic, partition, _, part in groups])
            if self._partitions is not None:
                for partition in {partition for _, partition, _, _ in groups}:
                    self._partitions.begin(partition)
            for topic, partition, source, part in groups:
                self._file(topic, partition, source).add(part)
                if source is not None:
                    source.set_end(partition, part.ids[-1])
            self._added = batch
        self._sync()
        self._added = None
        if self._partitions is not None:
            for origin, _, stop in batch.parts:
                self._partitions.passed[origin.topic, origin.address] = batch.messages[stop - 1].timestamp / 1e9

    def settle(self) -> None:
        """Close the files that are due and give them their names. OSError when that fails: call it again."""
        now, wall = self._steady(), self._wall()
        self._work.secure()
        if now - self._checked >= CHECK_SECONDS:
            self._check_files()
            self._checked = now
        for key, there in list(self._open.items()):
            if there.file.is_over:
                self._abandon(self._open.pop(key).file)
            elif self._is_due(there, now, wall, key):
                self._seal(key)
        tries = len(self._closing) + SALVAGES
        while self._closing:
            file = self._closing[0]
            try:
                self._finish(file)
            except OSError:
                if file.is_named or not file.is_gone:
                    raise
                tries -= 1
                if not tries:
                    raise self._removed_too_often() from None
                self._recover(file)
                continue
            self._closing.popleft().close()

    def cycle(self, partition: str | None = None) -> None:
        """Close every file, or those of `partition`; the next message goes into a new file."""
        for key in list(self._open):
            if partition is None or key[1] == partition:
                self._seal(key)
        self.settle()

    def mark_complete(self, partition: str) -> None:
        """Create the marker in the output that says that `partition` is complete."""
        self.at = self._output / partition / COMPLETE
        link_new(self._output, f"{partition}/{COMPLETE}", b"")

    def close(self) -> None:
        """Close every file. Messages that are not synced are dropped: they are not finished, so they come again.

        After an OSError the remaining files stay in the work directory, for the next run.
        """
        for file in [*(there.file for there in self._open.values()), *self._closing]:
            file.give_up()
        try:
            self.cycle()
        finally:
            for file in self._closing:
                file.close()

    def release(self) -> None:
        """Release the lock of the work directory."""
        self._work.close()

    # ── inside ──

    def _is_due(self, there: _Open, now: float, wall: float, key: _Key) -> bool:
        rotation, state = self._rotation, there.file.state
        return (
            there.file.head.name != self._layout.name(key[0], key[1], wall)
            or there.period != self._layout.period(wall)
            or (rotation.size is not None and state.length >= rotation.size)
            or (rotation.count is not None and state.count >= rotation.count)
            or (rotation.age is not None and now - there.since >= rotation.age)
        )

    def _file(self, topic: str, partition: str, source: ArchivedPartition | None) -> WorkFile:
        """The open file for `partition` of `topic`, and of `source`; a new one, where there is none."""
        key = topic, partition, source
        there = self._open.get(key)
        if there is None:
            if len(self._open) >= self._most_open:
                self._seal(next(iter(self._open)))
            encoding = self._encoding
            wall = self._wall()
            name = self._layout.name(topic, partition, wall)
            head = JournalHead(topic, name, encoding.format, encoding.compression)
            if source is not None:
                follows = source.end_of(partition)
                head = replace(head, partition=source.number, follows=follows, topic_id=source.topic_id)
            stream = open_stream(encoding.compression, encoding.level)
            file = WorkFile(self._work.new_stem(topic), head, encoding.form, stream, partition=partition, source=source)
            there = self._open[key] = _Open(file, self._steady(), self._layout.period(wall))
        self._open.move_to_end(key)
        return there.file

    def _work_on(self, path: Path) -> None:
        self.at = path

    def _seal(self, key: _Key) -> None:
        file = self._open.pop(key).file
        file.seal()
        self._closing.append(file)

    @property
    def _files(self) -> list[WorkFile]:
        return [*self._closing, *(there.file for there in self._open.values())]

    def _sync(self) -> None:
        for _ in range(SALVAGES):
            gone = []
            for file in self._files:
                self.at = file.data
                try:
                    file.sync()
                except OSError:
                    if not file.is_gone:
                        raise
                    gone.append(file)
            if not gone:
                self.syncs += 1
                return
            self._work.secure()
            for file in gone:
                self._recover(file)
        raise self._removed_too_often()

    def _removed_too_often(self) -> OSError:
        return OSError(errno.ENOENT, "work files are removed as soon as they are written", str(self._work.path))

    def _check_files(self) -> None:
        """Recover files that another process removed, including those that get no messages at present."""
        for file in self._files:
            if file.is_gone and not file.is_named and not file.is_left_over:
                self._recover(file)

    def _recover(self, file: WorkFile) -> None:
        """Replace `file`, which another process removed or changed: copy the synced part, add the rest to a new file.

        OSError when that fails now; the next call tries again.
        """
        self.at = file.data
        if file.source is not None:
            file.source.fail(f"another process removed or replaced {file.data}")
            self._forget(file)
            self._abandon(file)
            return
        copy = file.salvage(self._work.new_stem(file.head.topic))
        finished = plural(file.state.count, "message")
        if copy is not None and file.state.count:
            what = "another process removed or replaced %s: its %s are written again to %s"
            logger.error(what, file.data, finished, copy.data)
        elif file.state.count:
            where = self._work.put_aside_cut(file.data)
            logger.error(
                "another process removed or cut %s, and %s that were finished in the queue are lost with it%s",
                file.data, finished, f"; what there is of them is kept as {where}" if where else "",
            )  # fmt: skip
            self.lost += file.state.count
        else:
            logger.error("another process removed or replaced %s, which was empty: it is created again", file.data)
        self._forget(file)
        if copy is not None:
            self._closing.append(copy)
        unsynced = list(file.unsynced)
        file.abandon()
        for part in unsynced:
            self._file(file.head.topic, file.partition, None).add(part)

    def _abandon(self, file: WorkFile) -> None:
        if self._sources is not None:  # as it has a partition, which was taken away, or is read again
            self._sources.count_dropped(file.count, file.size_of_bodies)
        file.abandon()

    def _forget(self, file: WorkFile) -> None:
        for key, there in list(self._open.items()):
            if there.file is file:
                del self._open[key]
                return
        self._closing.remove(file)

    def _finish(self, file: WorkFile) -> None:
        """Finish `file`: write its end, give it its name, call `on_finished`, and remove it from the work directory."""
        self.at = file.data
        if file.is_left_over and file.state.rev >= 0 and not file.data.exists():
            # An earlier run had named it and was about to remove the journal, unless another process removed the data.
            target = self._namer.target(file, file.state.rev)
            if not target.exists() and not self._spooled:
                what = "%s is gone, and so is %s, the name it was being given: another process removed it"
                logger.error(what, file.data, target)
            file.remove()
            return
        if file.count and not file.is_named:
            file.end()
            with contextlib.ExitStack() as while_it_is_ours:
                if file.source is not None and self._names is not None:
                    while_it_is_ours.enter_context(file.source.origin.ownership_lock)
                    while_it_is_ours.enter_context(self._names.locked())
                if file.is_over or not self._continues(file):
                    self._abandon(file)
                    return
                again = file.state.rev >= 0
                finished = self._namer.give_name(file)
                self._on_finished(finished, again)
                if not self._spooled and finished.partition >= 0:
                    beside(finished.path).unlink(missing_ok=True)
            self.files += 1
            file.is_named = True
            if file.source is not None and self._names is not None:
                file.source.settle(file.partition, file.state.first_offset, file.state.last_offset)
        self.at = file.data
        file.remove()

    def _continues(self, file: WorkFile) -> bool:
        """Whether the archive is still where the file begins: no other process has added to the chain meanwhile."""
        source = file.source
        if source is None or self._names is None or self._namer.has_name(file):
            return True
        first, last = file.state.first_offset, file.state.last_offset
        end = self._names.look_up(source.topic, source.number, file.partition, first).offset
        if end == file.head.follows:
            return True
        source.fail(f"another process has archived up to offset {end}, and {first} to {last} were to be added here")
        return False
