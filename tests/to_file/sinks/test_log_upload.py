"""Files and objects of a partitioned log in a store: in their order, each message once, also with two processes."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest

from qtools.errors import StoreError
from qtools.formats.encoders import make_format
from qtools.to_file.archive.archive import Archive, Encoding, Rotation
from qtools.to_file.archive.archived_partitions import ArchivedPartitions, ChainEnd
from qtools.to_file.archive.file_record import FileRecord, beside, read_beside
from qtools.to_file.archive.layout import OFFSETS_NAME, Layout
from qtools.to_file.archive.manifest import OBJECT_MANIFEST
from qtools.to_file.archive.partitioner import Partitioner
from qtools.to_file.archive.workdir import WorkDir
from qtools.to_file.read.chains import check_chains
from qtools.to_file.read.verify import read_archive
from qtools.to_file.sinks.log_object_sink import LogObjectSink
from qtools.to_file.sinks.spool import Spool, SpoolSink
from qtools.to_file.sinks.store_chains import StoreChains
from qtools.to_file.stores.object_store import ObjectStore

from ..log_partition import Log
from ..store_kinds import Bucket, Place

LAYOUT = Layout(OFFSETS_NAME + ".log", host="h", has_offsets=True)
ENCODING = Encoding("raw", make_format("raw"))


@contextlib.asynccontextmanager
async def spooled(place: Place, root: Path, count: int = 10) -> AsyncIterator[SpoolSink]:
    """A sink with a spool and a work directory of its own, not started."""
    store = place.open(patience=0.2) if isinstance(place, Bucket) else place.open()
    spool = Spool(store, root)
    sources = ArchivedPartitions(StoreChains(store, LAYOUT).look_up, store.url)
    archive = Archive(
        WorkDir(root / ".work"), root, LAYOUT, Partitioner(LAYOUT), ENCODING, Rotation(count=count), spool.add,
        spooled=True, sources=sources,
    )  # fmt: skip
    sink = SpoolSink(archive, spool)
    try:
        yield sink
    finally:
        await sink.close()
        await sink.release()


def offsets(place: Place) -> Counter[int]:
    return Counter(
        orjson.loads(line)["o"]
        for name in place.names()
        if not name.endswith(OBJECT_MANIFEST)
        for line in place.read(name).splitlines()
    )


async def faults(store: ObjectStore) -> list[object]:
    return [*check_chains((await read_archive(store)).manifested.values())]


@pytest.mark.parametrize("suffix", ["", ".log", "-00000000000000000030"])
async def test_an_object_of_a_topic_that_is_named_like_an_object(place: Place, tmp_path: Path, suffix: str) -> None:
    """It neither counts for the other topic's chain, nor is it taken for another process's object."""
    logs = [Log(0, range(30)), Log(0, range(40))]
    topics = [f"events.0.00000000000000000010{suffix}", "events"]
    for log, topic in zip(logs, topics, strict=True):
        reader = log.read()
        reader.topic = topic
        async with spooled(place, tmp_path / topic) as sink:
            await sink.start()
            while (batch := reader.take(10)) is not None:
                await sink.write(batch)
                batch.finish()
            await sink.close()
            await sink.wait_sent()
            assert sink.archive.skipped == 0
            assert sink.written == len(log.offsets)
        reader.commit()
        assert log.committed == len(log.offsets)
    assert offsets(place).total() == 70
    assert await faults(place.open()) == []


async def test_what_is_uploaded_is_committed(place: Place, tmp_path: Path) -> None:
    log = Log(3, range(7, 37))
    reader = log.read()
    async with spooled(place, tmp_path / "a") as sink:
        await sink.start()
        for _ in range(3):
            batch = reader.take(10)
            assert batch is not None
            await sink.write(batch)
            batch.finish()
        await sink.close()
        await sink.wait_sent()
        reader.commit()
    assert log.committed == 37
    assert offsets(place) == Counter(range(7, 37))
    names = {name for name in place.names() if not name.endswith(OBJECT_MANIFEST)}
    assert names == {f"events.3.{first:020d}.log" for first in (7, 17, 27)}
    assert await faults(place.open()) == []


async def test_a_store_that_fails_keeps_the_order(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second file of a partition waits for the first one. Nothing is committed meanwhile."""
    log = Log(0, range(30))
    reader = log.read()
    uploaded: list[str] = []
    failures = 0
    async with spooled(place, tmp_path / "a") as sink:
        await sink.start()
        real = sink.spool.store.put_new

        async def put(name: str, *words: object, **flags: object) -> object:
            nonlocal failures
            if not name.endswith(OBJECT_MANIFEST) and failures < 2:
                failures += 1
                reader.commit()
                assert log.committed == 0
                raise StoreError(name, "is away")
            if not name.endswith(OBJECT_MANIFEST):
                await asyncio.sleep(0.05)  # another upload could overtake it
                uploaded.append(name)
            return await real(name, *words, **flags)  # type: ignore[arg-type]

        monkeypatch.setattr(sink.spool.store, "put_new", put)
        for first in (0, 10, 20):
            batch = reader.batch(range(first, first + 10))
            await sink.write(batch)
            batch.finish()
        await sink.close()
        await sink.wait_sent()
    assert failures == 2
    assert uploaded == [f"events.0.{first:020d}.log" for first in (0, 10, 20)]
    reader.commit()
    assert log.committed == 30


