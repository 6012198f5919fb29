"""The names and directories of files. In: a topic, the time, a partition. Out: a path below the output.

    <PARTITION>/<TOPIC>.<HOST><REV>.<DATETIME>.log

A name is a template with the fields of nsq_to_file, <TOPIC> <HOST> <PID> <DATETIME> <REV>, and strftime's codes. When
the time changes the name, a new file is begun. <REV> is empty at first, and then -000001, -000002, …: it is counted up
until no file has the name. A file of one partition of a log (Kafka) also has <PARTITION> and <OFFSETS> in its name: the
number of the partition, and the first and the last offset. This module reads no clock.
"""

from __future__ import annotations

import re
import time
from pathlib import PurePosixPath

from qtools.errors import UsageError

REV = "<REV>"
DEFAULT_NAME = "<TOPIC>.<HOST><REV>.<DATETIME>"
OFFSETS_NAME = "<TOPIC>.<PARTITION>.<OFFSETS>"  # for an engine whose messages have partitions and offsets
DEFAULT_DATETIME = "%Y-%m-%d_%H"
DEFAULT_PARTITION = "dt=%Y-%m-%d/hour=%H"
EXTENSIONS = {"raw": ".log", "envelope": ".jsonl", "msgpack": ".msgpack", "length32": ".length32"}

LONGEST_TOPIC = 180  # characters: file systems allow 255, and dates, sums and suffixes follow it
LONGEST_PART = 255 - 32  # NAME_MAX, less room for <REV> and for the additions to the names of drafts and records
MOST_REMEMBERED = 10_000  # partitions whose names are cached
LONGEST = 3000  # PATH_MAX is 4096, and the output has a path of its own

FIELDS = ("TOPIC", "HOST", "PID", "DATETIME", "REV")
LOG_FIELDS = ("PARTITION", "OFFSETS")
_FIELD = re.compile(r"<([A-Z]+)>")
_EXTENSION = re.compile(r"(?<=[^/])\.[A-Za-z0-9]+$")
# Codes that can change within a minute: all but these.
_BY_SECONDS = re.compile(r"%[-_0^#]*[^YmdHMjyCGgVUWuwaAbBheIpzZ%DF]")

_YEAR = re.compile(r"%[YF%]")


def fill_rev(name: str, rev: int) -> str:
    """`name` with its revision filled in."""
    return name.replace(REV, f"-{rev:06d}" if rev else "")


def fill_offsets(name: str, number: int, first: int, last: int) -> str:
    """`name` with the number of a partition of a log, and the offsets, where it has these fields."""
    return name.replace("<PARTITION>", str(number)).replace("<OFFSETS>", f"{first:020d}-{last:020d}")


