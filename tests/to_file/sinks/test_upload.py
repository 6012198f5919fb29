"""What lies in the spool comes into the store, each file once, whatever dies meanwhile; only then is it deleted."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from harness.seaweed import Seaweed
from harness.shell import Running, Shell
from harness.waiting import wait_until

from qtools.errors import ObjectDiffers
from qtools.to_file.archive.file_record import beside, write_beside
from qtools.to_file.archive.manifest import OBJECT_MANIFEST, read_manifest
from qtools.to_file.read.verify import Verifier, read_archive
from qtools.to_file.sinks import upload as upload_module
from qtools.to_file.sinks.upload import Uploader, object_name, upload
from qtools.to_file.stores.digests import SINGLE_PUT
from qtools.to_file.stores.object_store import ObjectStore, Outcome

from ..spool import DAY, bodies, finish
from ..store_kinds import Bucket, Place

PROGRAM = Path(__file__).parents[1] / "spool.py"
TESTS = Path(__file__).parents[2]


@asynccontextmanager
async def running(store: ObjectStore, spool: Path) -> AsyncIterator[Uploader]:
    uploader = Uploader(store, spool)
    task = asyncio.create_task(uploader.run())
    await asyncio.sleep(0)
    yield uploader
    uploader.close()
    await asyncio.wait_for(task, 20)


def start(shell: Shell, place: Place, spool: Path) -> Running:
    """The uploader as a process."""
    environ = place.server.environ if isinstance(place, Bucket) else {}
    python = f"{TESTS}:{TESTS.parent}"
    return shell.start(
        "", place.url, place.endpoint, spool, argv=[sys.executable, "-m", "to_file.spool"],
        environ=environ | {"PYTHONPATH": python},
    )  # fmt: skip


def data_names(place: Place) -> list[str]:
    return [name for name in place.names() if not name.endswith(OBJECT_MANIFEST)]


def left(spool: Path) -> list[str]:
    return sorted(str(path.relative_to(spool)) for path in spool.rglob("*") if path.is_file())


def test_the_name_follows_from_the_contents(tmp_path: Path) -> None:
    one = finish(tmp_path, "a", [3, 1, 2])
    assert object_name(one) == f"dt=2026-11-24/events.20261124T080001Z.{one.ids_hash}.jsonl.gz"
    two = finish(tmp_path, "b", [2, 3, 1], attempts=2)
    assert two.sha256 != one.sha256
    assert object_name(two) == object_name(one)
    assert object_name(finish(tmp_path, "c", [1, 2, 3, 4])) != object_name(one)
    assert object_name(finish(tmp_path, "c", [1, 2, 3], directory="")) == object_name(one).rpartition("/")[2]
    assert object_name(replace(one, format="raw", compression="none")).endswith(f"{one.ids_hash}.log")


async def test_files_come_into_the_store_and_leave_the_spool(place: Place, tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    early = [finish(spool, f"early-{n}", [n], compression="none") for n in range(3)]
    contents = {object_name(each): each.path.read_bytes() for each in early}
    async with running(place.open(), spool) as uploader:
        assert uploader.waiting == 3
        late = finish(spool / "deeper", "late", list(range(10, 500)))
        contents[object_name(late)] = late.path.read_bytes()
        uploader.add(late)
        uploader.add(late)
        await asyncio.wait_for(uploader.wait_empty(), 20)
        assert (uploader.uploaded, uploader.existed, uploader.stuck, uploader.waiting) == (4, 0, 0, 0)
        assert uploader.uploaded_bytes == sum(map(len, contents.values()))
        assert uploader.last_error == ""
    assert {name: place.read(name) for name in data_names(place)} == contents
    assert left(spool) == []
    (known,) = read_manifest(
        object_name(late) + OBJECT_MANIFEST, place.read(object_name(late) + OBJECT_MANIFEST)
    )  # fmt: skip
    assert known.name == object_name(late)
    assert (known.count, known.size, known.sha256) == (490, late.size, late.sha256)
    assert known.first_timestamp == DAY + 10_000_000_000
    assert len(place.names()) == 8


async def test_a_file_of_which_nothing_is_known_is_named(
    place: Place, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spool = tmp_path / "spool"
    good, bad = finish(spool, "good", [1, 2]), finish(spool / "deeper", "bad", [3])
    beside(bad.path).unlink()
    (spool / ".work").mkdir()
    (spool / ".work" / "growing.part").write_bytes(b"not whole yet")
    async with running(place.open(), spool) as uploader:
        await asyncio.wait_for(uploader.wait_empty(), 20)
        assert (uploader.uploaded, uploader.stuck) == (1, 1)
    assert data_names(place) == [object_name(good)]
    assert f"{bad.path} is not uploaded: .{bad.path.name}.finished, the record of the file, was removed" in caplog.text


async def test_what_is_there_already_makes_no_second_object(place: Place, tmp_path: Path) -> None:
    store = place.open()
    finished = finish(tmp_path, "a", [1, 2, 3])
    assert await upload(store, finished) == "created"
    assert await upload(store, finished) == "existed"
    place.remove(object_name(finished) + OBJECT_MANIFEST)  # as a crash between the two leaves it
    assert await upload(store, finished) == "existed"
    assert place.names() == [object_name(finished), object_name(finished) + OBJECT_MANIFEST]


@pytest.mark.parametrize("format", ["raw", "envelope", "msgpack", "length32"])
@pytest.mark.parametrize("crashed", [False, True], ids=["manifest", "no-manifest"])
async def test_messages_that_come_again_make_no_second_object(
    place: Place, tmp_path: Path, format: str, crashed: bool
) -> None:
    store = place.open()
    first = finish(tmp_path, "a", [1, 2, 3], format=format)
    again = finish(tmp_path, "b", [2, 3, 1], format=format, attempts=2, compression="gzip")
    name, content = object_name(first), first.path.read_bytes()
    await upload(store, first)
    if crashed:
        place.remove(name + OBJECT_MANIFEST)
    assert first.sha256 != again.sha256
    assert await upload(store, again, again.path.read_bytes()) == "existed"
    assert place.names() == [name, name + OBJECT_MANIFEST]
    assert place.read(name) == content
    assert json.loads(place.read(name + OBJECT_MANIFEST))["sha256"] == first.sha256  # of what is there


async def test_a_name_that_is_taken_stops_nothing_else(
    place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr("qtools.to_file.sinks.upload.logs.log", lambda level, text: said.append(text))
    spool = tmp_path / "spool"
    taken, good = finish(spool, "taken", [1, 2]), finish(spool, "good", [3])
    place.write(object_name(taken), b"something else")
    damaged = finish(spool, "damaged", [4])
    damaged.path.write_bytes(b"altered since")
    unknown = finish(spool, "unknown", [5])
    (spool / ".unknown.finished").write_text("{")
    async with running(place.open(), spool) as uploader:
        await asyncio.wait_for(uploader.wait_empty(), 20)
        assert (uploader.uploaded, uploader.stuck) == (1, 3)
    assert sorted(path.name for path in spool.iterdir() if path.name[0] != ".") == ["damaged", "taken", "unknown"]
    assert object_name(good) in place.names()
    assert place.read(object_name(taken)) == b"something else"
    assert len(said) == 3
    for path, why in (
        (taken.path, f"{place.url}/{object_name(taken)}: is there already, with other contents: 14 bytes"),
        (damaged.path, f"{damaged.path} was changed since it was closed"),
        (unknown.path, "is not JSON"),
    ):
        assert any(text.startswith(f"{path} is not uploaded: ") and why in text for text in said), said
    with pytest.raises(ObjectDiffers):
        await upload(place.open(), taken)


async def test_a_file_without_what_is_known_of_it_is_left_alone(place: Place, tmp_path: Path) -> None:
    finished = finish(tmp_path, "a", [1])
    (tmp_path / ".a.finished").rename(tmp_path / ".b.finished")
    async with running(place.open(), tmp_path) as uploader:
        await asyncio.wait_for(uploader.wait_empty(), 20)
    assert left(tmp_path) == [".b.finished", "a"]
    write_beside(finished)
    async with running(place.open(), tmp_path) as uploader:
        await asyncio.wait_for(uploader.wait_empty(), 20)
        assert uploader.uploaded == 1


async def test_a_name_that_is_used_again_at_once(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name of an uploaded file is free when it is deleted: the archive may take it before the uploader goes on."""
    spool = tmp_path / "spool"
    loop = asyncio.get_running_loop()
    real = upload_module._forget
    async with running(place.open(), spool) as uploader:

        def forget(path: Path) -> None:
            real(path)
            monkeypatch.setattr(upload_module, "_forget", real)
            loop.call_soon_threadsafe(uploader.add, finish(spool, path.name, [4, 5]))

        monkeypatch.setattr(upload_module, "_forget", forget)
        uploader.add(finish(spool, "a", [1, 2, 3]))
        await asyncio.wait_for(uploader.wait_empty(), 20)
        await asyncio.sleep(0)
        await asyncio.wait_for(uploader.wait_empty(), 20)
    assert len(data_names(place)) == 2
    assert left(spool) == []


