"""A partitioned log is archived: each of its messages once, whenever the process dies, and whoever reads it then."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
from collections import Counter
from pathlib import Path

import pytest

from qtools.errors import SinkError
from qtools.expressions.expression import compile_expression
from qtools.formats.encoders import make_format
from qtools.message import Batch
from qtools.to_file.archive import archived_partitions
from qtools.to_file.archive.archive import Archive, Encoding, Rotation
from qtools.to_file.archive.archived_partitions import ArchivedPartition, ArchivedPartitions
from qtools.to_file.archive.compression import SUFFIXES
from qtools.to_file.archive.file_record import FileRecord
from qtools.to_file.archive.layout import OFFSETS_NAME, Layout
from qtools.to_file.archive.manifest import DIRECTORY_MANIFEST, Manifested, append_manifest, read_manifest
from qtools.to_file.archive.output_chains import OutputChains
from qtools.to_file.archive.partitioner import Partitioner
from qtools.to_file.archive.workdir import WorkDir
from qtools.to_file.read.chains import check_chains
from to_file.archive.test_crashes import Crash, Faults, descriptors, faults, room  # noqa: F401 - fixtures
from to_file.house import NOW, unpacked
from to_file.log_partition import Log


class Process:
    """One process that archives to `output`."""

    def __init__(
        self, root: Path, name: str = "a", *, by_time: bool = False, compression: str = "gzip",
        template: str = OFFSETS_NAME + ".log", count: int | None = 30,
    ) -> None:  # fmt: skip
        self.output = root / "out"
        self.output.mkdir(exist_ok=True)
        self.wall = NOW
        layout = Layout(
            template, suffix=SUFFIXES[compression], datetime_format="%Y-%m-%d_%H", host="h",
            partition="hour=%H" if by_time else "", has_offsets=True,
        )  # fmt: skip
        self.dir = WorkDir(root / f"work-{name}")
        names = OutputChains(self.output, layout)
        self.sources = ArchivedPartitions(names.look_up, str(self.output))
        partitioner = Partitioner(layout, partitioned=by_time, when=compile_expression(".at") if by_time else None)
        self.archive = Archive(
            self.dir, self.output, layout, partitioner, Encoding("raw", make_format("raw"), compression),
            Rotation(count=count), self.listed, sources=self.sources, names=names, wall=lambda: self.wall,
        )  # fmt: skip
        self.archive.adopt()

    def listed(self, finished: FileRecord, again: bool) -> None:
        append_manifest(self.output, finished, unless_there=again)

    def write(self, batch: Batch) -> None:
        self.archive.write(batch)
        batch.finish()

    def close(self) -> None:
        self.archive.close()
        self.dir.close()


def manifested(output: Path) -> list[Manifested]:
    return [
        each
        for path in output.rglob(DIRECTORY_MANIFEST)
        for each in read_manifest(str(path.relative_to(output)), path.read_bytes())
    ]


def archived(output: Path) -> Counter[tuple[int, int]]:
    """How often each message, (partition, offset), is in the files; each file is what its manifest says."""
    found: Counter[tuple[int, int]] = Counter()
    files = manifested(output)
    names = {each.name for each in files}
    paths = {path for path in output.rglob("*.log*") if not path.name.startswith(".")}
    assert {str(path.relative_to(output)) for path in paths} == names
    for each in files:
        compression = each.compression
        lines = [json.loads(line) for line in unpacked((output / each.name).read_bytes(), compression).splitlines()]
        assert each.count == len(lines)
        assert {line["p"] for line in lines} == {each.partition}
        offsets = [line["o"] for line in lines]
        assert offsets == sorted(offsets)
        assert (offsets[0], offsets[-1]) == (each.first_offset, each.last_offset)
        found.update((line["p"], line["o"]) for line in lines)
    assert check_chains(files) == []
    return found


def logs() -> list[Log]:
    """Two partitions; the second begins late, and has holes, as a compacted one does."""
    return [Log(0, range(100)), Log(1, [each for each in range(20, 190) if each % 7 > 1])]


def all_of(some: list[Log]) -> Counter[tuple[int, int]]:
    return Counter((log.number, offset) for log in some for offset in log.offsets)


def life(process: Process, some: list[Log], count: int, chance: random.Random | None = None) -> None:
    """Archive until nothing is left; commits come some time later, or never."""
    readers = [log.read() for log in some]
    while taken := [batch for reader in readers if (batch := reader.take(count)) is not None]:
        process.write(Batch.joined(taken))
        for reader in readers:
            if chance is None or chance.random() < 0.4:
                reader.commit()
    process.archive.cycle()
    for reader in readers:
        reader.commit()


def archive_more(root: Path, log: Log, upto: int, *, by_time: bool = False) -> None:
    """One run, which archives all messages below the offset `upto` in files of 9, and commits."""
    process = Process(root, by_time=by_time, count=9)
    process.wall = NOW + upto
    reader = log.read()
    while (batch := reader.take(9)) is not None and batch.ids[-1] < upto:
        process.write(batch)
    process.archive.cycle()
    process.close()
    reader.commit()


def remove_from(output: Path, offset: int) -> list[tuple[Path, bytes]]:
    """Remove the files that begin at `offset` or later, and their lines in the manifest; returns what was there."""
    manifest = output / DIRECTORY_MANIFEST
    lines = [json.loads(line) for line in manifest.read_bytes().splitlines()]
    gone = [output / line["name"] for line in lines if line["first_offset"] >= offset]
    had = [(path, path.read_bytes()) for path in [*gone, manifest]]
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines if line["first_offset"] < offset))
    for path in gone:
        path.unlink()
    return had


def test_newest_files_that_were_lost_are_a_gap(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Somebody has removed them, or the archive is an older copy; the group goes on behind them."""
    output = tmp_path / "out"
    log = Log(0, [offset for offset in range(100) if offset % 10 != 3])  # holes are no gaps
    archive_more(tmp_path, log, 30)
    archive_more(tmp_path, log, 60)
    archive_more(tmp_path, log, 60)  # nothing is new
    assert check_chains(manifested(output)) == []
    had = remove_from(output, 40)
    assert check_chains(manifested(output)) == []  # nobody can see it yet
    archive_more(tmp_path, log, 90)
    assert "events, partition 0: offsets 40 to 59 were archived, and are not in the archive any more" in caplog.text
    (found,) = check_chains(manifested(output))
    assert (found.kind, found.told) == ("gap", "partition 0: offsets 40 to 59 are in no file, and were once")
    caplog.clear()
    archive_more(tmp_path, log, 100)
    assert not caplog.records  # it is said once, and verify keeps it
    assert len(check_chains(manifested(output))) == 1
    lines = (output / DIRECTORY_MANIFEST).read_bytes()
    for path, content in had:  # the files are found again
        path.write_bytes(content if path.name != DIRECTORY_MANIFEST else content + lines.split(b"\n", 3)[3])
    assert [each for each in check_chains(manifested(output)) if each.kind == "gap"] == []