class Layout:
    """Names of files by `template`, and of partitions by `partition` (a strftime format, or ""). Times in s since
    1970. has_offsets: each file is of one partition of a log, and its name has <PARTITION> and <OFFSETS>."""

    def __init__(
        self,
        template: str,
        *,
        suffix: str = "",
        datetime_format: str = DEFAULT_DATETIME,
        partition: str = "",
        host: str = "host",
        pid: int = 0,
        local: bool = False,
        has_offsets: bool = False,
    ) -> None:
        fields = FIELDS + LOG_FIELDS if has_offsets else FIELDS
        unknown = set(_FIELD.findall(template)) - set(fields)
        if unknown:
            known = " ".join(f"<{name}>" for name in fields)
            raise UsageError(f"--filename-format has <{unknown.pop()}>; known are {known}, and strftime's")
        if template.count(REV) > 1:
            raise UsageError("--filename-format has <REV> more than once")
        template = template.removesuffix(suffix)
        if template.rpartition("/")[2] in ("", REV):
            raise UsageError(f"--filename-format {template!r} has a file without a name")
        added = "" if REV in template else REV
        if has_offsets:
            added = "".join(f".<{name}>" for name in LOG_FIELDS if f"<{name}>" not in template) + added
        if added:
            extension = _EXTENSION.search(template)
            at = extension.start() if extension else len(template)
            template = f"{template[:at]}{added}{template[at:]}"
        template += suffix
        self.has_topic = "<TOPIC>" in template
        host = re.sub(r"[^A-Za-z0-9._-]", "_", host) or "host"
        self._template = (
            template.replace("<HOST>", host).replace("<PID>", str(pid)).replace("<DATETIME>", datetime_format)
        )
        self.has_directories = "/" in template
        self._datetime_format = datetime_format
        self._partition = partition
        self._unit = 1 if _BY_SECONDS.search(partition) else 60  # s
        self._break_down = time.localtime if local else time.gmtime
        self._partitions: dict[int, str] = {}
        for text, flag in ((self._template, "--filename-format"), (partition, "--partition-format")):
            _check(fill_offsets(self._shown(text, 0.0).replace("<TOPIC>", "t"), 0, 0, 0), flag)

    def name(self, topic: str, partition: str, now: float) -> str:
        """The path of a file of `topic` that is begun at `now`, with <REV> not filled in."""
        # ".." is a valid name of a topic.
        name = self._shown(self._template, now).replace("<TOPIC>", f"_{topic}" if topic.startswith(".") else topic)
        return f"{partition}/{name}" if partition else name

    def period(self, now: float) -> str:
        """What <DATETIME> is at `now`, whether names have it or not."""
        return self._shown(self._datetime_format, now)

    def pattern(self, topic: str, number: int) -> re.Pattern[str]:
        """Matches the name, without directories, of each file of a partition of a log; its groups are the offsets."""
        parts = {"TOPIC": re.escape(f"_{topic}" if topic.startswith(".") else topic), "PARTITION": str(number)}
        parts |= {"OFFSETS": r"(\d{20})-(\d{20})", "REV": r"(?:-\d{6})?"}
        name = self._template.rpartition("/")[2]
        text = "".join(
            parts[piece] if place % 2 else re.sub(r"%[-_0^#]*[A-Za-z]", ".+", re.escape(piece).replace("\\%", "%"))
            for place, piece in enumerate(re.split(f"<({'|'.join(parts)})>", name))
        )
        return re.compile(rf"{text}\Z")

    def partition(self, when: int) -> str:
        """The partition for the time `when`, in ns since 1970."""
        unit = when // (self._unit * 1_000_000_000)
        found = self._partitions.get(unit)
        if found is None:
            found = self._partitions[unit] = self.shown_partition(unit * self._unit)
        return found

    def forget_partitions(self) -> None:
        """Clear the cache of partitions if it is full: messages may have any times. Called between two batches, as
        `time_in` needs all partitions of a batch."""
        if len(self._partitions) >= MOST_REMEMBERED:
            self._partitions.clear()

    def shown_partition(self, when: float) -> str:
        """The same for `when` in s, without caching it."""
        return self._shown(self._partition, when)

    def time_in(self, partition: str) -> float:
        """A time in `partition`, which `partition()` returned since the last `forget_partitions`; KeyError
        otherwise."""
        for unit, name in reversed(self._partitions.items()):
            if name == partition:
                return float(unit * self._unit)
        raise KeyError(partition)

    def _shown(self, template: str, when: float) -> str:
        broken_down = self._break_down(when)
        if broken_down.tm_year < 1000:  # for such years C libraries differ in whether they write leading zeros
            year = f"{broken_down.tm_year:04}"
            template = _YEAR.sub(lambda code: {"%Y": year, "%F": f"{year}-%m-%d"}.get(code[0], code[0]), template)
        return time.strftime(template, broken_down)


def _check(path: str, flag: str) -> None:
    parts = PurePosixPath(path).parts
    if path.startswith("/") or ".." in parts:
        raise UsageError(f"{flag} {path!r} leads out of the output directory")
    if path.endswith("/") or "//" in path:
        raise UsageError(f"{flag} {path!r} has a directory without a name")
    if any(part.startswith(".") for part in parts):
        raise UsageError(f"{flag} {path!r} makes hidden files: a name may not begin with a dot")
    if "\0" in path or "\n" in path:
        raise UsageError(f"{flag} has a control character")
    if len(path.encode()) > LONGEST or any(len(part.encode()) > LONGEST_PART for part in parts):
        raise UsageError(f"{flag} makes names that are too long for a file system: {path[:60]}…")
