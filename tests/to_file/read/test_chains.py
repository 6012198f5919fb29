"""The files of a log's partitions: what is not there, or twice, is found by the offsets that they follow."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from qtools.errors import InputError
from qtools.to_file.archive.manifest import Manifested, append_manifest, manifest_line, read_manifest
from qtools.to_file.read.chains import ChainFault, check_chains
from qtools.to_file.read.replay_plan import in_order

from ..spool import finish
from .test_verify import Directory, verify


def file(first: int, last: int, follows: int, directory: str = "", partition: int = 0, when: int = 0) -> Manifested:
    name = f"events.{partition}.{first}-{last}.log"
    return Manifested(
        f"{directory}/{name}" if directory else name, "events", last - first + 1, 1, 1, "s", when, when, f"{first}",
        "raw", "none", 1, partition, first, last, follows,
    )  # fmt: skip


WHOLE = [file(5, 9, -1), file(10, 19, 9), file(25, 30, 19), file(31, 40, 30)]  # the log has no 20 to 24
OTHERS = [file(0, 4, -1, partition=1), replace(file(3, 9, -1), partition=-1, first_offset=-1, last_offset=-1)]


def test_a_whole_partition() -> None:
    assert check_chains([*reversed(WHOLE), *OTHERS]) == []


def test_directories_have_chains_of_their_own() -> None:
    assert check_chains([file(0, 8, -1, "a"), file(1, 9, -1, "b"), file(10, 14, 8, "a"), file(11, 15, 9, "b")]) == []


@pytest.mark.parametrize(
    ("files", "kind", "told"),
    [
        (WHOLE[:1] + WHOLE[2:], "gap", "partition 0: offsets 10 to 19 are in no file"),
        (WHOLE[:2] + WHOLE[3:], "gap", "partition 0: offsets 20 to 30 are in no file"),
        (
            WHOLE[1:], "begins",
            "partition 0: the file up to offset 9, which it follows, is not there, nor are earlier ones",
        ),
        (
            [file(0, 8, -1, "a"), file(20, 22, 15, "b")], "gap",
            "partition 0: the file up to offset 15, which it follows, is not there",
        ),
        ([*WHOLE, file(15, 24, 14)], "overlap", "offsets 15 to 19 of partition 0 are also in events.0.10-19.log"),
        ([*WHOLE, file(31, 35, 30, "x")], "overlap", "it follows offset 30 of partition 0, as {} does"),
    ],
)  # fmt: skip
def test_what_is_found(files: list[Manifested], kind: str, told: str) -> None:
    (found,) = check_chains(files)
    assert found.kind == kind
    assert found.told in {told, told.format("events.0.31-40.log"), told.format("x/events.0.31-35.log")}


def test_the_last_one_cannot_be_missed() -> None:
    assert check_chains(WHOLE[:3]) == []


def test_verify_tells_and_fails(tmp_path: Path) -> None:
    root = tmp_path / "archive"
    follows = -1
    for number in range(4):
        first, last = number * 10, number * 10 + 9
        record = finish(
            root, f"f{number}", list(range(first, last + 1)), format="raw", compression="none", directory=""
        )
        (root / f".{record.path.name}.finished").unlink()
        record = replace(record, partition=0, first_offset=first, last_offset=last, follows=follows)
        if number != 2:
            append_manifest(root, record)
        else:
            record.path.unlink()
        follows = last
    report = verify(Directory(root))
    assert [(each.name, each.kind) for each in report.findings] == [("f3", "gap")]
    assert report.files == 3
    manifest = root / "manifest.jsonl"
    manifest.write_bytes(b"".join(manifest.read_bytes().splitlines(keepends=True)[1:]))
    (root / "f0").unlink()
    report = verify(Directory(root))
    assert [(each.name, each.kind) for each in report.remarks] == [("f1", "begins")]


@pytest.mark.parametrize("change", [{"first_offset": 50}, {"follows": 0}, {"partition": "0"}, {"last_offset": None}])
def test_offsets_that_cannot_be(tmp_path: Path, change: dict[str, object]) -> None:
    import orjson

    record = finish(tmp_path, "f", [1, 2])
    line = manifest_line(replace(record, partition=0, first_offset=0, last_offset=9, follows=-1), "f")
    assert read_manifest("m", line)[0].last_offset == 9
    with pytest.raises(InputError, match=r"m, line 1 has (offsets that cannot be|no )"):
        read_manifest("m", orjson.dumps(orjson.loads(line) | change) + b"\n")


def test_replay_is_in_the_order_of_the_offsets() -> None:
    late, early = file(0, 9, -1, when=500), file(10, 19, 9, when=100)
    other = file(0, 5, -1, partition=1, when=300)
    assert in_order([early, other, late]) == [other, late, early]
    assert ChainFault("a", "gap", "b") < ChainFault("b", "gap", "a")
