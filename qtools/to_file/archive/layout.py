"""What files are called, and where they belong. In: a topic, the time, a partition. Out: a name below the output.

    <PARTITION>/<TOPIC>.<HOST><REV>.<DATETIME>.log

A name is a template: nsq_to_file's fields <TOPIC> <HOST> <PID> <DATETIME> <REV>, and strftime's own. When the time
makes it another name, it is time for another file. <REV> is nothing at first and then -000001, -000002, …: it is
counted up until nobody has the name. No clock here.
"""

from __future__ import annotations

import re
import time
from pathlib import PurePosixPath

from qtools.errors import UsageError

REV = "<REV>"
DEFAULT_NAME = "<TOPIC>.<HOST><REV>.<DATETIME>"
DEFAULT_DATETIME = "%Y-%m-%d_%H"
DEFAULT_PARTITION = "dt=%Y-%m-%d/hour=%H"
EXTENSIONS = {"raw": ".log", "envelope": ".jsonl", "msgpack": ".msgpack", "length32": ".length32"}

LONGEST_PART = 255 - 32  # NAME_MAX, less <REV> and what a file is called on its way
MOST_REMEMBERED = 10_000  # partitions, by the time that each belongs to
LONGEST = 3000  # PATH_MAX is 4096, and the output has a path of its own

FIELDS = ("TOPIC", "HOST", "PID", "DATETIME", "REV")
_FIELD = re.compile(r"<([A-Z]+)>")
_EXTENSION = re.compile(r"(?<=[^/])\.[A-Za-z0-9]+$")
# What changes within a minute: any code but these.
_BY_SECONDS = re.compile(r"%[-_0^#]*[^YmdHMjyCGgVUWuwaAbBheIpzZ%DF]")

_YEAR = re.compile(r"%[YF%]")


def fill_rev(name: str, rev: int) -> str:
    """`name` with the number of its revision."""
    return name.replace(REV, f"-{rev:06d}" if rev else "")


class Layout:
    """Names by `template`, whose partition (if any) is rendered by `partition`. Times in s since 1970."""

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
    ) -> None:
        unknown = set(_FIELD.findall(template)) - set(FIELDS)
        if unknown:
            known = " ".join(f"<{name}>" for name in FIELDS)
            raise UsageError(f"--filename-format has <{unknown.pop()}>; known are {known}, and strftime's")
        if template.count(REV) > 1:
            raise UsageError("--filename-format has <REV> more than once")
        template = template.removesuffix(suffix)
        if template.rpartition("/")[2] in ("", REV):
            raise UsageError(f"--filename-format {template!r} has a file without a name")
        if REV not in template:
            extension = _EXTENSION.search(template)
            at = extension.start() if extension else len(template)
            template = f"{template[:at]}{REV}{template[at:]}"
        template += suffix
        self.has_topic = "<TOPIC>" in template
        host = re.sub(r"[^A-Za-z0-9._-]", "_", host) or "host"
        self._template = (
            template.replace("<HOST>", host).replace("<PID>", str(pid)).replace("<DATETIME>", datetime_format)
        )
        self._partition = partition
        self._unit = 1 if _BY_SECONDS.search(partition) else 60  # s
        self._break_down = time.localtime if local else time.gmtime
        self._partitions: dict[int, str] = {}
        for text, flag in ((self._template, "--filename-format"), (partition, "--partition-format")):
            _check(self._shown(text, 0.0).replace("<TOPIC>", "t"), flag)

    def name(self, topic: str, partition: str, now: float) -> str:
        """Where a file of `topic` belongs that is begun at `now`; <REV> is left in it."""
        # A topic may be called "..".
        name = self._shown(self._template, now).replace("<TOPIC>", f"_{topic}" if topic.startswith(".") else topic)
        return f"{partition}/{name}" if partition else name

    def partition(self, when: int) -> str:
        """The partition of what happened at `when`, in ns since 1970."""
        unit = when // (self._unit * 1_000_000_000)
        found = self._partitions.get(unit)
        if found is None:
            found = self._partitions[unit] = self.shown_partition(unit * self._unit)
        return found

    def forget_partitions(self) -> None:
        """Drop the remembered partitions where they are many: times may be anything. Called between two batches, as
        `time_in` has to know every partition of a batch."""
        if len(self._partitions) >= MOST_REMEMBERED:
            self._partitions.clear()

    def shown_partition(self, when: float) -> str:
        """The same, without keeping it."""
        return self._shown(self._partition, when)

    def time_in(self, partition: str) -> float:
        """A time that belongs to `partition`, which was asked for since the last
        `forget_partitions`; KeyError otherwise."""
        for unit, name in reversed(self._partitions.items()):
            if name == partition:
                return float(unit * self._unit)
        raise KeyError(partition)

    def _shown(self, template: str, when: float) -> str:
        told = self._break_down(when)
        if told.tm_year < 1000:  # which the C library writes without zeros, or with, as it likes
            year = f"{told.tm_year:04}"
            template = _YEAR.sub(lambda code: {"%Y": year, "%F": f"{year}-%m-%d"}.get(code[0], code[0]), template)
        return time.strftime(template, told)


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
