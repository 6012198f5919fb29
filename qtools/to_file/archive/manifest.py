"""The manifests of an archive. In: records of finished files. Out: a line of JSON for each, and back.

    in a directory          DIRECTORY/manifest.jsonl     a line for each file, appended and synced
    in an object store      NAME.manifest.json           one line, beside each object: objects cannot be appended to
    in both                 _SUCCESS                     empty: the partition is complete

    {"name": …, "topic": …, "count": …, "bytes": …, "size": …, "sha256": …, "first_timestamp": …, "last_timestamp": …,
     "ids_hash": …, "format": …, "compression": …, "version": 1}

A file with the messages of one partition of a log (Kafka) has also "partition", "first_offset", "last_offset", and
"follows": the last offset of the file before it, of the same partition and in the same directory, or -1. If the broker
has ids of topics, it has also "topic_id". If the archive has lost offsets of the partition, the next file has also
"lost_from" and "lost_to".

name is the name of the file in the same directory, so a partition can be moved as a whole. bytes is the size of the
bodies, size that of the file as stored; timestamps are ns since 1970. A reader ignores keys that it does not know.
"""

from __future__ import annotations

import fcntl
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from qtools.descriptors import write_all
from qtools.errors import InputError
from qtools.to_file.archive.file_record import LOST, OFFSETS, TOPIC_ID, VERSION, FileRecord
from qtools.to_file.archive.workfile import sync_directory

if TYPE_CHECKING:
    from qtools.to_file.stores.object_store import ObjectStore, Outcome

DIRECTORY_MANIFEST = "manifest.jsonl"
OBJECT_MANIFEST = ".manifest.json"
COMPLETE = "_SUCCESS"


@dataclass(frozen=True, slots=True)
class Manifested:
    """A file of an archive, as its manifest describes it. name is relative to the root of the archive; partition is -1
    for a file that is not of one partition of a log."""

    name: str
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
    version: int
    partition: int = -1
    first_offset: int = -1
    last_offset: int = -1
    follows: int = -1
    topic_id: str = ""
    lost_from: int = -1
    lost_to: int = -1


def is_manifest(name: str) -> bool:
    """Whether the file `name` of an archive is a manifest."""
    return name.endswith(OBJECT_MANIFEST) or name.rpartition("/")[2] == DIRECTORY_MANIFEST


def is_reserved(name: str) -> bool:
    """Whether `name` is the name of a manifest or marker, and so not allowed for a file of messages."""
    return is_manifest(name) or name.rpartition("/")[2] == COMPLETE


def manifest_line(finished: FileRecord, name: str) -> bytes:
    """The line, with its newline, for a file that is stored as `name` (a path, or a name alone)."""
    left_out = {"name"} if finished.partition >= 0 else {"name", *OFFSETS}
    if not finished.topic_id:
        left_out.add(TOPIC_ID)
    if finished.lost_to < 0:
        left_out.update(LOST)
    values = {each.name: getattr(finished, each.name) for each in fields(Manifested) if each.name not in left_out}
    return orjson.dumps({"name": name.rpartition("/")[2], **values}, option=orjson.OPT_APPEND_NEWLINE)


def read_manifest(name: str, text: bytes) -> list[Manifested]:
    """The files in the manifest `name`, whose content is `text`; InputError that names the manifest and the broken
    line.

    A last line without a newline was not completely written, and is ignored: its file counts as not in the manifest.
    """
    directory = name.rpartition("/")[0]
    lines = text.split(b"\n")
    lines.pop()
    return [_read_line(directory, line, f"{name}, line {number}") for number, line in enumerate(lines, 1) if line]


def _read_line(directory: str, line: bytes, place: str) -> Manifested:
    try:
        values = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise InputError(f"{place} is not JSON ({error})") from error
    if not isinstance(values, dict):
        raise InputError(f"{place} is not a JSON object")
    names = [field.name for field in fields(Manifested) if field.name not in (*OFFSETS, TOPIC_ID, *LOST)]
    if "partition" in values:
        names += OFFSETS
    if TOPIC_ID in values:
        names.append(TOPIC_ID)
    if "lost_to" in values:
        names += LOST
    numbers = {field.name for field in fields(Manifested) if field.type == "int"}
    for name in names:
        wanted = int if name in numbers else str
        if type(values.get(name)) is not wanted:
            raise InputError(f"{place} has no {name!r} that is {'a number' if wanted is int else 'text'}")
    known = {name: values[name] for name in names}
    if known["version"] != VERSION:
        raise InputError(f"{place} is of version {known['version']}, this program reads {VERSION}")
    if "partition" in known and not (
        known["partition"] >= 0 and -1 <= known["follows"] < known["first_offset"] <= known["last_offset"]
    ):
        raise InputError(
            f"{place} has offsets that cannot be: {', '.join(f'{each} {known[each]}' for each in OFFSETS)}"
        )
    name = known["name"]
    # The name comes from outside, and will be used as a path.
    if not name or "/" in name or "\0" in name or name in (".", ".."):
        raise InputError(f"{place} names {name!r}, which is not a file beside it")
    return Manifested(**known | {"name": f"{directory}/{name}" if directory else name})


def to_json(manifested: Manifested) -> bytes:
    """One line of JSON without a newline, for programs; the name is relative to the root of the archive."""
    left_out = set() if manifested.partition >= 0 else set(OFFSETS)
    if not manifested.topic_id:
        left_out.add(TOPIC_ID)
    if manifested.lost_to < 0:
        left_out.update(LOST)
    return orjson.dumps({key: value for key, value in asdict(manifested).items() if key not in left_out})


# ── in a directory ──


def append_manifest(root: Path, finished: FileRecord, *, unless_there: bool = False) -> None:
    """Append the line of `finished`, a file below `root`, to the manifest of its directory, and sync it.

    unless_there: first look whether the manifest has the file already; needed after a crash. Raises OSError.
    """
    relative = finished.relative
    path = root / relative.rpartition("/")[0] / DIRECTORY_MANIFEST
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)  # another process may archive to the same directory
        end = _cut_torn_line(fd)
        if unless_there and _has_line(fd, relative):
            return
        write_all(fd, manifest_line(finished, relative))
        os.fsync(fd)
    finally:
        os.close(fd)
    if not end:
        sync_directory(path.parent)


def _cut_torn_line(fd: int) -> int:
    """Remove an incomplete last line, which a crash may have left. Returns the size that remains."""
    size = end = os.fstat(fd).st_size
    while end:
        begin = max(0, end - 4096)
        newline = os.pread(fd, end - begin, begin).rfind(b"\n")
        if newline >= 0:
            end = begin + newline + 1
            break
        end = begin
    if end < size:
        os.ftruncate(fd, end)
    return end


def _has_line(fd: int, relative: str) -> bool:
    with open(fd, "rb", closefd=False) as file:
        file.seek(0)
        name = relative.rpartition("/")[2]
        return any(each.name == name for each in read_manifest(DIRECTORY_MANIFEST, file.read()))


# ── in a store ──


async def put_manifest(store: ObjectStore, finished: FileRecord, name: str) -> Outcome:
    """Write the manifest of the object `name` beside it."""
    return await store.put_new(name + OBJECT_MANIFEST, manifest_line(finished, name))


async def mark_complete(store: ObjectStore, partition: str) -> Outcome:
    """Mark the directory `partition` ("" for the root) as complete."""
    return await store.put_new(f"{partition.strip('/')}/{COMPLETE}".lstrip("/"), b"")