def test_all_files_were_lost(tmp_path: Path) -> None:
    log = Log(0, range(7, 60))
    archive_more(tmp_path, log, 50)
    remove_from(tmp_path / "out", 0)
    archive_more(tmp_path, log, 60)
    (found,) = check_chains(manifested(tmp_path / "out"))
    assert found.told == "partition 0: offsets 34 to 42 are in no file, and were once"  # the newest file at least


@pytest.mark.parametrize("what", ["another archive", "a filter", "retention", "another note"])
def test_what_was_not_lost(tmp_path: Path, what: str, caplog: pytest.LogCaptureFixture) -> None:
    log = Log(0, range(60))
    archive_more(tmp_path, log, 30)
    if what == "another archive":
        tmp_path = tmp_path / "other"
        tmp_path.mkdir()
    elif what == "a filter":
        log.committed = 45  # what a filter leaves out is finished without a file
    elif what == "retention":
        log.offsets = log.offsets[50:]
    else:
        log.note = "q-to-file of another version"
    archive_more(tmp_path, log, 60)
    assert not caplog.records
    assert check_chains(manifested(tmp_path / "out")) == []


@pytest.mark.parametrize("when", ["before the write", "before the end"])
def test_messages_of_a_partition_that_was_taken_away_do_not_count(tmp_path: Path, when: str) -> None:
    """They were synced here, or came too late; another process archives them."""
    process = Process(tmp_path, count=None)
    lost, kept = Log(0, range(30)), Log(1, range(5, 12))
    readers = [lost.read(), kept.read()]
    sizes = sum(len(readers[1].body(offset)) for offset in kept.offsets)
    first, second, own = readers[0].take(20), readers[0].take(20), readers[1].take(20)
    assert first is not None
    assert second is not None
    assert own is not None
    process.write(Batch.joined([first, own]))
    if when == "before the write":
        lost.read()
    process.write(second)
    lost.read()
    process.close()
    assert archived(process.output) == all_of([kept])
    assert process.archive.skipped == 0
    assert process.archive.not_added == (30, sum(len(readers[0].body(offset)) for offset in lost.offsets))
    assert sum(each.bytes for each in manifested(process.output)) == sizes


@pytest.mark.parametrize("by_time", [False, True])
def test_names_and_manifests_tell_partition_and_offsets(tmp_path: Path, by_time: bool) -> None:
    process = Process(tmp_path, by_time=by_time, count=None)
    some = logs()
    life(process, some, 17)
    process.close()
    assert archived(process.output) == all_of(some)
    names = {str(path.relative_to(process.output)) for path in process.output.rglob("*.gz")}
    if by_time:
        assert "hour=09/events.0.00000000000000000001-00000000000000000097.log.gz" in names
    else:
        assert names == {
            "events.0.00000000000000000000-00000000000000000099.log.gz",
            "events.1.00000000000000000020-00000000000000000188.log.gz",
        }
    assert [log.committed for log in some] == [100, 189]


