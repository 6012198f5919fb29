"""Which files are replayed, in what order, and from where. In: an ArchiveListing. Out: files, and a position among
them.

Files are in the order of their earliest message, then of their names; those of one partition of a log (Kafka) are in
the order of their offsets, whatever their timestamps are. A file with the same messages as an earlier one is left out.
A checkpoint names the file that a run had reached, and how many of its messages are confirmed. Files that were added to
the archive since then are replayed if they come later in the order.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from qtools.cli.checkpoint import CheckpointFile
from qtools.cli.types import plural
from qtools.errors import InputError, UsageError
from qtools.to_file.archive.manifest import Manifested
from qtools.to_file.read.chains import check_chains
from qtools.to_file.read.verify import ArchiveListing

_ALL_FAULTS = "(q-to-file verify lists all faults)"
_OFFSETS = re.compile(r"(?<!\d)\d{20}(?!\d)")  # in the name of every file of a log


@dataclass(frozen=True, slots=True)
class TimeSpan:
    """A span of timestamps, in ns since 1970: from `since` on, before `until`. None is no limit."""

    since: int | None = None
    until: int | None = None

    def has(self, timestamp: int) -> bool:
        return (self.since is None or timestamp >= self.since) and (self.until is None or timestamp < self.until)

    def touches(self, file: Manifested) -> bool:
        """Whether some messages of the file may be in the span."""
        return (self.since is None or file.last_timestamp >= self.since) and (
            self.until is None or file.first_timestamp < self.until
        )

    def covers(self, file: Manifested) -> bool:
        """Whether all messages of the file are in the span."""
        return self.has(file.first_timestamp) and self.has(file.last_timestamp)


@dataclass(frozen=True, slots=True)
class ReplayPosition:
    """The position behind the first `records` messages of the file `name` ("" is the start). sent: messages sent in
    all."""

    name: str = ""
    records: int = 0
    sent: int = 0


@dataclass(slots=True)
class ReplayPlan:
    """files: those to replay, beginning with the one that contains `start`. notes: lines for the log."""

    files: list[Manifested]
    start: ReplayPosition
    notes: list[str]


def make_plan(archive: ArchiveListing, span: TimeSpan, topic: str, start: ReplayPosition) -> ReplayPlan:
    """The plan for `archive`. topic: the archived topic; "" if the archive has only one.

    UsageError if a topic has to be named, or is not in the archive. InputError if the archive is damaged or incomplete,
    as far as its listing shows.
    """
    if archive.findings:
        first = archive.findings[0]
        raise InputError(f"the archive is not whole: {first.name}: {first.told} {_ALL_FAULTS}")
    if not archive.manifested:
        strays = f", only {plural(len(archive.entries), 'file')} in no manifest" if archive.entries else ""
        raise InputError(f"there is nothing to replay: the archive has no files{strays}")
    files = in_order(archive.manifested.values())
    topics = sorted({each.topic for each in files})
    if topic and topic not in topics:
        raise UsageError(f"the archive has no topic {topic}: it has {', '.join(topics)}")
    if not topic and len(topics) > 1:
        raise UsageError(f"the archive has several topics, name one with --from-topic: {', '.join(topics)}")
    notes = []
    unlisted = archive.entries.keys() - archive.manifested.keys()
    if bare := [name for name in unlisted if _OFFSETS.search(name.rpartition("/")[2])]:
        raise InputError(
            f"the archive is not whole: {plural(len(bare), 'file')} with messages in no manifest, among them"
            f" {min(bare)} {_ALL_FAULTS}"
        )
    if unlisted:
        notes.append(f"{plural(len(unlisted), 'file')} in no manifest left out, among them {min(unlisted)}")
    wanted: dict[str, Manifested] = {}
    for each in files:
        if (not topic or each.topic == topic) and span.touches(each):
            wanted.setdefault(each.ids_hash, each)
    chosen = list(wanted.values())
    same = sum((not topic or each.topic == topic) and span.touches(each) for each in files) - len(chosen)
    if same:
        notes.append(f"{plural(same, 'file')} with the same messages as another left out")
    _check_whole(archive, chosen)
    notes += _check_chains([each for each in files if not topic or each.topic == topic], chosen)
    if start.name:
        here = archive.manifested.get(start.name)
        if here is None or here not in chosen:
            raise UsageError(
                f"the checkpoint is in {start.name}, which is not in the archive any more:"
                " remove the checkpoint to start anew"
            )
        chosen = chosen[chosen.index(here) :]
    return ReplayPlan(chosen, start, notes)


def in_order(files: Iterable[Manifested]) -> list[Manifested]:
    """`files` by their earliest message, and by their offsets within a partition of a log."""
    latest: dict[tuple[str, int], int] = {}
    keys: dict[str, tuple[int, int, str]] = {}
    for file in sorted(files, key=lambda each: (each.topic, each.partition, each.first_offset, each.name)):
        when = file.first_timestamp
        if file.partition >= 0:  # not before the file in front of it
            place = file.topic, file.partition
            when = latest[place] = max(when, latest.get(place, when))
        keys[file.name] = when, file.first_offset, file.name
    return sorted(files, key=lambda each: keys[each.name])


def _check_whole(archive: ArchiveListing, chosen: list[Manifested]) -> None:
    for each in chosen:
        entry = archive.entries.get(each.name)
        if entry is None:
            raise InputError(f"the archive is not whole: {each.name} is missing {_ALL_FAULTS}")
        if entry.size != each.size:
            raise InputError(
                f"the archive is not whole: {each.name} has {entry.size} bytes, had {each.size} {_ALL_FAULTS}"
            )


def _check_chains(files: list[Manifested], chosen: list[Manifested]) -> list[str]:
    """Notes about partitions of a log whose oldest files are gone, or that have offsets in two files. InputError if
    offsets are in no file between files that are `chosen`: --since and --until can choose what is before or behind
    such a place."""
    found = check_chains(files)
    if not found:
        return []
    begins: dict[tuple[str, int], int] = {}
    for each in chosen:
        place = each.topic, each.partition
        begins[place] = min(each.first_offset, begins.get(place, each.first_offset))
    named = {each.name: each for each in chosen}
    notes = []
    for fault in found:
        file = named.get(fault.name)
        if file is None:
            continue
        if fault.kind != "gap":
            notes.append(f"{fault.name}: {fault.told}")
        elif file.first_offset > begins[file.topic, file.partition]:
            raise InputError(f"the archive is not whole: {fault.name}: {fault.told} {_ALL_FAULTS}")
    return notes


class ReplayCheckpoint:
    """The checkpoint at `path`. run: the options that must be the same when a run continues from it."""

    def __init__(self, path: str, run: dict[str, Any]) -> None:
        self._file = CheckpointFile(path, "q-to-file replay")
        self._run = run

    def check(self) -> None:
        self._file.check()

    def load(self) -> ReplayPosition:
        """The position to begin at: the start if there is no file. UsageError if the file is of a run with other
        options."""
        loaded = self._file.load()
        if loaded is None:
            return ReplayPosition()
        try:
            place = ReplayPosition(str(loaded["file"]), int(loaded["records"]), int(loaded["sent"]))
            loaded = {"decode": "", "decode_key": ""} | loaded  # a checkpoint of an older version has neither
            run = {key: loaded[key] for key in self._run}
        except (ValueError, KeyError, TypeError) as error:
            raise self._file.not_a_checkpoint() from error
        other = next((key for key in self._run if run[key] != self._run[key]), None)
        if other is not None:
            raise UsageError(
                f"the checkpoint {self._file.path} is of another run ({other} was {run[other]!r}):"
                " name another, or remove it to begin anew"
            )
        return place

    def save(self, place: ReplayPosition, *, sync: bool = False) -> None:
        self._file.save(
            self._run | {"file": place.name, "records": place.records, "sent": place.sent}, sync=sync
        )  # fmt: skip
