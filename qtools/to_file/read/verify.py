"""Compares the files of an archive with its manifests. In: a store. Out: findings for each file, and totals.

    missing      in a manifest, and not there           unlisted     there, and in no manifest
    truncated    shorter than in the manifest           altered      other bytes than in the manifest
    twice        the same messages as another file      broken       (deep) damaged, or in another format
    manifest     a manifest that cannot be read         miscounted   (deep) other messages than in the manifest
    gap          offsets of a log that are in no file   overlap      offsets of a log that are in another file too

Every file is read completely, and its sha256 compared. A deep check also decodes every message. If the format has ids,
it compares their hash with that in the manifest, and counts the messages that are in two files: a broker delivers a
message again after a crash. At-least-once delivery allows that, so it is a remark and no finding. A message that is
delivered again keeps its timestamp, so ids (8 bytes each) are kept only while files follow whose times overlap.
"""

from __future__ import annotations

import asyncio
import hashlib
from array import array
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from qtools.cli.types import plural
from qtools.errors import InputError, StoreError
from qtools.to_file.archive.content_hash import ContentHash
from qtools.to_file.archive.manifest import (
    COMPLETE,
    DIRECTORY_MANIFEST,
    OBJECT_MANIFEST,
    Manifested,
    is_manifest,
    read_manifest,
)
from qtools.to_file.read.chains import check_chains
from qtools.to_file.read.record_reader import RecordReader, Records
from qtools.to_file.stores.object_store import ObjectStore, StoredObject
from qtools.to_file.stores.store_errors import NotThere

T = TypeVar("T")
Answer = TypeVar("Answer")

AT_ONCE = 4  # files that are read at once; each takes two blocks of 4 MiB
ASKED_AT_ONCE = 16  # small requests at once
SOME = 1000  # names for which requests are made before their answers are used
LARGEST_MANIFEST = 256 * 1024 * 1024  # bytes: a million files in one directory


class Finding(NamedTuple):
    """What is wrong with a file: `kind` is one of the words above. told: a clause for people; in JSON too."""

    name: str
    kind: str
    told: str


@dataclass(slots=True)
class ArchiveListing:
    """The content of an archive: its files, the entries of its manifests, both by name, and findings in the
    manifests."""

    entries: dict[str, StoredObject] = field(default_factory=dict)
    manifested: dict[str, Manifested] = field(default_factory=dict)
    complete: set[str] = field(default_factory=set)  # directories
    findings: list[Finding] = field(default_factory=list)


@dataclass(slots=True)
class Report:
    """files, messages, bytes (of bodies) and size (as stored) count the good files. again: messages in two files."""

    files: int = 0
    messages: int = 0
    bytes: int = 0
    size: int = 0
    again: int = 0
    remarks: list[Finding] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    complete: set[str] = field(default_factory=set)
    good: list[Manifested] = field(default_factory=list)


async def read_archive(store: ObjectStore) -> ArchiveListing:
    """List the store, and read all manifests. StoreError if that fails."""
    archive = ArchiveListing()
    manifests: list[StoredObject] = []
    async for entries in store.list():
        for entry in entries:
            if is_manifest(entry.name):
                manifests.append(entry)
            elif entry.name.rpartition("/")[2] == COMPLETE:
                archive.complete.add(entry.name.rpartition("/")[0])
            else:
                archive.entries[entry.name] = entry
    manifests.sort()
    for start in range(0, len(manifests), SOME):
        some = manifests[start : start + SOME]
        for entry, text in zip(some, await _each(some, lambda one: store.get(one, LARGEST_MANIFEST)), strict=True):
            _add_manifest(archive, entry.name, text)
    # After a crash an object may have no manifest: its metadata contains the same line.
    beside = {entry.name.removesuffix(OBJECT_MANIFEST) for entry in manifests}
    bare = sorted(archive.entries[name] for name in archive.entries.keys() - archive.manifested.keys() - beside)
    for start in range(0, len(bare), SOME):
        some = bare[start : start + SOME]
        for entry, line in zip(some, await _each(some, store.about), strict=True):
            if line:
                _add_manifest(archive, entry.name + OBJECT_MANIFEST, line.encode() + b"\n")
    # While a run is archiving, a file may appear after the listing has passed its name.
    late = sorted(archive.manifested.keys() - archive.entries.keys())
    for start in range(0, len(late), SOME):
        found = await _each(late[start : start + SOME], store.head)
        archive.entries |= {entry.name: entry for entry in found if entry is not None}
    return archive


async def _each(items: Sequence[T], ask: Callable[[T], Awaitable[Answer]]) -> list[Answer]:
    """The answers for all of `items`, with at most ASKED_AT_ONCE requests at once."""
    limit = asyncio.Semaphore(ASKED_AT_ONCE)

    async def one(item: T) -> Answer:
        async with limit:
            return await ask(item)

    return list(await asyncio.gather(*map(one, items)))


