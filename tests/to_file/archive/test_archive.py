"""When files are closed, what they are called, and where messages of another time or topic go."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import pytest

from qtools.expressions.expression import compile_expression
from qtools.message import Batch
from qtools.to_file.archive.archive import Rotation
from qtools.to_file.archive.file_record import read_beside
from to_file.house import NOW, House, Place, batch, check, unpacked

HOUR = 3600.0


def test_a_file_appears_when_it_is_closed_and_not_before(tmp_path: Path) -> None:
    house = House(tmp_path)
    archive = house.open()
    archive.write(batch(range(5)))
    assert house.names == []
    assert [name.rpartition(".")[2] for name in house.in_work] == ["note", "part"]
    archive.cycle()
    assert house.names == ["events.2026-11-23_08.log"]
    assert house.in_work == []
    archive.write(batch(range(5, 9)))
    house.close(archive)
    assert house.names == ["events-000001.2026-11-23_08.log", "events.2026-11-23_08.log"]
    assert sorted(house.numbers()) == list(range(9))


def test_no_messages_no_file(tmp_path: Path) -> None:
    house = House(tmp_path)
    archive = house.open()
    archive.cycle()
    house.close(archive)
    assert house.names == house.in_work == []


def test_rotation_by_size_counts_what_is_on_disk(tmp_path: Path) -> None:
    house = House(tmp_path, "gzip")
    archive = house.open(rotation=Rotation(size=2000))
    for first in range(0, 10_000, 100):
        archive.write(batch(range(first, first + 100)))
    house.close(archive)
    sizes = [(house.output / name).stat().st_size for name in house.names]
    assert len(sizes) > 3
    assert all(2000 <= size < 2600 for size in sorted(sizes)[1:])  # one sync more than asked for, at most
    assert sorted(house.numbers()) == list(range(10_000))


def test_rotation_by_age_and_count(tmp_path: Path) -> None:
    house = House(tmp_path)
    archive = house.open(rotation=Rotation(age=60, count=10))
    archive.write(batch(range(4)))
    house.steady += 59
    archive.settle()
    assert house.names == []
    house.steady += 1
    archive.settle()
    assert len(house.names) == 1
    archive.write(batch(range(4, 20)))
    archive.settle()
    assert len(house.names) == 2
    house.close(archive)
    assert sorted(house.numbers()) == list(range(20))


def test_the_clock_names_and_closes_files(tmp_path: Path) -> None:
    house = House(tmp_path)
    archive = house.open()
    archive.write(batch(range(3)))
    house.wall += HOUR
    archive.write(batch(range(3, 5)))
    assert house.names == ["events.2026-11-23_08.log"]
    house.close(archive)
    assert house.names == ["events.2026-11-23_08.log", "events.2026-11-23_09.log"]


def test_a_clock_that_jumps_overwrites_nothing(tmp_path: Path) -> None:
    house = House(tmp_path)
    archive = house.open(rotation=Rotation(age=600))
    for nth, jump in enumerate([0, HOUR, -HOUR, HOUR, -HOUR, -9 * HOUR, 10 * HOUR]):
        house.wall += jump
        archive.write(batch(range(nth * 10, nth * 10 + 10)))
    house.close(archive)
    assert sorted(house.numbers()) == list(range(70))
    # 8, 9, 8, 9, 8, 23 the day before, 9
    assert house.names == [
        "events-000001.2026-11-23_08.log",
        "events-000001.2026-11-23_09.log",
        "events-000002.2026-11-23_08.log",
        "events-000002.2026-11-23_09.log",
        "events.2026-11-22_23.log",
        "events.2026-11-23_08.log",
        "events.2026-11-23_09.log",
    ]


def test_somebody_elses_file_stays(tmp_path: Path) -> None:
    house = House(tmp_path)
    taken = house.output / "events.2026-11-23_08.log"
    taken.write_bytes(b"mine")
    (house.output / "events-000001.2026-11-23_08.log").symlink_to("/nowhere")
    archive = house.open()
    archive.write(batch(range(3)))
    house.close(archive)
    assert taken.read_bytes() == b"mine"
    assert [finished.relative for finished in house.told] == ["events-000002.2026-11-23_08.log"]


def test_partitions_by_the_brokers_time(tmp_path: Path) -> None:
    house = House(tmp_path)
    archive = house.open("<TOPIC><REV>", partition="hour=%H")
    archive.write(batch([0, 1, 3_600_000, 2, 7_200_000]))
    house.close(archive)
    assert house.names == ["hour=08/events", "hour=09/events", "hour=10/events"]
    assert sorted(house.numbers()) == [0, 1, 2, 3_600_000, 7_200_000]


def test_partitions_by_a_messages_own_time_and_late_ones_apart(tmp_path: Path) -> None:
    def body(number: int) -> bytes:
        return b'{"at": %d}' % (NOW + number) if number >= 0 else b"no JSON"

    house = House(tmp_path)
    archive = house.open("<TOPIC><REV>", partition="hour=%H", when=compile_expression(".at"))
    archive.write(batch([0, 3600, 1], body=body))
    archive.cycle()
    archive.write(batch([2, -1], body=body))  # late: that hour's file is closed
    house.close(archive)
    # Message -1 came a millisecond before eight, and tells no time of its own.
    assert house.names == ["hour=07/events", "hour=08/events", "hour=08/events-000001", "hour=09/events"]
    assert house.read("hour=08/events") == body(0) + b"\n" + body(1) + b"\n"
    assert house.read("hour=08/events-000001") == body(2) + b"\n"
    assert house.partitioner.timeless == 1


def test_topics_have_files_of_their_own_in_the_order_they_came(tmp_path: Path) -> None:
    house = House(tmp_path)
    archive = house.open("<TOPIC><REV>")
    one, two = Place("one"), Place("two")
    archive.write(Batch.joined([batch([1], one), batch([2], two), batch([3], one), batch([4], two)]))
    house.close(archive)
    assert {name: house.read(name) for name in house.names} == {
        "one": b"000001\n000003\n",
        "two": b"000002\n000004\n",
    }
    assert {finished.topic for finished in house.told} == {"one", "two"}


def test_no_more_files_are_open_than_allowed_even_within_a_batch(tmp_path: Path) -> None:
    house = House(tmp_path, "gzip", most_open=5)
    archive = house.open("<TOPIC><REV>", partition="%H%M")
    before = len(os.listdir("/proc/self/fd"))
    numbers = [60_000 * minute for minute in range(120)]
    archive.write(batch(numbers))
    assert len(os.listdir("/proc/self/fd")) - before <= 2 * 120
    archive.settle()
    assert archive.open == 5
    assert len(os.listdir("/proc/self/fd")) - before == 2 * 5
    archive.write(batch([number + 1 for number in numbers[-5:]]))
    house.close(archive)
    assert len(house.names) == 120
    assert sorted(house.numbers()) == sorted(numbers + [number + 1 for number in numbers[-5:]])


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
@pytest.mark.parametrize("format", ["envelope", "msgpack", "length32"])
def test_formats_that_keep_any_body(tmp_path: Path, format: str, compression: str) -> None:
    from qtools.formats.envelope import EnvelopeSplitter, MsgpackSplitter
    from qtools.formats.lines import LengthSplitter

    bodies = [b"a\nb\n", b"\xff\x00\n", b"\n", "schön\n".encode()]
    house = House(tmp_path, compression)
    archive = house.open(format=format)
    archive.write(batch(range(2), body=bodies.__getitem__))
    archive.write(batch(range(2, 4), body=bodies.__getitem__))
    house.close(archive)
    splitter = {"envelope": EnvelopeSplitter, "msgpack": MsgpackSplitter, "length32": LengthSplitter}[format]()
    assert splitter.feed(house.read(house.names[0])) == bodies


def test_another_file_system(tmp_path: Path) -> None:
    shm = Path("/dev/shm")
    if not shm.is_dir() or shm.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system at /dev/shm")
    import shutil
    import tempfile

    work = Path(tempfile.mkdtemp(dir=shm))
    try:
        house = House(tmp_path)
        house.work = work
        archive = house.open()
        archive.write(batch(range(100)))
        (house.output / "events.2026-11-23_08.log").write_bytes(b"taken")
        house.close(archive)
        assert house.names == ["events-000001.2026-11-23_08.log", "events.2026-11-23_08.log"]
        (finished,) = house.told
        check(finished, finished.path.read_bytes().splitlines(keepends=True))
        assert sorted(path.name for path in house.output.iterdir()) == house.names  # no draft stays
        assert house.in_work == []
    finally:
        shutil.rmtree(work)


def test_spooled_files_have_beside_them_what_is_known(tmp_path: Path) -> None:
    house = House(tmp_path, "zstd", spooled=True)
    archive = house.open()
    archive.write(batch(range(10)))
    house.close(archive)
    (finished,) = house.told
    assert read_beside(finished.path) == finished


def test_a_torn_tail_is_cut(tmp_path: Path) -> None:
    house = House(tmp_path, "gzip")
    archive = house.open()
    archive.write(batch(range(10)))
    house.dir.close()  # it dies here
    (part,) = house.work.glob("*.part")
    with part.open("ab") as file:
        file.write(b"never synced")
    house.close(house.open())
    assert list(house.numbers()) == list(range(10))


@pytest.mark.parametrize("harm", ["short", "gone", "note"])
def test_what_was_synced_and_is_gone_is_said_and_the_rest_kept(
    tmp_path: Path, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    house = House(tmp_path)
    archive = house.open()
    archive.write(batch(range(10)))
    house.dir.close()
    (part,), (note,) = house.work.glob("*.part"), house.work.glob("*.note")
    if harm == "short":
        part.write_bytes(part.read_bytes()[:20])
    elif harm == "gone":
        part.unlink()
    else:
        note.write_bytes(b"\0" * note.stat().st_size)
    house.close(house.open())
    assert house.names == []
    assert sorted(house.in_work) == sorted(
        f"{path.name}.damaged" for path in (part, note) if harm != "gone" or path is note
    )
    assert f"{part} is damaged" in caplog.text
    house.close(house.open())  # said once
    assert caplog.text.count("is damaged") == 1


def test_zcat_shows_a_growing_file(tmp_path: Path) -> None:
    house = House(tmp_path, "gzip")
    archive = house.open()
    for first in (0, 10, 20):
        archive.write(batch(range(first, first + 10)))
        (part,) = house.work.glob("*.part")
        shown = zlib.decompressobj(31).decompress(part.read_bytes())
        assert shown == b"".join(b"%06d\n" % number for number in range(first + 10))
    house.close(archive)
    assert unpacked((house.output / house.names[0]).read_bytes(), "gzip").count(b"\n") == 30


def test_taking_over_what_was_left_is_nothing_about_our_own_files(tmp_path: Path) -> None:
    house = House(tmp_path)
    archive = house.open()
    archive.write(batch(range(10)))
    house.dir.close()  # it dies here
    second = house.open()  # takes that over
    second.write(batch(range(10, 20)))
    assert second.adopt() == 0  # as after a disk that failed the first time; the file of before is closed already
    second.write(batch(range(20, 30)))
    house.close(second)
    assert sorted(house.numbers()) == list(range(30))
    assert second.recovered == 1
