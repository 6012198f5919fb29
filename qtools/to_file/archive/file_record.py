"""The record of a finished file. In: a file that is complete and closed. Out: plain data, as JSON and back.

The record of a file that waits to be uploaded is kept beside it, as `.NAME.finished` in the same directory. It is
written before the file appears, so every file has a record.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from qtools.errors import InputError

VERSION = 1
BESIDE = ".finished"
DRAFT = ".new"  # what a record is called in addition until it is whole
_NOT_STORED = {"source", "directory"}
OFFSETS = ("partition", "first_offset", "last_offset", "follows")  # what only files of one partition of a log have
TOPIC_ID = "topic_id"  # what only some of these have
LOST = ("lost_from", "lost_to")  # what only few of these have


@dataclass(frozen=True, slots=True)
class FileRecord:
    """A file of messages of one topic.

    path: where it is on this machine. relative: where it belongs below the output, "dt=2026-11-23/hour=08/events.log".
    count: messages. bytes: of their bodies. size: of the file as stored. sha256: hex, of the file as stored.
    first_timestamp, last_timestamp: when a broker accepted the earliest and the latest of its messages, ns since 1970.
    ids_hash: hex; follows from topic, nsqds and message ids alone, in whatever order they came (content_hash.py).
    partition, first_offset, last_offset, follows: of a file with the messages of one partition of a log, else -1;
    `follows` is the last offset of the file before it, of the same partition and in the same directory, or -1.
    lost_from, lost_to: offsets of the partition that were archived before, and were not in the archive any more, or -1.
    topic_id: what the broker tells the topic by from others of its name, or "" (message.PartitionOrigin).
    source, directory: the partition while it is read (an ArchivedPartition), and the directory of the chain; they are
    not stored with the record, and do not count when records are compared.
    """

    path: Path
    relative: str
    topic: str
    count: int
    bytes: int
    size: int
    sha256: str
    first_timestamp: int
    last_timestamp: int
    ids_hash: str
    format: str
    compression: str
    version: int = VERSION
    partition: int = -1
    first_offset: int = -1
    last_offset: int = -1
    follows: int = -1
    topic_id: str = ""
    lost_from: int = -1
    lost_to: int = -1
    source: Any = field(default=None, compare=False, repr=False)
    directory: str = field(default="", compare=False, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values; those about offsets only where there are any."""
        left_out = _NOT_STORED if self.partition >= 0 else _NOT_STORED | set(OFFSETS)
        if not self.topic_id:
            left_out = left_out | {TOPIC_ID}
        if self.lost_to < 0:
            left_out = left_out | set(LOST)
        known = {each.name: getattr(self, each.name) for each in fields(self) if each.name not in left_out}
        return known | {"path": str(self.path)}

    @classmethod
    def from_dict(cls, loaded: Any) -> FileRecord:
        """A record from JSON; InputError that says what is wrong. Unknown keys are ignored."""
        if not isinstance(loaded, dict):
            raise InputError("the record of the file is not a JSON object")
        known: dict[str, Any] = {}
        for each in fields(cls):
            name = each.name
            if name in _NOT_STORED or (name in (*OFFSETS, TOPIC_ID, *LOST) and name not in loaded):
                continue
            if name not in loaded:
                raise InputError(f"the record of the file lacks {name!r}")
            value = loaded[name]
            wanted = int if each.type == "int" else str
            if type(value) is not wanted:
                raise InputError(
                    f"the record of the file has {name!r} = {value!r}, which is not of type {wanted.__name__}"
                )
            known[name] = value
        if known["version"] != VERSION:
            raise InputError(f"the record of the file is of version {known['version']}, this program reads {VERSION}")
        return cls(**known | {"path": Path(known["path"])})


def beside(path: Path) -> Path:
    """The path of the record of the file at `path`."""
    return path.with_name(f".{path.name}{BESIDE}")


def write_beside(finished: FileRecord) -> None:
    """Write the record `finished` beside its file, and sync it. The caller syncs the directory when it moves the
    file."""
    place = beside(finished.path)
    draft = place.with_name(place.name + DRAFT)
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(json.dumps(finished.to_dict()).encode() + b"\n")
        os.fsync(fd)
    finally:
        os.close(fd)
    os.replace(draft, place)


def read_beside(path: Path) -> FileRecord:
    """The record of the file at `path`; InputError if it is damaged, FileNotFoundError if there is none.

    Its `path` is set to where the file is now: the directory may have been moved.
    """
    place = beside(path)
    try:
        loaded = json.loads(place.read_bytes())
    except ValueError as error:
        raise InputError(f"{place} is not JSON: {error}") from error
    try:
        return FileRecord.from_dict(loaded | {"path": str(path)} if isinstance(loaded, dict) else loaded)
    except InputError as error:
        raise InputError(f"{place}: {error}") from error
