"""Work files that another process removes, renames, replaces or cuts: nothing that was finished is lost unsaid."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from qtools.to_file.archive.archive import Rotation
from to_file.house import House, Place, batch


def part(house: House) -> Path:
    (found,) = house.work.glob("*.part")
    return found


def note(house: House) -> Path:
    (found,) = house.work.glob("*.note")
    return found


def replace(path: Path) -> None:
    path.unlink()
    path.write_bytes(b"another process's\n")


def remove_all(house: House) -> None:
    for path in house.work.iterdir():
        path.unlink()


# What another process may do, and what may stay in the work directory because it is not ours.
HARMS: dict[str, tuple[Callable[[House], object], list[str]]] = {
    "the file removed": (lambda house: part(house).unlink(), []),
    "the file renamed": (lambda house: part(house).rename(house.work / "mine"), ["mine"]),
    "the file replaced": (lambda house: replace(part(house)), ["part"]),
    "the note removed": (lambda house: note(house).unlink(), []),
    "the note replaced": (lambda house: replace(note(house)), ["note"]),
    "all files removed, the lock too": (remove_all, []),
    "the directory removed": (lambda house: shutil.rmtree(house.work), []),
    "the directory renamed": (lambda house: house.work.rename(house.work.with_name("old")), []),
    "the output removed too": (lambda house: (shutil.rmtree(house.work), shutil.rmtree(house.output)), []),
}


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
@pytest.mark.parametrize("harm", HARMS)
def test_everything_is_archived_once(
    tmp_path: Path, harm: str, compression: str, caplog: pytest.LogCaptureFixture
) -> None:
    do, stays = HARMS[harm]
    house = House(tmp_path, compression)
    archive = house.open()
    for first in range(0, 50, 10):
        archive.write(batch(range(first, first + 10)))
    do(house)
    archive.write(batch(range(50, 60)))
    archive.write(batch(range(60, 70)))
    house.close(archive)
    assert sorted(house.numbers()) == list(range(70))
    assert archive.lost == 0
    assert [name for name in house.in_work if name.rpartition(".")[2] not in stays] == []
    said = [line for line in caplog.messages if "written again" in line]
    assert len(said) == 1
    assert "another process removed or replaced" in said[0]


@pytest.mark.parametrize("harm", HARMS)
def test_it_is_noticed_though_nothing_comes(tmp_path: Path, harm: str, caplog: pytest.LogCaptureFixture) -> None:
    do, _ = HARMS[harm]
    house = House(tmp_path)
    archive = house.open()
    archive.write(batch(range(10)))
    do(house)
    archive.settle()
    assert "written again" not in caplog.text  # it looks once a second
    house.steady += 1
    archive.settle()
    assert "written again" in caplog.text
    house.dir.close()  # it dies here
    house.close(house.open())
    assert sorted(house.numbers()) == list(range(10))


@pytest.mark.parametrize("harm", HARMS)
def test_at_the_end_too(tmp_path: Path, harm: str) -> None:
    do, _ = HARMS[harm]
    house = House(tmp_path)
    archive = house.open()
    archive.write(batch(range(10)))
    do(house)
    house.close(archive)
    assert sorted(house.numbers()) == list(range(10))


@pytest.mark.parametrize("call", ["pwrite", "fdatasync", "ftruncate", "fsync", "link"])
def test_removed_between_any_two_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """The file goes just before, and just after, each call of its kind that a small run makes."""
    real = getattr(os, call)
    for nth in range(100):
        house = House(tmp_path / str(nth)) if not (tmp_path / str(nth)).mkdir() else None
        assert house is not None
        archive = house.open(rotation=Rotation(count=20))
        seen = 0

        def around(*words: object, nth: int = nth, house: House = house, **flags: object) -> object:
            nonlocal seen
            seen += 1
            before, after = seen - 1 == nth // 2 and nth % 2 == 0, seen - 1 == nth // 2 and nth % 2 == 1
            if before:
                remove_parts(house)
            done = real(*words, **flags)
            if after:
                remove_parts(house)
            return done

        with monkeypatch.context() as patched:
            patched.setattr(os, call, around)
            for first in range(0, 50, 10):
                archive.write(batch(range(first, first + 10)))
            house.close(archive)
        assert sorted(house.numbers()) == list(range(50)), nth
        assert archive.lost == 0
        if seen <= nth // 2:
            assert nth > 2
            return


def remove_parts(house: House) -> None:
    for path in house.work.glob("*.part"):
        path.unlink()


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_a_file_that_was_cut_is_put_aside_and_said_to_be_lost(
    tmp_path: Path, compression: str, caplog: pytest.LogCaptureFixture
) -> None:
    house = House(tmp_path, compression)
    archive = house.open()
    archive.write(batch(range(10)))
    cut = part(house)
    os.truncate(cut, 7)
    archive.write(batch(range(10, 20)))
    house.close(archive)
    assert list(house.numbers()) == list(range(10, 20))
    assert archive.lost == 10
    (said,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert f"{cut}, and 10 messages that were finished in the queue are lost with it" in said.getMessage()
    assert house.in_work == [f"{cut.name}.damaged"]
    assert (house.work / house.in_work[0]).stat().st_size == 7


def test_a_file_that_is_cut_before_its_end_is_not_filled_with_zeros(tmp_path: Path) -> None:
    house = House(tmp_path)
    archive = house.open()
    archive.write(batch(range(10)))
    os.truncate(part(house), 7)
    house.close(archive)
    assert house.names == []
    assert archive.lost == 10


def test_many_files_of_one_batch(tmp_path: Path) -> None:
    house = House(tmp_path, most_open=3)
    archive = house.open(partition="m=%M")
    places = [Place("a"), Place("b")]
    for place, minutes in zip(places, (range(5), range(5, 10)), strict=True):
        archive.write(batch([minute * 60_000 for minute in minutes], place))
    for path in house.work.glob("*.part"):
        path.unlink()
    archive.write(batch([minute * 60_000 + 1 for minute in range(5)], places[0]))
    house.close(archive)
    assert sorted(house.numbers()) == sorted(
        [minute * 60_000 for minute in range(10)] + [minute * 60_000 + 1 for minute in range(5)]
    )


def test_what_is_removed_again_and_again_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    house = House(tmp_path)
    archive = house.open()
    real, sent = os.fdatasync, batch(range(10))

    def remove(fd: int) -> None:
        real(fd)
        remove_parts(house)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fdatasync", remove)
        archive.write(sent)
        house.steady += 1
        for _ in range(3):
            with pytest.raises(OSError, match="removed as soon as they are written"):
                archive.cycle()
    archive.write(batch(range(10, 20)))
    house.close(archive)
    assert sorted(house.numbers()) == list(range(20))


def test_a_full_disk_while_it_is_copied_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    house = House(tmp_path)
    archive = house.open()
    archive.write(batch(range(10)))
    remove_parts(house)
    sent = batch(range(10, 20))

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        for _ in range(3):
            with pytest.raises(OSError, match="No space left"):
                archive.write(sent)
    archive.write(sent)
    house.close(archive)
    assert sorted(house.numbers()) == list(range(20))
    assert house.in_work == []


def test_a_work_directory_that_another_process_took_is_waited_for(tmp_path: Path) -> None:
    house = House(tmp_path)
    archive, ours = house.open(), house.dir
    archive.write(batch(range(10)))
    house.work.rename(tmp_path / "old")
    other = House(tmp_path)
    second = other.open()
    sent = batch(range(10, 20))
    with pytest.raises(OSError, match=r"was removed or replaced, and is in use by process \d+ on"):
        archive.write(sent)
    other.close(second)
    archive.write(sent)
    archive.close()
    ours.close()
    assert sorted(house.numbers()) == list(range(20))


def test_what_was_being_named_when_it_went_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A run died while it gave a file its name, and both names are gone when the next one begins."""
    house = House(tmp_path)
    archive = house.open()
    archive.write(batch(range(10)))
    ((_, opened),) = archive._open.items()
    opened.file.seal()
    opened.file.end()
    opened.file.name(0)
    house.dir.close()  # it dies here
    remove_parts(house)
    house.close(house.open())
    assert "is gone, and so is" in caplog.text
    assert "the name it was being given" in caplog.text
