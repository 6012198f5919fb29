"""An archive is held against its manifests: every way in which it can be wrong is found, and named."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from qtools.to_file.archive.file_record import FileRecord
from qtools.to_file.archive.manifest import (
    COMPLETE,
    DIRECTORY_MANIFEST,
    OBJECT_MANIFEST,
    append_manifest,
    manifest_line,
    mark_complete,
    read_manifest,
)
from qtools.to_file.read.verify import Finding, Report, Verifier, read_archive
from qtools.to_file.sinks.upload import object_name, upload
from qtools.to_file.stores.object_store import StoredObject

from ..spool import compressed, encoded, finish
from ..store_kinds import Directory, Place

FORMATS = ["raw", "envelope", "msgpack", "length32"]
COMPRESSIONS = ["none", "gzip", "zstd"]


def verify(place: Place, *, deep: bool = False) -> Report:
    async def run() -> Report:
        store = place.open()
        return await Verifier(store, await read_archive(store), deep=deep).run()

    return asyncio.run(run())


def put(place: Place, *files: FileRecord) -> None:
    async def run() -> None:
        store = place.open()
        for each in files:
            await upload(store, each)

    asyncio.run(run())


@pytest.mark.parametrize("deep", [False, True])
def test_a_good_archive(place: Place, tmp_path: Path, deep: bool) -> None:
    files = [
        finish(tmp_path, f"{format}-{compression}", list(range(start * 100, start * 100 + 30)), format=format,
               compression=compression, directory=f"hour={start % 3}")
        for start, (format, compression) in enumerate((f, c) for f in FORMATS for c in COMPRESSIONS)
    ]  # fmt: skip
    put(place, *files)
    asyncio.run(mark_complete(place.open(), "hour=1"))
    report = verify(place, deep=deep)
    assert report.findings == report.remarks == []
    assert (report.files, report.messages) == (12, 360)
    assert report.bytes == sum(each.bytes for each in files)
    assert report.size == sum(each.size for each in files)
    assert report.complete == {"hour=1"}
    assert f"hour=1/{COMPLETE}" in place.names()


def test_an_archive_of_directories(tmp_path: Path) -> None:
    place = Directory(tmp_path / "archive")
    for number in range(4):
        each = finish(
            tmp_path / "archive" / f"hour={number % 2}", f"f{number}", [number], directory=f"hour={number % 2}"
        )
        (each.path.parent / f".{each.path.name}.finished").unlink()
        append_manifest(tmp_path / "archive", each)
    assert len(place.read(f"hour=1/{DIRECTORY_MANIFEST}").splitlines()) == 2
    report = verify(place, deep=True)
    assert report.findings == []
    assert (report.files, report.messages) == (4, 4)
    (tmp_path / "archive" / "hour=0").rename(tmp_path / "archive" / "moved")  # a partition is moved as a whole
    assert verify(place, deep=True).files == 4


def test_an_empty_archive(place: Place) -> None:
    place.open()
    assert verify(place) == Report()


# ── what can be wrong ──


def alter(content: bytes) -> bytes:
    return content[:-3] + bytes([content[-3] ^ 1]) + content[-2:]


def foreign(place: Place, name: str) -> None:
    """As somebody else would put it there: without a manifest, and without a word of what it is."""
    place.write(name, place.read(name))
    place.remove(name + OBJECT_MANIFEST)


@pytest.mark.parametrize(
    ("change", "kind", "told"),
    [
        (lambda place, name: place.remove(name), "missing", "is not there, with 30 messages"),
        (lambda place, name: place.write(name, place.read(name)[:-1]), "truncated", "has {less} bytes, had {size}"),
        (lambda place, name: place.write(name, b""), "truncated", "has 0 bytes, had {size}"),
        (lambda place, name: place.write(name, place.read(name) + b"x"), "altered", "has {more} bytes, had {size}"),
        (lambda place, name: place.write(name, alter(place.read(name))), "altered", "has sha256 "),
        (lambda place, name: foreign(place, name), "unlisted", "is there, and in no manifest"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("deep", [False, True])
def test_a_file_that_is_not_what_it_was(
    place: Place, tmp_path: Path, change: Callable[[Place, str], None], kind: str, told: str, deep: bool
) -> None:
    files = [finish(tmp_path, f"f{n}", list(range(n, n + 30)), format="raw", compression="none") for n in (0, 100, 200)]
    put(place, *files)
    name = object_name(files[1])
    change(place, name)
    report = verify(place, deep=deep)
    size = files[1].size
    assert [(each.name, each.kind) for each in report.findings] == [(name, kind)]
    assert report.findings[0].told.startswith(told.format(size=size, less=size - 1, more=size + 1))
    assert (report.files, report.messages) == (2, 60)


def test_the_same_messages_in_two_files(place: Place, tmp_path: Path) -> None:
    one = finish(tmp_path, "a", [1, 2, 3], directory="hour=0")
    two = finish(tmp_path, "b", [3, 2, 1], directory="hour=1", attempts=2)
    put(place, one, two)
    report = verify(place)
    assert report.findings == [
        Finding(object_name(two), "twice", f"has the same 3 messages as {object_name(one)}"),
    ]  # fmt: skip


def test_some_messages_in_two_files_are_a_remark_of_a_deep_check(place: Place, tmp_path: Path) -> None:
    one = finish(tmp_path, "a", [1, 2, 3, 9])
    far = finish(tmp_path, "b", [20, 21])
    two = finish(tmp_path, "c", [3, 4, 9, 9])
    put(place, one, two, far)
    assert verify(place).remarks == []
    report = verify(place, deep=True)
    assert report.findings == []
    assert report.again == 3
    assert report.remarks == [
        Finding(object_name(two), "again", "1 message is in it twice"),
        Finding(object_name(two), "again", f"2 messages are also in {object_name(one)}"),
    ]


def test_the_same_line_twice_in_a_manifest(tmp_path: Path) -> None:
    place = Directory(tmp_path)
    each = finish(tmp_path, "f", [1], directory="")
    append_manifest(tmp_path, each)
    append_manifest(tmp_path, each, unless_there=True)
    assert verify(place).findings == []
    append_manifest(tmp_path, each)
    assert verify(place).findings == [Finding("f", "twice", "manifest.jsonl describes it again, with the same values")]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"{\n", "line 1 is not JSON"),
        (b"[]\n", "line 1 is not a JSON object"),
        (b"{}\n", "line 1 has no 'name' that is text"),
        (b'{"name": "../../etc/passwd"}\n', "has no 'topic' that is text"),
        (None, "line 1 is of version 2, this program reads 1"),
    ],
)
def test_a_manifest_that_is_none(place: Place, tmp_path: Path, text: bytes | None, told: str) -> None:
    each = finish(tmp_path, "f", [1])
    put(place, each)
    name = object_name(each) + OBJECT_MANIFEST
    place.write(name, text or place.read(name).replace(b'"version":1', b'"version":2'))
    report = verify(place)
    assert [(finding.name, finding.kind) for finding in report.findings] == [
        (object_name(each), "unlisted"), (name, "manifest"),
    ]  # fmt: skip
    assert told in report.findings[1].told


@pytest.mark.parametrize("name", ["../f", "a/b", ".", "..", "", "a\0b"])
def test_a_manifest_that_leads_elsewhere(tmp_path: Path, name: str) -> None:
    place = Directory(tmp_path)
    each = finish(tmp_path, "f", [1], directory="")
    told = json.loads(manifest_line(each, "f")) | {"name": name}
    place.write(DIRECTORY_MANIFEST, json.dumps(told).encode() + b"\n")
    assert [finding.kind for finding in verify(place).findings] == ["unlisted", "manifest"]


def test_a_manifest_beside_the_wrong_object(place: Place, tmp_path: Path) -> None:
    one, two = finish(tmp_path, "a", [1]), finish(tmp_path, "b", [2])
    put(place, one, two)
    place.write(object_name(one) + OBJECT_MANIFEST, place.read(object_name(two) + OBJECT_MANIFEST))
    assert {(finding.name, finding.kind) for finding in verify(place).findings} == {
        (object_name(one), "unlisted"), (object_name(one) + OBJECT_MANIFEST, "manifest"),
    }  # fmt: skip


async def test_an_archive_that_grows_meanwhile(place: Place, tmp_path: Path) -> None:
    store = place.open()
    one, two, three = (finish(tmp_path, f"f{n}", [n], directory=f"{n}") for n in range(3))
    await upload(store, one)
    place.write(object_name(two), two.path.read_bytes())  # its manifest comes later
    place.write(object_name(three) + OBJECT_MANIFEST, manifest_line(three, object_name(three)))

    class Listed(type(store)):  # type: ignore[misc]
        """Its listing has passed the place of a file before that comes."""

        async def list(self, below: str = "") -> AsyncIterator[list[StoredObject]]:
            async for entries in super().list(below):
                yield entries
            place.write(object_name(three), three.path.read_bytes())

    store.__class__ = Listed
    archive = await read_archive(store)
    place.write(object_name(two) + OBJECT_MANIFEST, manifest_line(two, object_name(two)))
    report = await Verifier(store, archive).run()
    assert report.findings == []
    assert report.files == 3


# ── what only a look inside finds: whoever altered the file also set the manifest right ──


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize(
    ("lie", "kind", "told"),
    [
        ({"count": 31}, "miscounted", "holds 30 messages, had 31"),
        ({"bytes": 1}, "miscounted", "bytes in bodies, had 1"),
        ({"ids_hash": "0" * 32}, "miscounted", "holds other messages: the hash over their ids is another"),
        ({"format": "runes"}, "broken", "the format 'runes' is unknown to this program"),
        ({"compression": "lzma"}, "broken", "the compression 'lzma' is unknown to this program"),
    ],
)
def test_a_manifest_that_says_something_else(
    tmp_path: Path, format: str, compression: str, lie: dict[str, object], kind: str, told: str
) -> None:
    place = Directory(tmp_path / "archive")
    each = finish(tmp_path, "f", list(range(30)), format=format, compression=compression, directory="")
    place.write("f", each.path.read_bytes())
    append_manifest(place.root, replace(each, **lie))
    assert verify(place).findings == []
    findings = verify(place, deep=True).findings
    if "ids_hash" in lie and format in ("raw", "length32"):
        assert findings == []  # these keep no ids
    else:
        assert [(finding.name, finding.kind) for finding in findings] == [("f", kind)]
        assert told in findings[0].told


@pytest.mark.parametrize(
    ("format", "compression", "spoil", "told"),
    [
        ("raw", "gzip", lambda data: data[:-9], "ends in the middle of a gzip member: it was cut off"),
        ("raw", "zstd", lambda data: data[:-5], "ends in the middle of a zstd frame: it was cut off"),
        ("raw", "gzip", lambda data: b"plain text", "is not gzip, or damaged"),
        ("raw", "zstd", lambda data: b"plain text", "is not zstd, or damaged"),
        ("raw", "gzip", lambda data: data + b"trailing bytes", "is not gzip, or damaged"),
        ("raw", "gzip", alter, "is not gzip, or damaged"),
        ("envelope", "none", lambda data: data + b'{"topic"', "is not JSON"),
        ("envelope", "none", lambda data: b"[]\n" + data, "line 1 (at byte 0) is not a JSON object"),
        ("msgpack", "none", lambda data: data[:-1], "the input ends within the msgpack value at byte"),
        ("length32", "none", lambda data: data[:-1], "the input ends within a message"),
        ("length32", "none", lambda data: b"\xff" + data, "more than any message has"),
    ],
)
def test_a_file_that_was_broken_before_its_manifest_was_written(
    tmp_path: Path, format: str, compression: str, spoil: Callable[[bytes], bytes], told: str
) -> None:
    import hashlib

    place = Directory(tmp_path / "archive")
    each = finish(tmp_path, "f", list(range(30)), format=format, compression=compression, directory="")
    content = spoil(each.path.read_bytes())
    place.write("f", content)
    append_manifest(place.root, replace(each, size=len(content), sha256=hashlib.sha256(content).hexdigest()))
    (finding,) = verify(place, deep=True).findings
    assert (finding.name, finding.kind) == ("f", "broken")
    assert told in finding.told


# ── the manifest of a directory ──


@pytest.mark.parametrize("torn", [b"{", b'{"name": "f2"', b"x" * 5000, b'{"name": "f2"}' * 400])
def test_a_line_that_a_crash_tore_is_cut(tmp_path: Path, torn: bytes) -> None:
    one, two = finish(tmp_path, "a", [1], directory=""), finish(tmp_path, "b", [2], directory="")
    append_manifest(tmp_path, one)
    path = tmp_path / DIRECTORY_MANIFEST
    whole = path.read_bytes()
    path.write_bytes(whole + torn)
    assert [each.name for each in read_manifest(DIRECTORY_MANIFEST, path.read_bytes())] == ["a"]
    append_manifest(tmp_path, two)
    assert path.read_bytes() == whole + manifest_line(two, "b")


def test_a_manifest_that_is_all_torn(tmp_path: Path) -> None:
    path = tmp_path / DIRECTORY_MANIFEST
    path.write_bytes(b"y" * 9000)
    one = finish(tmp_path, "a", [1], directory="")
    append_manifest(tmp_path, one)
    assert path.read_bytes() == manifest_line(one, "a")


def test_what_is_decompressed_comes_in_blocks() -> None:
    from qtools.to_file.read.decompressor import BLOCK, Inflater

    data = encoded("raw", "", [1]) * 100_000
    for compression in ("gzip", "zstd"):
        inflater = Inflater(compression)
        blocks = list(inflater.feed(compressed(compression, data) + compressed(compression, b"abcd")))
        inflater.end()
        assert b"".join(blocks) == data + b"abcd"
        assert max(map(len, blocks)) <= BLOCK
        inflater = Inflater(compression)  # byte by byte
        small = compressed(compression, data[:1000])
        assert b"".join(block for at in range(len(small)) for block in inflater.feed(small[at : at + 1])) == data[:1000]
        inflater.end()