async def test_two_processes_that_both_believe_to_own_the_partition(place: Place, tmp_path: Path) -> None:
    log = Log(0, range(40))
    async with spooled(place, tmp_path / "a", count=100) as asleep, spooled(place, tmp_path / "b") as sink:
        await asleep.start()
        await sink.start()
        old = log.read()
        await asleep.write(old.batch(range(25)))
        reader = log.read()
        old.is_lost = False  # it sleeps, and does not know
        for first in range(0, 40, 10):
            await sink.write(reader.batch(range(first, first + 10)))
        await sink.close()
        await sink.wait_sent()
        await asleep.close()
        await asleep.wait_sent()
        assert old.again == 1
        assert asleep.spool.uploader.stuck == 0
        assert (sink.written, asleep.written) == (40, 0)
        assert sink.written_bytes == sum(len(reader.body(offset)) for offset in range(40))
        assert asleep.written_bytes == 0
    assert offsets(place) == Counter(range(40))
    assert await faults(place.open()) == []


async def test_an_object_that_is_uploaded_in_parts_replaces_none(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its upload is not conditional, so its name has both offsets; another one with its first offset is found."""
    log = Log(0, range(60))
    async with spooled(place, tmp_path / "a", count=100) as asleep, spooled(place, tmp_path / "b", count=30) as sink:
        await asleep.start()
        await sink.start()
        old = log.read()
        await asleep.write(old.batch(range(25)))
        reader = log.read()
        old.is_lost = False
        with monkeypatch.context() as patch:
            patch.setattr("qtools.to_file.sinks.upload.SINGLE_PUT", 100)
            for first in (0, 30):
                await sink.write(reader.batch(range(first, first + 30)))
            await sink.close()
            await sink.wait_sent()
        await asleep.close()
        await asleep.wait_sent()
        assert old.again == 1
    names = {name for name in place.names() if not name.endswith(OBJECT_MANIFEST)}
    assert names == {f"events.0.{first:020d}-{first + 29:020d}.log" for first in (0, 30)}
    assert offsets(place) == Counter(range(60))
    assert (await StoreChains(place.open(), LAYOUT).find("events", 0, "", 0)).offset == 59
    assert await faults(place.open()) == []


async def test_what_a_killed_process_left_is_removed_and_read_again(place: Place, tmp_path: Path) -> None:
    log = Log(0, range(30))
    reader = log.read()
    root = tmp_path / "a"
    async with spooled(place, root) as sink:  # not started: nothing is uploaded
        for first in (0, 10):
            batch = reader.batch(range(first, first + 10))
            await sink.write(batch)
            batch.finish()
    reader.commit()
    assert log.committed == 0
    left = [path for path in root.iterdir() if path.is_file() and not path.name.startswith(".")]
    assert len(left) == 2
    record: FileRecord = read_beside(left[0])
    assert record.partition == 0
    assert record.source is None
    async with spooled(place, root) as sink:
        await sink.start()
        again = log.read()
        while (batch := again.take(10)) is not None:
            await sink.write(batch)
        await sink.close()
        await sink.wait_sent()
    assert offsets(place) == Counter(range(30))
    assert [path.name for path in root.iterdir()] == [".work"]
    assert not beside(left[0]).exists()


async def test_how_far_a_store_is(bucket: Bucket, tmp_path: Path) -> None:
    """Of an object without a manifest, its own metadata tells. Others in the bucket are passed over."""
    store = bucket.open()
    log = Log(1, range(100, 130))
    sink = LogObjectSink(store, LAYOUT, Partitioner(LAYOUT), ENCODING)
    for start in (100, 110, 120):
        await sink.write(log.read().batch(range(start, start + 10)))
    bucket.write("events.10.00000000000000000500.log", b"")
    bucket.write("events.1.note", b"")
    bucket.write("zoo", b"")
    bucket.remove(f"events.1.{120:020d}.log{OBJECT_MANIFEST}")
    end = await StoreChains(store, LAYOUT).find("events", 1, "", 115)
    assert end.offset == 129
    assert await StoreChains(store, LAYOUT).find("event", 1, "", 0) == ChainEnd()
    bucket.write(f"events.1.{130:020d}.log", b"of somebody else")
    with pytest.raises(StoreError, match="it is not known which offsets it has"):
        await StoreChains(store, LAYOUT).find("events", 1, "", 115)


async def test_without_a_spool_the_later_process_puts_the_rest(place: Place) -> None:
    store = place.open()
    log = Log(0, range(60))
    asleep = LogObjectSink(store, LAYOUT, Partitioner(LAYOUT), ENCODING)
    old = log.read()
    await asleep.write(old.batch(range(10)))
    sink = LogObjectSink(store, LAYOUT, Partitioner(LAYOUT), ENCODING)
    await sink.write(log.read().batch(range(15)))  # the commit of the first ten was lost
    old.is_lost = False
    await asleep.write(old.batch(range(10, 40)))  # begins where the other object does
    await sink.write(log.read().batch(range(15, 60)))
    assert offsets(place) == Counter(range(60))
    assert await faults(store) == []
    assert asleep.written + sink.written == 60
    taken = log.read()
    taken.is_lost = True
    await sink.write(taken.batch(range(60, 70)))
    assert offsets(place) == Counter(range(60))


@pytest.mark.parametrize("is_spooled", [True, False])
async def test_newest_objects_that_were_lost_are_a_gap(place: Place, tmp_path: Path, is_spooled: bool) -> None:
    log = Log(0, range(60))

    async def run(number: int) -> None:
        """Archive 20 messages more."""
        reader = log.read()
        async with contextlib.AsyncExitStack() as stack:
            if is_spooled:
                sink: SpoolSink | LogObjectSink = await stack.enter_async_context(
                    spooled(place, tmp_path / f"{number}")
                )
                await sink.start()
            else:
                sink = LogObjectSink(place.open(), LAYOUT, Partitioner(LAYOUT), ENCODING)
            for _ in range(2):
                batch = reader.take(10)
                assert batch is not None
                await sink.write(batch)
                batch.finish()
            await sink.close()
            await sink.wait_sent()
        reader.commit()

    await run(1)
    await run(2)
    for first in (20, 30):
        for name in (f"events.0.{first:020d}.log", f"events.0.{first:020d}.log{OBJECT_MANIFEST}"):
            place.remove(name)
    assert await faults(place.open()) == []
    await run(3)
    (found,) = check_chains((await read_archive(place.open())).manifested.values())
    assert (found.kind, found.told) == ("gap", "partition 0: offsets 20 to 39 are in no file, and were once")