def _add_manifest(archive: ArchiveListing, name: str, text: bytes) -> None:
    try:
        known = read_manifest(name, text)
    except InputError as error:
        archive.findings.append(Finding(name, "manifest", str(error)))
        return
    if name.endswith(OBJECT_MANIFEST) and [each.name for each in known] != [name.removesuffix(OBJECT_MANIFEST)]:
        archive.findings.append(Finding(name, "manifest", "does not describe the object beside it"))
        return
    for each in known:
        before = archive.manifested.setdefault(each.name, each)
        if before is not each:
            same = "the same values" if before == each else "other values"
            archive.findings.append(Finding(each.name, "twice", f"{name} describes it again, with {same}"))


class Verifier:
    """One check of `archive` in `store`. `report` may be read at any time."""

    def __init__(
        self, store: ObjectStore, archive: ArchiveListing, *, deep: bool = False, delimiter: bytes = b"\n"
    ) -> None:
        self.report = Report(findings=list(archive.findings), complete=archive.complete)
        self._store = store
        self._archive = archive
        self._deep = deep
        self._delimiter = delimiter
        self._open: dict[str, tuple[int, array[int]]] = {}  # file → last timestamp, keys of its messages

    async def run(self) -> Report:
        """Check all files. StoreError when the store fails; a damaged file is a finding."""
        archive, report = self._archive, self.report
        known = sorted(archive.manifested.values(), key=lambda each: (each.first_timestamp, each.name))
        report.findings += _twice(known)
        todo = iter(known)
        await asyncio.gather(*(self._work(todo) for _ in range(1 if self._deep else AT_ONCE)))
        unlisted = sorted(archive.entries.keys() - archive.manifested.keys())
        if unlisted:
            again = await self._list_again(unlisted)
            known += again
            await self._work(iter(again))
        await self._check_chains(known)
        report.findings.sort()
        return report

    async def _check_chains(self, known: list[Manifested]) -> None:
        """Check that the files of a log's partitions follow each other."""
        found = check_chains(known)
        if found:  # while a run is archiving, a listing may have a file without the one before it
            newer = await read_archive(self._store)
            names = {each.name for each in found}
            everything = {each.name: each for each in known} | newer.manifested
            found = [each for each in check_chains(everything.values()) if each.name in names]
        report = self.report
        report.findings += [Finding(*each) for each in found if each.kind != "begins"]
        report.remarks += [Finding(*each) for each in found if each.kind == "begins"]

    async def _list_again(self, unlisted: list[str]) -> list[Manifested]:
        """Read the manifests again for files that are in none: while a run is archiving, a manifest follows its
        file."""
        again = ArchiveListing()
        places = {name + OBJECT_MANIFEST for name in unlisted}
        places |= {f"{name.rpartition('/')[0]}/{DIRECTORY_MANIFEST}".lstrip("/") for name in unlisted}
        for start in range(0, len(places), SOME):
            some = sorted(places)[start : start + SOME]
            for entry in await _each(some, self._store.head):
                if entry is not None:
                    _add_manifest(again, entry.name, await self._store.get(entry, LARGEST_MANIFEST))
        self.report.findings += [
            Finding(name, "unlisted", "is there, and in no manifest")
            for name in unlisted
            if name not in again.manifested
        ]
        return [again.manifested[name] for name in unlisted if name in again.manifested]

    async def _work(self, todo: Iterable[Manifested]) -> None:
        for known in todo:
            finding = await self._check(known)
            if finding is not None:
                self.report.findings.append(finding)
                continue
            report = self.report
            report.files += 1
            report.messages += known.count
            report.bytes += known.bytes
            report.size += known.size
            report.good.append(known)

    async def _check(self, known: Manifested) -> Finding | None:
        entry = self._archive.entries.get(known.name)
        if entry is None:
            return Finding(known.name, "missing", f"is not there, with {plural(known.count, 'message')}")
        if entry.size < known.size:
            return Finding(known.name, "truncated", f"has {entry.size} bytes, had {known.size}")
        if entry.size > known.size:
            return Finding(known.name, "altered", f"has {entry.size} bytes, had {known.size}")
        sha256 = hashlib.sha256()
        decoded = _Decoded(known, self._delimiter) if self._deep else None
        try:
            async for block in self._store.stream(entry):
                await asyncio.to_thread(_take, sha256, decoded, block)
        except NotThere:
            return Finding(known.name, "missing", "was deleted during the check")
        except StoreError as error:
            if not error.permanent:
                raise
            return Finding(known.name, "altered", error.reason)
        if sha256.hexdigest() != known.sha256:
            return Finding(known.name, "altered", f"has sha256 {sha256.hexdigest()}, had {known.sha256}")
        if decoded is None:
            return None
        finding = await asyncio.to_thread(decoded.end)
        if finding is None:
            self._compare(known, decoded.keys)
        return finding

    def _compare(self, known: Manifested, keys: array[int]) -> None:
        """Count the messages that an earlier file has too."""
        self._open = {name: each for name, each in self._open.items() if each[0] >= known.first_timestamp}
        mine = set(keys)
        if len(mine) < len(keys):
            self._remark(known.name, len(keys) - len(mine), "itself")
        for name, (_, others) in self._open.items():
            if count := len(mine.intersection(others)):
                self._remark(known.name, count, name)
        self._open[known.name] = known.last_timestamp, keys

    def _remark(self, name: str, count: int, other: str) -> None:
        self.report.again += count
        text = "is in it twice" if other == "itself" else f"is also in {other}"
        text = text if count == 1 else text.replace("is ", "are ", 1)
        self.report.remarks.append(Finding(name, "again", f"{plural(count, 'message')} {text}"))


