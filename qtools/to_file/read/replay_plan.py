"""Which files are replayed, in what order, from where. In: what an archive holds. Out: files, and a place among them.

In the order of their earliest message, then of their names. A file of the same messages as an earlier one is left out.
A checkpoint names the file that a run was in, and how many of its messages are confirmed; what the archive has
got since goes into the order where it belongs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from qtools.cli.checkpoint import StateFile
from qtools.cli.types import plural
from qtools.errors import InputError, UsageError
from qtools.to_file.archive.manifest import Manifested
from qtools.to_file.read.verify import ArchiveListing


@dataclass(frozen=True, slots=True)
class Span:
    """Timestamps, ns since 1970: from `since` on, before `until`."""

    since: int | None = None
    until: int | None = None

    def has(self, timestamp: int) -> bool:
        return (self.since is None or timestamp >= self.since) and (self.until is None or timestamp < self.until)

    def touches(self, file: Manifested) -> bool:
        """Whether some of the file may lie in it."""
        return (self.since is None or file.last_timestamp >= self.since) and (
            self.until is None or file.first_timestamp < self.until
        )

    def covers(self, file: Manifested) -> bool:
        """Whether all of the file lies in it."""
        return self.has(file.first_timestamp) and self.has(file.last_timestamp)


@dataclass(frozen=True, slots=True)
class ReplayPosition:
    """Behind the first `records` messages of the file `name`; "" is the very start. sent: how many of all were sent."""

    name: str = ""
    records: int = 0
    sent: int = 0


@dataclass(slots=True)
class ReplayPlan:
    """files: what is left to be replayed, the one in which `start` lies first. notes: what is said of it."""

    files: list[Manifested]
    start: ReplayPosition
    notes: list[str]


def make_plan(archive: ArchiveListing, span: Span, topic: str, start: ReplayPosition) -> ReplayPlan:
    """What to replay of `archive`; `topic` is the archived one, "" where there is only one.

    UsageError where there are several; InputError for what a check would find: nothing is sent of a half archive.
    """
    if archive.findings:
        first = archive.findings[0]
        raise InputError(f"the archive is not whole: {first.name}: {first.told} (q-to-file verify tells all)")
    if not archive.manifested:
        strays = f", only {plural(len(archive.entries), 'file')} in no manifest" if archive.entries else ""
        raise InputError(f"there is nothing to replay: the archive has no files{strays}")
    files = sorted(archive.manifested.values(), key=lambda each: (each.first_timestamp, each.name))
    topics = sorted({each.topic for each in files})
    if topic and topic not in topics:
        raise UsageError(f"the archive has no topic {topic}: it has {', '.join(topics)}")
    if not topic and len(topics) > 1:
        raise UsageError(f"the archive has several topics, name one with --from-topic: {', '.join(topics)}")
    notes = []
    unlisted = archive.entries.keys() - archive.manifested.keys()
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
    if start.name:
        here = archive.manifested.get(start.name)
        if here is None or here not in chosen:
            raise UsageError(
                f"the checkpoint is in {start.name}, which the archive has no more: remove it to begin anew"
            )
        chosen = chosen[chosen.index(here) :]
    return ReplayPlan(chosen, start, notes)


def _check_whole(archive: ArchiveListing, chosen: list[Manifested]) -> None:
    for each in chosen:
        entry = archive.entries.get(each.name)
        if entry is None:
            raise InputError(f"the archive is not whole: {each.name} is missing (q-to-file verify tells all)")
        if entry.size != each.size:
            raise InputError(
                f"the archive is not whole: {each.name} has {entry.size} bytes, had {each.size}"
                " (q-to-file verify tells all)"
            )


class ReplayCheckpoint:
    """The file at `path`, for a replay of `run`: whatever must be the same for a place to mean the same."""

    def __init__(self, path: str, run: dict[str, Any]) -> None:
        self._file = StateFile(path, "q-to-file replay")
        self._run = run

    def check(self) -> None:
        self._file.check()

    def load(self) -> ReplayPosition:
        """Where to begin: the very start when there is no file. UsageError when it is another run's."""
        told = self._file.load()
        if told is None:
            return ReplayPosition()
        try:
            place = ReplayPosition(str(told["file"]), int(told["records"]), int(told["sent"]))
            run = {key: told[key] for key in self._run}
        except (ValueError, KeyError, TypeError) as error:
            raise self._file.foreign() from error
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
