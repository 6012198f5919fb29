"""When a partition's time is over, whatever its length; and that what is not complete outlives the process."""

from __future__ import annotations

from pathlib import Path

import pytest

from qtools.errors import StartError, UsageError
from qtools.to_file.archive.file_record import beside
from qtools.to_file.archive.layout import Layout
from qtools.to_file.archive.partitioner import Partitioner
from qtools.to_file.archive.partitions import Partitions, end_of, refuse_recurring
from qtools.to_file.sinks.spool import Spool
from to_file.house import NOW, batch
from to_file.spool import finish
from to_file.store_kinds import Directory

DAY = 86400


def layout(partition: str) -> Layout:
    return Layout("<TOPIC>", partition=partition)


@pytest.mark.parametrize(
    ("partition", "end"),
    [
        ("%Y/%m/%d/%H%M%S", NOW + 1),
        ("%Y/%m/%d/%H%M", NOW + 60),
        ("dt=%Y-%m-%d/hour=%H", NOW + 3600),
        ("%F", NOW + 16 * 3600),
        ("%Y-%m", NOW + 16 * 3600 + 7 * DAY),  # the 1st of December
        ("%Y", NOW + 16 * 3600 + 38 * DAY),
    ],
)
def test_when_its_time_is_over(partition: str, end: float) -> None:
    made = layout(partition)
    assert end_of(made, made.partition(int(NOW * 1e9))) == end


@pytest.mark.parametrize("partition", ["hour=%H", "%d", "%A", "%m/%d", "always"])
def test_partitions_that_come_again_are_refused(partition: str) -> None:
    with pytest.raises(UsageError, match="do not come again"):
        refuse_recurring(layout(partition), NOW)


@pytest.mark.parametrize("partition", ["%Y-%m-%d", "%Y/%j/%H", "%G-%V", "%s"])
def test_partitions_that_do_not_come_again(partition: str) -> None:
    refuse_recurring(layout(partition), NOW)


def test_what_is_over_and_what_is_kept(tmp_path: Path) -> None:
    hours = layout("%Y-%m-%d_%H")
    first, second = hours.partition(int(NOW * 1e9)), hours.partition(int((NOW + 3600) * 1e9))
    partitions = Partitions(hours, 600, tmp_path / "kept")
    partitions.begin(first)
    partitions.begin(second)
    partitions.begin(first)
    assert partitions.over(NOW + 3600 + 599) == []
    assert partitions.over(NOW + 3600 + 600) == [(first, NOW + 4200)]
    after = Partitions(hours, 600, tmp_path / "kept")
    after.load()
    assert [name for name, _ in after.over(NOW + DAY)] == [first, second]
    after.mark(first)
    again = Partitions(hours, 600, tmp_path / "kept")
    again.load()
    assert [name for name, _ in again.over(NOW + DAY)] == [second]


def test_damage_is_said(tmp_path: Path) -> None:
    (tmp_path / "kept").write_bytes(b"[1")
    with pytest.raises(StartError, match="kept is damaged"):
        Partitions(layout("%F"), 0, tmp_path / "kept").load()


def test_a_batch_with_more_times_than_are_remembered(tmp_path: Path) -> None:
    """Times that are taken from the messages may be any."""
    hours = layout("%Y-%m-%d_%H")
    partitions = Partitions(hours, 600, tmp_path / "kept")
    minutes = batch(range(0, 60_000 * 12_000, 60_000))
    for _, partition, _ in Partitioner(hours, partitioned=True).sort(minutes):
        partitions.begin(partition)
    assert len(partitions.over(NOW + DAY * 365)) == 200


async def test_a_file_in_a_directory_of_its_partition_waits_in_the_spool(tmp_path: Path) -> None:
    spool = Spool(Directory(tmp_path / "archive").open(), tmp_path / "spool")
    made = finish(tmp_path / "spool" / "dt=2026-11-24" / "events", "file", [1])
    assert spool.has("dt=2026-11-24")
    assert not spool.has("dt=2026-11-25")
    made.path.unlink()
    beside(made.path).unlink()
    assert not spool.has("dt=2026-11-24")