@pytest.mark.parametrize("by_time", [False, True])
@pytest.mark.parametrize("same_work", [True, False])
def test_it_dies_at_any_call(room: Path, faults: Faults, by_time: bool, same_work: bool) -> None:  # noqa: F811
    """Another process goes on, in the same work directory or in another one; the first one's is then cleared up."""
    for nth in itertools.count():
        root = room / str(nth)
        root.mkdir()
        process = Process(root, by_time=by_time)
        some = (
            [Log(0, range(25)), Log(1, range(3, 40, 2))] if by_time else [Log(0, range(50)), Log(1, range(3, 120, 2))]
        )
        before = descriptors()
        faults.arm(nth, Crash())
        with contextlib.suppress(Crash):
            life(process, some, 23, random.Random(nth))
            process.close()
        faults.nth = -1
        failed = faults.failed
        for left in descriptors() - before:
            with contextlib.suppress(OSError):
                os.close(int(left))
        if failed:
            process.dir.close()
        second = Process(root, "a" if same_work else "b", by_time=by_time)
        life(second, some, 19)
        second.close()
        if not same_work:
            assert archived(root / "out") == all_of(some), f"in its manifests, after {failed} failed as call {nth}"
            third = Process(root, "a", by_time=by_time)
            third.archive.settle()
            third.close()
        assert archived(root / "out") == all_of(some), f"after {failed} failed as call {nth}"
        assert not [path for path in (root / "work-a").iterdir() if path.name != "lock"]
        assert {path.name for path in (root / "out").rglob(".*")} <= {".offsets.lock"}
        if not failed:
            return


def test_what_has_no_name_yet_is_not_committed(tmp_path: Path) -> None:
    process = Process(tmp_path, count=None)
    log = Log(0, range(10, 60), begin=10)
    reader = log.read()
    process.write(reader.batch(range(10, 30)))
    reader.commit()
    assert log.committed == 10
    process.archive.cycle()
    reader.commit()
    assert log.committed == 30
    process.write(reader.batch(range(30, 40)))
    process.write(reader.batch(range(40, 60)))
    reader.commit()
    assert log.committed == 30
    process.close()
    reader.commit()
    assert log.committed == 60


def test_with_several_directories_the_oldest_open_file_counts(tmp_path: Path) -> None:
    process = Process(tmp_path, by_time=True, count=None)
    log = Log(0, range(10))
    reader = log.read()
    process.write(reader.batch(range(9)))
    process.archive.cycle("hour=08")
    reader.commit()
    assert log.committed == 1
    process.archive.cycle("hour=09")
    reader.commit()
    assert log.committed == 2
    process.close()
    reader.commit()
    assert log.committed == 9


def test_a_partition_that_was_taken_away(tmp_path: Path) -> None:
    """What is not named goes to its next reader; nothing of it gets into the archive from here."""
    first, second = Process(tmp_path, "a"), Process(tmp_path, "b")
    log = Log(0, range(100))
    old = log.read()
    first.write(old.batch(range(20)))
    life(second, [log], 50)
    assert old.is_lost
    first.write(old.batch(range(20, 25)))  # was read before
    first.archive.cycle()
    first.close()
    second.close()
    assert archived(first.output) == all_of([log])
    assert sorted(path.name for path in (tmp_path / "work-a").iterdir()) == ["lock"]


def test_a_process_that_slept_while_another_one_archived(tmp_path: Path) -> None:
    """It does not know that it has lost the partition. Its file is not named, and it reads the partition again."""
    first, second = Process(tmp_path, "a"), Process(tmp_path, "b")
    log = Log(0, range(100))
    asleep = log.read()
    first.write(asleep.batch(range(20)))
    life(second, [log], 50)
    asleep.is_lost = False
    first.archive.cycle()
    first.close()
    second.close()
    assert archived(first.output) == all_of([log])
    assert asleep.again == 1
    log.committed = 0
    asleep.commit()
    assert log.committed == 0  # nothing that is not archived is committed


def test_a_work_file_that_was_removed_is_read_again(tmp_path: Path) -> None:
    process = Process(tmp_path, count=None)
    log = Log(0, range(40))
    reader = log.read()
    process.write(reader.batch(range(20)))
    next((tmp_path / "work-a").glob("*.part")).unlink()
    process.write(reader.batch(range(20, 30)))
    process.write(reader.batch(range(30, 40)))  # was read before the partition was read again
    process.archive.cycle()
    assert reader.again == 1
    reader.commit()
    assert log.committed == 0
    life(process, [log], 10)
    process.close()
    assert archived(process.output) == all_of([log])