async def test_a_file_that_somebody_takes_away(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr("qtools.to_file.sinks.upload.logs.log", lambda level, text: said.append(text))
    spool = tmp_path / "spool"
    lost, there = finish(spool, "lost", [1]), finish(spool, "there", [2])
    await upload(place.open(), there)
    uploader = Uploader(place.open(), spool)
    assert uploader.resume() == 2
    for each in (lost, there):
        each.path.unlink()
    task = asyncio.create_task(uploader.run())
    await asyncio.wait_for(uploader.wait_empty(), 20)
    uploader.close()
    await asyncio.wait_for(task, 20)
    assert (uploader.existed, uploader.stuck) == (1, 1)
    assert said == [f"{lost.path} is not uploaded: it is gone, and not in the store"]


# ── what dies meanwhile ──


async def test_a_server_that_is_gone_for_a_while_is_said_once_and_once_that_it_is_back(
    own_seaweed: Seaweed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr("qtools.to_file.sinks.upload.logs.log", lambda level, text: said.append(text))
    place = Bucket(own_seaweed, monkeypatch)
    spool = tmp_path / "spool"
    own_seaweed.kill()
    files = [finish(spool, f"f{n}", [n]) for n in range(5)]
    store = place.open(patience=0.1)
    attempts = 0
    put_new = store.put_new

    async def counted(*words: Any, **more: Any) -> Outcome:
        nonlocal attempts
        attempts += 1
        return await put_new(*words, **more)

    store.put_new = counted  # type: ignore[method-assign]
    async with running(store, spool) as uploader:
        await asyncio.to_thread(wait_until, lambda: attempts > 4)
        assert uploader.waiting == 5
        assert uploader.last_error.endswith("connection refused")
        assert len(said) == 1
        assert said[0].endswith(f"connection refused; 5 files waiting in {spool}, trying again")
        assert all(each.path.exists() for each in files)
        await asyncio.to_thread(own_seaweed.start)
        await asyncio.wait_for(uploader.wait_empty(), 60)
        assert (uploader.uploaded, uploader.last_error) == (5, "")
    assert [text for text in said if "uploads work again" in text] == [said[-1]]
    assert len(place.names()) == 10
    assert left(spool) == []


async def test_a_server_killed_in_the_middle_of_an_upload(
    own_seaweed: Seaweed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Bucket(own_seaweed, monkeypatch)
    spool = tmp_path / "spool"
    files = {}
    for number in range(3):  # two in parts, one in one request
        numbers = list(range(number * 1000, number * 1000 + (1200 if number < 2 else 300)))
        each = finish(spool, f"f{number}", numbers, compression="none", size=8000)
        files[object_name(each)] = each.path.read_bytes()
    assert sorted(len(content) > 16 * 1024 * 1024 for content in files.values()) == [False, True, True]
    async with running(place.open(patience=0.1), spool) as uploader:
        data = own_seaweed.room / "data"
        before = _size(data)
        await asyncio.to_thread(wait_until, lambda: _size(data) > before + 4_000_000)
        own_seaweed.kill()
        await asyncio.to_thread(wait_until, lambda: uploader.last_error)
        await asyncio.to_thread(own_seaweed.start)
        await asyncio.wait_for(uploader.wait_empty(), 60)
    assert {name: place.read(name) for name in data_names(place)} == files
    assert left(spool) == []


def _size(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*.dat"))


@pytest.mark.parametrize("kills", [6, pytest.param(50, marks=pytest.mark.slow)])
def test_an_uploader_killed_at_random_moments(shell: Shell, place: Place, tmp_path: Path, kills: int) -> None:
    chance = random.Random(kills)
    spool = tmp_path / "spool"
    expected: dict[str, bytes] = {}
    killed = number = 0
    while killed < kills:
        while len(left(spool)) < 24:
            # Mostly small ones; each tenth is put in parts.
            size, count = (9000, 1000) if number % 10 == 5 else (40, 50)
            each = finish(
                spool, f"f{number}", list(range(number * 1000, number * 1000 + count)), compression="none", size=size
            )  # fmt: skip
            expected[object_name(each)] = each.path.read_bytes()
            number += 1
        uploader = start(shell, place, spool)
        aim = chance.randrange(2, 24)
        wait_until(lambda aim=aim, uploader=uploader: len(left(spool)) <= aim or not uploader.is_running)
        uploader.signal(signal.SIGKILL)
        killed += uploader.wait().status == -signal.SIGKILL
    done = start(shell, place, spool).wait()
    assert done.status == 0, done.err
    assert done.err == ""
    assert {name: place.read(name) for name in data_names(place)} == expected  # none missing, none twice
    assert len([name for name in place.names() if name.endswith(OBJECT_MANIFEST)]) == len(expected)
    assert left(spool) == []


def test_two_uploaders_of_the_same_spool_make_one_object_of_each(shell: Shell, place: Place, tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    expected = {}
    for number in range(20):
        each = finish(spool, f"f{number}", [number], compression="none")
        expected[object_name(each)] = each.path.read_bytes()
    for done in [each.wait() for each in [start(shell, place, spool) for _ in range(2)]]:
        assert done.status == 0, done.err
    assert {name: place.read(name) for name in data_names(place)} == expected
    assert bodies([3])[0] in expected[sorted(expected)[3]]


async def test_an_object_whose_manifest_a_crash_left_out_is_known_all_the_same(bucket: Bucket, tmp_path: Path) -> None:
    small = finish(tmp_path, "small", list(range(30)))
    large = finish(tmp_path, "large", list(range(30, 200_000)), compression="none")
    assert large.size > SINGLE_PUT
    store = bucket.open()
    for finished in (small, large):
        await upload(store, finished)
        bucket.remove(object_name(finished) + OBJECT_MANIFEST)
    report = await Verifier(store, await read_archive(store), deep=True).run()
    assert report.findings == []
    assert (report.files, report.messages) == (2, 200_000)


PEAK = (
    "import resource, subprocess, sys; ended = subprocess.run(sys.argv[1:]).returncode;"
    "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024); sys.exit(ended)"
)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere ru_maxrss counts other units")
def test_memory_does_not_grow_with_the_files(shell: Shell, bucket: Bucket, tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    finish(spool, "f", list(range(300)), format="length32", compression="none", size=120_000)
    assert (spool / "f").stat().st_size > 70_000_000  # the size in hex is twice that of the noise
    python = {"PYTHONPATH": f"{TESTS}:{TESTS.parent}"}
    peaks = []
    for words in (
        ["-m", "to_file.spool", bucket.url, bucket.endpoint, str(spool)],
        ["-m", "qtools.to_file", "verify", bucket.url, "--deep", "--s3-endpoint", bucket.endpoint],
    ):
        done = shell.run(
            "", "-c", PEAK, sys.executable, *words, argv=[sys.executable], environ=bucket.server.environ | python
        )  # fmt: skip
        assert done.status == 0, (done.out, done.err)
        peaks.append(int(done.lines[-1]))
    assert max(peaks) < 100, peaks  # MB
