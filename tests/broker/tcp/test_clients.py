"""Clients over real sockets: what they get, what they may cost, and how they are sent away."""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import time

import pytest

from qtools.broker.tcp.client_connection import ClientConnection
from qtools.broker.tcp.client_transport import HIGH_WATER, RESPONSE_HIGH_WATER, ROOM

from ..inside import Peer, come_true, identify, mpub, pub, serving, subscribed


def only(daemon: object) -> ClientConnection:
    (connection,) = daemon.tcp_server.connections  # type: ignore[attr-defined]
    return connection


async def test_thousands_come_in_order_and_once() -> None:
    async with serving() as daemon:
        reader = await subscribed(daemon, ready=2500)
        writer = await Peer.to(daemon)
        bodies = [b"%d" % number for number in range(20_000)]
        for start in range(0, len(bodies), 137):
            writer.say(mpub("t", *bodies[start : start + 137]))
        got: list[bytes] = []
        while len(got) < len(bodies):
            message = await reader.message()
            got.append(message.body)
            reader.say(b"FIN %b\n" % message.id)
        assert got == bodies
        await come_true(lambda: daemon.broker.held() == 0)
        assert await writer.answer() == b"OK"
        await reader.close()
        await writer.close()


async def test_a_client_that_leaves_in_the_middle_of_an_mpub_leaves_nothing() -> None:
    async with serving() as daemon:
        peer = await Peer.to(daemon, mpub("t", b"whole", b"cut off")[:-3])
        await come_true(lambda: daemon.tcp_server.connections)
        await peer.close()
        await come_true(lambda: not daemon.tcp_server.connections)
        assert daemon.broker.topics == {}


async def test_an_oversized_message_is_refused_and_what_came_before_is_kept() -> None:
    async with serving(max_msg_size=100) as daemon:
        peer = await Peer.to(daemon, pub("t", b"fits") + pub("t", b"x" * 101) + pub("t", b"never seen") * 2000)
        assert await peer.answer() == b"OK"
        assert await peer.answer() == b"E_BAD_MESSAGE PUB message too big 101 > 100"
        assert await peer.hung_up()
        assert daemon.broker.topics["t"].messages == 1
        await peer.close()


async def test_a_client_without_heartbeats_stays_however_silent() -> None:
    async with serving() as daemon:
        peer = await Peer.to(daemon, identify(heartbeat_interval=-1))
        await peer.answer()
        assert only(daemon).transport._alarm is None
        peer.say(pub("t", b"x"))
        assert await peer.answer() == b"OK"
        await peer.close()


async def test_a_client_without_identify_has_the_brokers_own_msg_timeout() -> None:
    async with serving(msg_timeout=0.2) as daemon:
        peer = await subscribed(daemon)
        peer.say(pub("t", b"x"))
        assert await peer.answer() == b"OK"
        assert (await peer.message()).attempts == 1
        assert (await peer.message()).attempts == 2
        await peer.close()


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [
        (b'{"MSG_TIMEOUT": 2000}', 2.0),
        (b'{"Msg_Timeout": 2000, "msg_timeout": 3000}', 3.0),
        (b'{"msg_timeout": 3000, "MSG_timeout": 2000}', 2.0),
        (b'{"msg_timeout": 2000, "MSG_TIMEOUT": null}', 2.0),
        ('{"m\u017fg_timeout": 2000}'.encode(), 2.0),  # Go's encoding/json takes a long s for an s
        (b'{"msg-timeout": 2000}', 60.0),
    ],
)
async def test_keys_of_identify_count_in_any_case(asked: bytes, seconds: float) -> None:
    async with serving() as daemon:
        peer = await Peer.to(daemon, b"IDENTIFY\n" + len(asked).to_bytes(4, "big") + asked + b"SUB t c\n")
        assert await peer.answer() == b"OK"
        assert await peer.answer() == b"OK"
        consumer = only(daemon).consumer
        assert consumer is not None
        assert consumer.msg_timeout == seconds
        await peer.close()


async def test_an_idle_broker_has_nothing_to_wake_up_for() -> None:
    async with serving() as daemon:
        peer = await subscribed(daemon)
        peer.say(pub("t", b"x"))
        assert await peer.answer() == b"OK"
        message = await peer.message()
        peer.say(b"FIN %b\n" % message.id)
        await come_true(lambda: daemon.broker.held() == 0)
        await peer.close()
        await come_true(lambda: not daemon.tcp_server.connections)
        daemon.broker.topics["t"].channels["c"].wake(daemon.broker.now())
        left = [entry.when for entry in daemon.broker._alarms._heap if entry.item is not None]
        assert len(left) <= 1  # the deadline of a message that was finished, which rings once