def _twice(known: list[Manifested]) -> list[Finding]:
    """Files with exactly the messages of an earlier file."""
    first: dict[tuple[str, str], str] = {}
    found = []
    for each in known:
        other = first.setdefault((each.topic, each.ids_hash), each.name)
        if other != each.name:
            found.append(Finding(each.name, "twice", f"has the same {plural(each.count, 'message')} as {other}"))
    return found


class _Decoded:
    """The decoded messages of one file, counted and compared with its manifest."""

    def __init__(self, known: Manifested, delimiter: bytes) -> None:
        self.keys: array[int] = array("Q")
        self._last_offset = -1
        self._known = known
        self._count = self._bytes = 0
        self._ids: ContentHash | None = ContentHash(known.topic)
        self._points: dict[str, int] = {}
        self._broken = ""
        self._reader: RecordReader | None = None
        try:
            self._reader = RecordReader(
                known.format, known.compression, delimiter, keeps_empty=known.partition >= 0
            )  # fmt: skip
        except InputError as error:
            self._broken = str(error)

    def feed(self, block: bytes) -> None:
        if self._reader is None or self._broken:
            return
        try:
            for records in self._reader.feed(block):
                self._add(records)
        except InputError as error:
            self._broken = str(error)

    def end(self) -> Finding | None:
        known = self._known
        if self._reader is not None and not self._broken:
            try:
                self._add(self._reader.end())
            except InputError as error:
                self._broken = str(error)
        if self._broken:
            return Finding(known.name, "broken", self._broken)
        if self._count != known.count:
            return Finding(known.name, "miscounted", f"holds {plural(self._count, 'message')}, had {known.count:,}")
        if self._bytes != known.bytes:
            return Finding(known.name, "miscounted", f"holds {self._bytes} bytes in bodies, had {known.bytes}")
        if self._ids is not None and self._ids.hexdigest() != known.ids_hash:
            return Finding(known.name, "miscounted", "holds other messages: the hash over their ids is another")
        return None

    def _add(self, records: Records) -> None:
        self._count += len(records)
        if records.places is not None and self._known.partition >= 0:
            self._check_offsets(records.places)
        self._bytes += sum(map(len, records.bodies))
        if records.ids is None or self._ids is None:
            if len(records):
                self._ids = None  # the format has no ids
            return
        of_nsqd: dict[str, list[bytes]] = {}
        for nsqd, ident in records.ids:
            of_nsqd.setdefault(nsqd, []).append(ident.encode("latin-1", "replace"))
        for nsqd, ids in of_nsqd.items():
            self._ids.add(nsqd, ids)
            point = self._points.get(nsqd)
            if point is None:
                seed = hashlib.sha256(f"{self._known.topic}\0{nsqd}".encode()).digest()
                point = self._points[nsqd] = int.from_bytes(seed[:8], "big")
            self.keys.extend([point ^ _key(ident) for ident in ids])

    def _check_offsets(self, places: list[tuple[int, int]]) -> None:
        """InputError if a message is not of the partition, or not behind the one before it."""
        known = self._known
        for partition, offset in places:
            is_first = self._last_offset < 0
            low = known.first_offset if is_first else self._last_offset + 1
            high = known.first_offset if is_first else known.last_offset
            if partition != known.partition or not low <= offset <= high:
                raise InputError(f"has offset {offset} of partition {partition} where {low} to {high} are expected")
            self._last_offset = offset


def _key(ident: bytes) -> int:
    try:
        return int(ident, 16) & 0xFFFFFFFFFFFFFFFF
    except ValueError:
        return int.from_bytes(hashlib.blake2b(ident, digest_size=8).digest(), "big")


def _take(sha256: hashlib._Hash, decoded: _Decoded | None, block: bytes) -> None:
    sha256.update(block)
    if decoded is not None:
        decoded.feed(block)
