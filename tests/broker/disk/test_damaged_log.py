"""Damage to SQLite's write-ahead log, and damage at any place: reported, and the rest delivered."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from qtools.broker.disk.database import FILE
from qtools.broker.disk.integrity import opening
from qtools.broker.disk.integrity.damage import DIRECTORY
from qtools.broker.disk.integrity.wal import damage_of_log
from qtools.broker.disk.store import DurableStore
from qtools.errors import StartError
from tests.broker.crash.test_small_disks import take_all
from tests.broker.disk.damaged import PAGE, judge, make_database, overwrite
from tests.broker.disk.test_start_fails import disk
from tests.broker.disk.world import World

__all__ = ["disk"]  # a fixture


async def make_crashed(room: Path) -> tuple[Path, set[bytes]]:
    """A directory as kill -9 leaves it, with a log; and the bodies."""
    world = World(room)
    await world.channel("t", "c")
    for _ in range(20):
        world.publish("t", 5, 300)
        await world.quiet()
    copy = room / "crashed"
    shutil.copytree(world.directory, copy)
    bodies = set(world.accounts["t", "c"].owed)
    world.close()
    return copy, bodies


@pytest.mark.parametrize("place", [5, 20, 32 + 3, 32 + 12, 32 + 18, 500, 0.3, 0.6, 0.9])
async def test_damage_in_the_log(place: float, tmp_path: Path) -> None:
    directory, bodies = await make_crashed(tmp_path)
    log = directory / f"{FILE}-wal"
    size = log.stat().st_size
    at = int(place if place > 1 else size * place)
    overwrite(log, at, bytes([log.read_bytes()[at] ^ 0x10]))
    before = log.read_bytes()
    assert damage_of_log(log) != ""
    assert await judge(directory, bodies, set()) == "reported"
    (kept,) = (directory / DIRECTORY).glob(f"{FILE}-wal-*")
    assert kept.read_bytes() == before


# Of the log's size: none to open the database, too little to write the log back, enough for that and for no copy.
@pytest.mark.parametrize("room", [0.0, 0.05, 0.5])
async def test_a_damaged_log_is_left_as_it_is_on_a_disk_without_room_for_a_copy(
    room: float, tmp_path: Path, disk: Path
) -> None:
    """SQLite would discard what is behind the damage, and delete the log, when it closes the database."""
    source, bodies = await make_crashed(tmp_path)
    directory = disk / "broker"
    shutil.copytree(source, directory, ignore=shutil.ignore_patterns("reserve", "*-shm"))
    log = directory / f"{FILE}-wal"
    size = log.stat().st_size
    overwrite(log, size // 2, bytes([log.read_bytes()[size // 2] ^ 0x10]))
    before = log.read_bytes()
    files = {each.name for each in directory.iterdir()}
    (disk / "room").write_bytes(bytes(round(size * room)))
    with (disk / "other").open("wb") as other:
        take_all(other.fileno())
    (disk / "room").unlink()
    for _ in range(2):
        with pytest.raises(StartError, match=r"; it was left as it is") as refused:
            DurableStore(directory)
        assert not room or "a copy of it cannot be kept: no space left on device" in str(refused.value)
        assert log.read_bytes() == before
        assert {each.name for each in directory.iterdir()} - {f"{FILE}-shm"} == files
    (disk / "other").unlink()
    assert await judge(directory, bodies, set()) == "reported"
    (kept,) = (directory / DIRECTORY).glob(f"{FILE}-wal-*")
    assert kept.read_bytes() == before


async def test_a_log_that_ends_within_a_transaction_is_no_damage(tmp_path: Path) -> None:
    directory, bodies = await make_crashed(tmp_path)
    log = directory / f"{FILE}-wal"
    assert damage_of_log(log) == ""
    data = log.read_bytes()
    log.write_bytes(data + bytes(3 * (PAGE + 24)))  # allocated, and not written before the power was gone
    assert damage_of_log(log) == ""
    assert await judge(directory, bodies, set()) == "whole"
    assert not (directory / DIRECTORY).exists()


def flip(path: Path, chance: random.Random) -> None:
    """Damage at one place: a bit, a byte, some bytes, a sector or a page."""
    data = bytearray(path.read_bytes())
    place = chance.randrange(100, len(data))
    kind = chance.random()
    if kind < 0.3:
        data[place] ^= 1 << chance.randrange(8)
    elif kind < 0.6:
        place = place // PAGE * PAGE + chance.randrange(64)  # where pages have their structure
        data[place] ^= chance.randrange(1, 256)
    elif kind < 0.8:
        data[place : place + 16] = chance.randbytes(len(data[place : place + 16]))
    elif kind < 0.9:
        place = place // 512 * 512
        data[place : place + 512] = bytes(512)
    else:
        place = place // PAGE * PAGE
        data[place : place + PAGE] = bytes(len(data[place : place + PAGE]))
    path.write_bytes(data)


async def try_seeds(seeds: range, room: Path) -> dict[str, int]:
    directory, left, finished = await make_database(room)
    outcomes: dict[str, int] = {}
    for seed in seeds:
        copy = room / f"copy-{seed}"
        shutil.copytree(directory, copy)
        flip(copy / FILE, random.Random(seed))
        try:
            outcome = await judge(copy, left, finished)
        except BaseException as error:
            raise AssertionError(f"seed {seed}: {type(error).__name__}: {error}") from error
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
        shutil.rmtree(copy)
    return outcomes


@pytest.mark.parametrize("looks_through", [True, False], ids=["small", "large"])
async def test_damage_is_reported_and_the_rest_delivered(
    looks_through: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not looks_through:  # as with a database that is too large to be looked through at each start
        monkeypatch.setattr(opening, "CHECK_WHOLE", 0)
        monkeypatch.setattr(opening, "MOST_ROWS", 0)
    outcomes = await try_seeds(range(15), tmp_path)
    assert outcomes["reported"] > 0


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("looks_through", [True, False], ids=["small", "large"])
async def test_damage_at_hundreds_of_places(
    looks_through: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not looks_through:
        monkeypatch.setattr(opening, "CHECK_WHOLE", 0)
    outcomes = await try_seeds(range(1000, 1400), tmp_path)
    assert outcomes["reported"] > 50
    assert outcomes.get("refused", 0) < 40  # the file's head, and the schema