async def test_small_answers_do_not_wait_for_an_acknowledgement() -> None:
    async with serving(http_address="127.0.0.1:0") as daemon:
        peer = await Peer.to(daemon, pub("t", b"x"))
        await peer.answer()
        told = only(daemon).transport.socket.get_extra_info("socket")
        assert told.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert daemon._http is not None
        assert daemon._http.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        await peer.close()


# ── what a client may cost ────────────────────────────────────────────────────────────────────────


async def test_a_client_that_does_not_read_costs_bounded_memory_and_stops_nobody() -> None:
    async with serving() as daemon:
        stuck = await subscribed(daemon, channel="stuck", ready=2500)
        stuck.writer.transport.pause_reading()  # type: ignore[attr-defined]
        reader = await subscribed(daemon, channel="busy", ready=2500)
        writer = await Peer.to(daemon)
        for _ in range(100):
            writer.say(mpub("t", *[b"x" * 50_000] * 10))
            assert await writer.answer() == b"OK"
            for message in await reader.messages(10):
                reader.say(b"FIN %b\n" % message.id)
        (connection,) = [one for one in daemon.tcp_server.connections if one.channel and one.channel.name == "stuck"]
        assert connection.transport.socket.get_write_buffer_size() <= HIGH_WATER + ROOM
        assert connection.transport.out_size == 0
        assert connection.channel is not None
        assert connection.channel.depth > 500
        stuck.writer.transport.resume_reading()  # type: ignore[attr-defined]
        for _ in range(1000):
            message = await stuck.message()
            stuck.say(b"FIN %b\n" % message.id)
        await come_true(lambda: daemon.broker.held() == 0)
        for peer in (stuck, reader, writer):
            await peer.close()


async def test_a_client_that_reads_nothing_for_a_heartbeat_is_dropped(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "qtools.broker")
    async with serving() as daemon:
        stuck = await subscribed(daemon, ready=2500, heartbeat_interval=1000)
        stuck.writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer = await Peer.to(daemon)
        writer.say(mpub("t", *[b"x" * 50_000] * 100) * 5)
        began = time.monotonic()
        while len(daemon.tcp_server.connections) > 1:
            stuck.say(b"NOP\n")  # it is alive, and says so
            await asyncio.sleep(0.05)
            assert time.monotonic() - began < 10
        assert any("has read nothing for 1 s: dropped" in line for line in caplog.messages)
        assert daemon.broker.topics["t"].channels["c"].held == 500
        await stuck.close()
        await writer.close()


async def test_a_client_that_reads_slowly_is_not_dropped(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "qtools.broker")
    async with serving() as daemon:
        slow = await subscribed(daemon, ready=2500, heartbeat_interval=1000)
        slow.writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer = await Peer.to(daemon)
        writer.say(mpub("t", *[b"x" * 50_000] * 100) * 5)
        connection = next(one for one in daemon.tcp_server.connections if one.consumer is not None)
        await come_true(lambda: connection.transport.is_full)
        ended = time.monotonic() + 3.5
        while time.monotonic() < ended:
            slow.writer.transport.resume_reading()  # type: ignore[attr-defined]
            for _ in range(10):
                await slow.reader.read(1 << 17)
            slow.writer.transport.pause_reading()  # type: ignore[attr-defined]
            slow.say(b"NOP\n")
            await asyncio.sleep(0.2)
        assert connection in daemon.tcp_server.connections
        assert not any("dropped" in line for line in caplog.messages)
        slow.writer.transport.abort()
        await slow.close()
        await writer.close()


async def test_a_client_that_never_reads_its_answers_is_not_listened_to_for_ever() -> None:
    async with serving() as daemon:
        peer = await Peer.to(daemon)
        peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
        connection = await come_true(lambda: next(iter(daemon.tcp_server.connections), None))
        chunk = pub("t", b"x") * 20_000
        async with asyncio.timeout(60):
            while not connection.transport.is_paused:
                peer.say(chunk)
                await asyncio.sleep(0)
                daemon.broker.topics.get("t") and daemon.broker.topics["t"].empty(daemon.broker.now(), time.time_ns())
        assert connection.transport.socket.get_write_buffer_size() < HIGH_WATER + RESPONSE_HIGH_WATER + 4 * len(chunk)
        peer.writer.transport.resume_reading()  # type: ignore[attr-defined]
        async with asyncio.timeout(10):
            while connection.transport.is_paused:
                await peer.reader.read(1 << 18)
        peer.writer.transport.abort()
        await peer.close()


