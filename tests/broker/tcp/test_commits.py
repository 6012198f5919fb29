"""Responses that wait for the disk: their order, what a commit that fails refuses, and what does not wait."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from qtools.broker.disk import store as store_module
from qtools.broker.disk.store import DurableStore
from qtools.engines.nsq.protocol.frames import Frame
from qtools.message import Message
from tests.broker.tcp.slow_store import SlowStore

from ..inside import Peer, come_true, mpub, pub, serving, subscribed

# ── a store that takes its time ───────────────────────────────────────────────────────────────────


async def test_answers_wait_for_the_commit_and_keep_their_order() -> None:
    store = SlowStore()
    async with serving(store) as daemon:
        peer = await Peer.to(daemon, pub("t", b"a") + b"SUB t c\nRDY 5\n" + pub("t", b"b"))
        (commit,) = await come_true(lambda: store.turns)
        assert await peer.silent()
        commit.settle()  # a channel that is new has to be safe as well, before anything is done behind it
        (_, commit) = await come_true(lambda: len(store.turns) == 2 and store.turns)
        commit.settle()
        answers = [await peer.hear() for _ in range(5)]
        assert [frame.data for frame in answers if isinstance(frame, Frame)] == [b"OK"] * 3
        assert [frame.body for frame in answers if isinstance(frame, Message)] == [b"a", b"b"]
        await peer.close()


async def test_a_failed_commit_refuses_the_publish_and_what_came_behind_it() -> None:
    store = SlowStore()
    async with serving(store) as daemon:
        peer = await Peer.to(daemon, mpub("t", b"a", b"b") + pub("t", b"c"))
        (commit,) = await come_true(lambda: store.turns)
        commit.settle(OSError("no space left on device"))
        assert await peer.answer() == b"E_MPUB_FAILED MPUB failed no space left on device"
        assert await peer.hung_up()
        assert daemon.broker.topics["t"].messages == 0
        await peer.close()


async def test_a_refusal_comes_behind_the_answers_still_owed() -> None:
    store = SlowStore()
    async with serving(store) as daemon:
        peer = await Peer.to(daemon, pub("t", b"a") + b"NONSENSE\n")
        (commit,) = await come_true(lambda: store.turns)
        assert await peer.silent()
        commit.settle()
        assert await peer.answer() == b"OK"
        assert await peer.answer() == b"E_INVALID invalid command NONSENSE"
        assert await peer.hung_up()
        await peer.close()


# ── garbage ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("busy", [False, True])
async def test_an_ephemeral_topic_does_not_wait_for_the_disk(tmp_path: Path, busy: bool) -> None:
    async with serving(data_path=str(tmp_path), sync="off") as daemon:
        consumer = await subscribed(daemon, "e#ephemeral", "c")
        topics = ["e#ephemeral", "kept"] if busy else ["e#ephemeral"]
        for number in range(3):
            body = b"%d" % number
            peer = await Peer.to(daemon, b"".join(pub(topic, body) for topic in topics))
            async with asyncio.timeout(1):
                assert (await consumer.message()).body == body
            assert [await peer.answer() for _ in topics] == [b"OK"] * len(topics)
            await peer.close()
        await consumer.close()


async def test_what_could_not_be_sealed_is_not_confirmed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(data_path=str(tmp_path), sync="off") as daemon:
        consumer = await subscribed(daemon)
        real, failures = daemon.broker.topics["t"].seal, 3

        def seal(now: float, wall: int) -> None:
            nonlocal failures
            if failures:
                failures -= 1
                raise MemoryError
            real(now, wall)

        monkeypatch.setattr(daemon.broker.topics["t"], "seal", seal)
        peer = await Peer.to(daemon, pub("t", b"a"))
        assert await peer.silent()
        while failures:
            daemon.broker._turn_soon()
            await asyncio.sleep(0)
        daemon.broker._turn_soon()
        assert await peer.answer() == b"OK"
        assert (await consumer.message()).body == b"a"
        await peer.close()
        await consumer.close()


async def test_publishers_are_not_listened_to_while_too_much_waits_to_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of it is confirmed in the end, and what comes behind it, however the client speaks."""
    monkeypatch.setattr(store_module, "CROWD", 100_000)
    async with serving(data_path=str(tmp_path), sync="off") as daemon:
        store = daemon.broker.store
        assert isinstance(store, DurableStore)
        writer = store.writer
        is_free = threading.Event()
        writer.do(lambda _: is_free.wait(20), lambda *_: None)
        peers = [await Peer.to(daemon) for _ in range(3)]
        for peer in peers:
            for _ in range(20):
                peer.say(mpub("t", b"x" * 30_000, b"y" * 30_000))
        connections = list(daemon.tcp_server.connections)
        await come_true(lambda: all(connection.waits_for_store for connection in connections))
        assert all(connection.transport.is_paused for connection in connections)
        leaving = peers.pop()
        leaving.writer.transport.abort()
        is_free.set()
        for peer in peers:
            for _ in range(20):
                assert await peer.answer() == b"OK"
            peer.say(pub("t", b"z"))
            assert await peer.answer() == b"OK"
            assert not any(connection.waits_for_store for connection in connections)
            await peer.close()
