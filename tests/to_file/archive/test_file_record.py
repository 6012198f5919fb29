"""What is known of a finished file goes to JSON and back, and nothing else passes for it."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from qtools.errors import InputError
from qtools.to_file.archive.content_hash import ContentHash
from qtools.to_file.archive.file_record import FileRecord, beside, read_beside, write_beside


def finished(path: Path) -> FileRecord:
    return FileRecord(path, "dt=1/a.log", "events", 2, 10, 12, "ab" * 32, 5, 9, "cd" * 16, "raw", "none")


def test_comes_back_from_json() -> None:
    there = finished(Path("/spool/a.log"))
    assert FileRecord.from_dict(json.loads(json.dumps(there.to_dict()))) == there


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("count", None, "lacks 'count'"),
        ("count", "2", "'count' = '2'"),
        ("count", True, "'count' = True"),
        ("sha256", 5, "'sha256' = 5"),
        ("version", 99, "version 99"),
    ],
)
def test_says_what_is_wrong(key: str, value: object, told: str) -> None:
    known = finished(Path("/spool/a.log")).to_dict()
    known[key] = value
    if value is None:
        del known[key]
    with pytest.raises(InputError, match=told):
        FileRecord.from_dict(known)


def test_kept_beside_a_file_it_knows_where_that_is_now(tmp_path: Path) -> None:
    before = tmp_path / "before"
    before.mkdir()
    there = finished(before / "a.log")
    write_beside(there)
    assert beside(there.path).name == ".a.log.finished"
    before.rename(tmp_path / "after")
    assert read_beside(tmp_path / "after" / "a.log") == finished(tmp_path / "after" / "a.log")
    beside(tmp_path / "after" / "a.log").write_bytes(b'{"path": ')
    with pytest.raises(InputError, match=r"\.a\.log\.finished is not JSON"):
        read_beside(tmp_path / "after" / "a.log")
    with pytest.raises(FileNotFoundError):
        read_beside(tmp_path / "after" / "b.log")


def hashed(topic: str, *runs: tuple[str, list[bytes]]) -> str:
    hasher = ContentHash(topic)
    for nsqd, ids in runs:
        hasher.add(nsqd, ids)
    return hasher.hexdigest()


def test_ids_hash_depends_on_which_messages_only() -> None:
    ids = [b"%016x" % number for number in range(7, 5000, 3)]
    mixed = random.Random(1).sample(ids, len(ids))
    whole = hashed("t", ("n", ids))
    assert hashed("t", ("n", mixed)) == whole
    assert hashed("t", ("n", mixed[:100]), ("m", ids[:5]), ("n", mixed[100:])) == hashed(
        "t", ("m", ids[:5]), ("n", ids)
    )
    others = {
        hashed("t", ("n", ids[1:])),
        hashed("t", ("n", [*ids, ids[0]])),
        hashed("t", ("n", [b"%016x" % 8, *ids[1:]])),
        hashed("t", ("m", ids)),
        hashed("u", ("n", ids)),
        hashed("t", ("n", ids[:5]), ("m", ids[5:])),
    }
    assert len(others | {whole}) == 7


def test_ids_hash_goes_on_from_its_state() -> None:
    ids = [b"%016x" % number for number in range(1000)]
    first = ContentHash("t")
    first.add("n", ids[:400])
    second = ContentHash("t", first.value, first.count)
    second.add("n", ids[400:])
    assert second.hexdigest() == hashed("t", ("n", ids))


def test_ids_that_are_no_hex_count_too_whatever_stands_beside_them() -> None:
    ids = [b"%016x" % 5, b"not hexadecimal!", b"%016x" % 6, b"", b"short", b"\0" * 8, b"0" * 32]
    assert hashed("t", ("n", ids)) == hashed("t", *(("n", [ident]) for ident in reversed(ids)))
    assert len({hashed("t", ("n", [ident])) for ident in ids}) == len(ids)