def test_a_topic_that_was_created_again(tmp_path: Path) -> None:
    process = Process(tmp_path)
    log = Log(0, range(50))
    life(process, [log], 50)
    process.close()
    later = Process(tmp_path)
    newer = Log(0, range(10)).read().batch(range(10))
    newer.messages.timestamps()[-1] += 2**62  # the last one is of another time
    with pytest.raises(SinkError, match="the topic was created again"):
        later.write(newer)
    life(later, [Log(0, range(10))], 10)  # the same messages are just left out
    assert later.sources.skipped == 10
    later.close()
    assert archived(later.output) == all_of([log])


@pytest.mark.parametrize("begin", [0, 50])
def test_a_topic_with_another_id_has_other_messages(tmp_path: Path, begin: int) -> None:
    """Whatever their timestamps are, and also where their offsets come after those of the archive."""
    process = Process(tmp_path)
    life(process, [Log(0, range(50), topic_id="one")], 50)
    process.close()
    assert {each.topic_id for each in manifested(process.output)} == {"one"}
    later = Process(tmp_path)
    with pytest.raises(SinkError, match="another topic of that name: the topic was created again"):
        later.write(Log(0, range(90), topic_id="two").read().batch(range(begin, begin + 40)))
    later.close()
    assert archived(later.output) == all_of([Log(0, range(50))])


def test_with_the_same_id_newer_messages_at_old_offsets_were_left_out_by_a_filter(tmp_path: Path) -> None:
    process = Process(tmp_path)
    life(process, [Log(0, [*range(5), *range(6, 10)], topic_id="one")], 50)
    process.close()
    later = Process(tmp_path)
    batch = Log(0, range(12), topic_id="one").read().batch(range(12))
    batch.messages.timestamps()[5] += 2**62
    later.write(batch)
    later.close()
    assert later.sources.skipped == 10
    assert archived(later.output) == all_of([Log(0, [*range(5), *range(6, 12)])])


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("<TOPIC>.log", "events.0.00000000000000000000-00000000000000000003.log"),
        ("%Y/<HOST>-<TOPIC>.%d.log", "2026/h-events.23.0.00000000000000000000-00000000000000000003.log"),
        ("p=<PARTITION>/<TOPIC>-<OFFSETS>", "p=0/events-00000000000000000000-00000000000000000003"),
    ],
)  # fmt: skip
def test_templates(tmp_path: Path, template: str, name: str) -> None:
    """Partition and offsets get into every name, and the next process finds its place by them."""
    log = Log(0, range(4))
    process = Process(tmp_path, template=template, compression="none")
    life(process, [log], 10)
    process.close()
    assert (process.output / name).exists()
    (manifest,) = process.output.rglob(DIRECTORY_MANIFEST)
    log.committed = 0
    second = Process(tmp_path, template=template, compression="none")
    life(second, [log], 10)
    assert second.sources.skipped == 4
    manifest.unlink()  # as if it had been killed before
    log.committed = 0
    third = Process(tmp_path, "b", template=template, compression="none")
    life(third, [log], 10)
    assert third.sources.skipped == 4


def test_each_hour_has_a_file_of_its_own(tmp_path: Path) -> None:
    process = Process(tmp_path, count=None)
    log = Log(0, range(20))
    reader = log.read()
    process.write(reader.batch(range(10)))
    process.wall += 3600
    process.write(reader.batch(range(10, 20)))
    process.close()
    assert len(manifested(process.output)) == 2
    assert archived(process.output) == all_of([log])


def test_a_process_waits_while_another_one_names_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qtools.to_file.archive.output_chains.LOCK_TIMEOUT", 0.0)
    process, other = Process(tmp_path, "a"), Process(tmp_path, "b")
    log = Log(0, range(5))
    process.write(log.read().batch(range(5)))
    assert other.archive._names is not None
    with other.archive._names.locked(), pytest.raises(BlockingIOError, match="another process has locked it"):
        process.archive.cycle()
    process.archive.settle()
    process.close()
    assert archived(process.output) == all_of([log])


def test_a_chain_that_was_not_looked_up_ends_before_the_first_offset() -> None:
    partition = ArchivedPartition(Log(0, [0]).read())
    assert (partition.known_end("d"), partition.end_of("d")) == (None, -1)
    partition.set_end("d", 0)
    assert (partition.known_end("d"), partition.end_of("d")) == (0, 0)


def test_forgotten_chains_are_looked_up_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archived_partitions, "MOST_REMEMBERED", 1)
    process = Process(tmp_path, by_time=True, count=4)
    some = logs()
    life(process, some, 17)
    process.close()
    assert archived(process.output) == all_of(some)  # each once, and each file says which one it follows
