"""The files of a log's partitions: what is not there, or twice, is found by the offsets that they follow."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from qtools.errors import InputError
from qtools.to_file.archive.manifest import Manifested, append_manifest, manifest_line, read_manifest
from qtools.to_file.read.chains import ChainFault, check_chains
from qtools.to_file.read.replay_plan import ReplayPlan, ReplayPosition, TimeSpan, in_order, make_plan
from qtools.to_file.read.verify import ArchiveListing
from qtools.to_file.stores.object_store import StoredObject

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


# ── before a replay ──


def plan(files: list[Manifested], span: TimeSpan = TimeSpan(), more: tuple[str, ...] = ()) -> ReplayPlan:  # noqa: B008 - it never changes
    names = [*(each.name for each in files), *more]
    listing = ArchiveListing(
        {name: StoredObject(name, 1, "") for name in names}, {each.name: each for each in files}
    )  # fmt: skip
    return make_plan(listing, span, "", ReplayPosition())


HOLE = [file(0, 9, -1, when=10), file(10, 19, 9, when=20), file(30, 39, 29, when=40)]


def test_replay_refuses_an_archive_with_a_gap() -> None:
    with pytest.raises(InputError, match=r"not whole: events.0.30-39.log: partition 0: offsets 20 to 29 are in"):
        plan(HOLE)


def test_what_is_before_a_gap_or_behind_it_can_be_replayed() -> None:
    assert [each.first_offset for each in plan(HOLE, TimeSpan(until=30)).files] == [0, 10]
    assert [each.first_offset for each in plan(HOLE, TimeSpan(since=30)).files] == [30]
    with pytest.raises(InputError, match="not whole"):
        plan(HOLE, TimeSpan(since=15))


def test_replay_notes_that_the_oldest_files_are_gone() -> None:
    made = plan(HOLE[1:2])
    assert len(made.files) == 1
    assert made.notes == [
        "events.0.10-19.log: partition 0: the file up to offset 9, which it follows, is not there, nor are earlier ones"
    ]


@pytest.mark.parametrize(
    "name", [f"events.0.{10:020d}-{19:020d}.log.gz", f"dt=1/events.0.{10:020d}.jsonl", f"events-{10:020d}-{19:020d}"]
)
def test_replay_refuses_files_of_a_log_that_are_in_no_manifest(name: str) -> None:
    with pytest.raises(InputError, match=f"not whole: 2 files with messages in no manifest, among them {name} "):
        plan(WHOLE, more=(name, f"{name}.too"))


def test_other_files_are_only_noted() -> None:
    assert plan(WHOLE, more=("README", "events.20261123T080001Z.8c3ae85a2f04b6b8.log")).notes == [
        "2 files in no manifest left out, among them README"
    ]