async def test_a_refused_client_that_never_leaves_is_cut_off() -> None:
    async with serving() as daemon:
        peer = await Peer.to(daemon, b"NONSENSE\n")
        assert await peer.answer() == b"E_INVALID invalid command NONSENSE"
        await come_true(lambda: not daemon.tcp_server.connections, 5)
        await peer.close()


async def test_more_consumers_than_allowed_are_refused() -> None:
    async with serving(max_channel_consumers=1) as daemon:
        first = await subscribed(daemon)
        second = await Peer.to(daemon, b"SUB t c\n")
        assert await second.answer() == b"E_SUB_FAILED SUB failed consumers for t:c exceeds limit of 1"
        await first.close()
        await second.close()
        await come_true(lambda: not daemon.tcp_server.connections)
        third = await subscribed(daemon)
        await third.close()


# ── channels that go ──────────────────────────────────────────────────────────────────────────────


async def test_deleting_a_channel_hangs_up_on_its_clients() -> None:
    async with serving() as daemon:
        peer, other = await subscribed(daemon, "t", "c"), await subscribed(daemon, "t", "other")
        daemon.broker.delete_channel(daemon.broker.topics["t"], "c")
        assert await peer.hung_up()
        daemon.broker.delete_topic("t")
        assert await other.hung_up()
        assert daemon.broker.topics == {}
        await peer.close()
        await other.close()


async def test_ephemeral_things_go_with_their_last_client() -> None:
    async with serving() as daemon:
        first = await subscribed(daemon, "t#ephemeral", "c#ephemeral")
        second = await subscribed(daemon, "t#ephemeral", "c#ephemeral")
        await first.close()
        await come_true(lambda: len(daemon.tcp_server.connections) == 1)
        assert list(daemon.broker.topics) == ["t#ephemeral"]
        await second.close()
        await come_true(lambda: not daemon.broker.topics)


# ── garbage ───────────────────────────────────────────────────────────────────────────────────────


_WORDS = [
    b"SUB t c\n", b"SUB t c#ephemeral\n", b"RDY 5\n", b"RDY 99999\n", b"FIN 0123456789abcdef\n", b"CLS\n", b"NOP\n",
    b"REQ 0123456789abcdef 5\n", b"TOUCH 0123456789abcdef\n", b"AUTH\n\0\0\0\x01x", b"MPUB t\n", b"PUB t\n", b"  V2",
    b"IDENTIFY\n", b"\0\0\0\x02{}", b"\xff" * 4, b"\0" * 8, b"\n", pub("t", b"x"), mpub("t", b"x", b"y"),
    identify(snappy=True), identify(deflate=True), identify(heartbeat_interval=1000, msg_timeout=1000), b"DPUB t 10\n",
]  # fmt: skip


async def test_garbage_ends_the_conversation_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    chance = random.Random(7)
    caplog.set_level(logging.DEBUG, "qtools.broker")
    async with serving() as daemon:

        async def talk() -> None:
            peer = await Peer.to(daemon)
            for _ in range(chance.randrange(1, 8)):
                word = bytearray(chance.choice(_WORDS))
                if chance.random() < 0.3 and word:
                    word[chance.randrange(len(word))] = chance.randrange(256)
                peer.say(bytes(word))
            if chance.random() < 0.5:
                peer.say(chance.randbytes(chance.randrange(1, 3000)))
            await asyncio.sleep(0)
            await peer.close()

        for _ in range(40):
            await asyncio.gather(*(talk() for _ in range(25)))
        peer = await subscribed(daemon, "still", "here")
        peer.say(pub("still", b"alive"))
        assert await peer.answer() == b"OK"
        assert (await peer.message()).body == b"alive"
        await peer.close()
    assert not [line for line in caplog.messages if "internal error" in line]


async def test_a_touch_never_goes_past_the_longest_time() -> None:
    """Where a message that was delivered later has a later deadline too."""
    async with serving(msg_timeout=1.0, max_msg_timeout=1.2) as daemon:
        peer = await subscribed(daemon, ready=1, msg_timeout=1000)
        daemon.broker.publish("t", [b"first"])
        first = await peer.message()
        began = time.monotonic()
        await asyncio.sleep(0.5)
        daemon.broker.publish("t", [b"second", b"third"])
        peer.say(b"RDY 2\n")
        second = await peer.message()
        peer.say(b"TOUCH %b\nRDY 0\n" % first.id)
        other = await subscribed(daemon, ready=10)
        got = {(await other.message()).body, (await other.message()).body}
        assert got == {b"first", b"third"}
        assert 1.1 < time.monotonic() - began < 1.45
        peer.say(b"FIN %b\n" % second.id)
        await come_true(lambda: daemon.broker.topics["t"].channels["c"].held == 2)
        for one in (peer, other):
            await one.close()
