"""Many connections as one Sink: every message answered OK, whatever happens on the way, or named."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from qtools.engines.nsq import discovery as discovery_module
from qtools.engines.nsq.address import Brokers
from qtools.engines.nsq.protocol import commands
from qtools.engines.nsq.protocol.client_commands import Command, Publish
from qtools.engines.nsq.publish import load_balancing as balance_module
from qtools.engines.nsq.publish import publish_queue as publish_queue_module
from qtools.engines.nsq.publish.batch_splitter import PublishCommand
from qtools.engines.nsq.publish.load_balancing import Fastest, LeastBusy, RoundRobin
from qtools.engines.nsq.publish.publisher import ASK_AGAIN_AFTER, NsqPublisher
from qtools.errors import BrokerError, MessageRefused, NetworkError, PartialFailure, StartError
from qtools.flow.topic_sink import TopicSink
from qtools.message import Batch
from tests.engines.nsq.scripted import Caller, Scripted, Web, settings, until, web
from tests.flow.memory import Ledger

pytestmark = pytest.mark.usefixtures("tidy")


def batch(*bodies: bytes) -> Batch:
    return Batch.of_bodies(Ledger(), list(bodies))


def numbered(count: int, begin: int = 0) -> list[bytes]:
    return [b"body %d" % n for n in range(begin, begin + count)]


@asynccontextmanager
async def publishing(*peers: Scripted, wait: bool = True, **some: Any) -> AsyncIterator[NsqPublisher]:
    publisher = NsqPublisher(Brokers(nsqd=tuple(peer.address for peer in peers)), settings(), **some)
    await publisher.start()
    if wait:
        await until(lambda: all(peer.callers and peer.caller.heard for peer in peers))
        await until(lambda: f"connections={len(peers)}>" in repr(publisher))
    try:
        yield publisher
    finally:
        await publisher.close()


async def write(publisher: NsqPublisher, *bodies: bytes) -> None:
    async with asyncio.timeout(8):
        await TopicSink(publisher, "events").write(batch(*bodies))


def silent(caller: Caller, command: Command) -> bool:
    return isinstance(command, Publish)


class Small:
    """A broker that refuses what is larger than its limits, as nsqd does."""

    def __init__(self, message: int, body: int = 1 << 30) -> None:
        self.message, self.body = message, body

    def __call__(self, caller: Caller, command: Command) -> bool:
        if caller.transport.is_closing():
            return True
        if isinstance(command, Publish):
            if max(map(len, command.bodies)) > self.message:
                if command.command == "MPUB":
                    caller.refuse("E_BAD_MESSAGE", "MPUB message too big")
                    return True
                for body in command.bodies:
                    if len(body) > self.message:
                        caller.refuse("E_BAD_MESSAGE", f"{command.command} message too big")
                        return True
                    caller.peer.published.append(body)
                    caller.say(b"OK")
            if command.command == "MPUB" and 4 + sum(4 + len(body) for body in command.bodies) > self.body:
                caller.refuse("E_BAD_BODY", "MPUB body too big")
                return True
        return False


def limits(message: int, body: int) -> dict[str, tuple[int, bytes]]:
    return {"/config/max_msg_size": (200, b"%d" % message), "/config/max_body_size": (200, b"%d" % body)}


# ── what is sent ────────────────────────────────────────────────────────────────────────────────


async def test_a_batch_is_one_mpub_and_a_single_message_a_pub() -> None:
    told: list[tuple[float, int]] = []

    def on_published(seconds: float, count: int) -> None:
        told.append((seconds, count))

    async with Scripted() as peer, publishing(peer, on_published=on_published) as publisher:
        await write(publisher, *numbered(100))
        await write(publisher, b"one")
        await write(publisher)
        sent = peer.caller.all(Publish)
        assert [(each.command, each.topic, len(each.bodies)) for each in sent] == [
            ("MPUB", "events", 100),
            ("PUB", "events", 1),
        ]
        assert peer.published == [*numbered(100), b"one"]
        assert publisher.resent == 0
        assert publisher.published == 101
        assert publisher.published_bytes == len(commands.mpub("events", numbered(100)) + commands.pub("events", b"one"))
        assert [count for _, count in told] == [100, 1]
        assert all(0 < seconds < 10 for seconds, _ in told)
        assert (publisher.connected, publisher.unanswered, publisher.reconnects) == (1, 0, 0)


async def test_a_write_ends_when_all_of_it_is_answered() -> None:
    async with Scripted(silent) as peer, publishing(peer, batch_count=2) as publisher:
        writing = asyncio.create_task(write(publisher, *numbered(5)))
        await until(lambda: len(peer.caller.all(Publish)) == 3)
        for nth in range(3):
            assert not writing.done()
            peer.caller.say(b"OK")
            await until(lambda: publisher.unanswered == 2 - nth)  # noqa: B023
        await writing


@pytest.mark.parametrize(
    ("some", "sizes"),
    [
        ({"batch_count": 3}, [3, 3, 1]),
        ({"batch_count": 7}, [7]),
        ({"batch_bytes": 4 + 2 * 14}, [2, 2, 2, 1]),
        ({"batch_bytes": 4 + 2 * 14 - 1}, [1] * 7),
        ({"batch_bytes": 1}, [1] * 7),
    ],
)
async def test_an_mpub_holds_no_more_than_it_may(some: dict[str, int], sizes: list[int]) -> None:
    async with Scripted() as peer, publishing(peer, **some) as publisher:
        bodies = [b"0123456789"] * 7
        await write(publisher, *bodies)
        if set(sizes) != {1}:
            assert [len(each.bodies) for each in peer.caller.all(Publish)] == sizes
        assert peer.published == bodies


async def test_deferred_messages_are_a_dpub_each() -> None:
    async with Scripted() as peer, publishing(peer, delay_ms=1500) as publisher:
        await write(publisher, *numbered(5))
        assert [(each.command, each.delay_ms) for each in peer.caller.all(Publish)] == [("DPUB", 1500)] * 5
        assert peer.published == numbered(5)


async def test_several_writes_are_under_way_at_once_and_end_each_by_itself() -> None:
    async with Scripted(silent) as peer, publishing(peer) as publisher:
        writes = [asyncio.create_task(write(publisher, b"%d" % nth, b"x")) for nth in range(5)]
        await until(lambda: len(peer.caller.all(Publish)) == 5)
        assert [each.bodies[0] for each in peer.caller.all(Publish)] == [b"%d" % nth for nth in range(5)]
        for nth, writing in enumerate(writes):
            peer.caller.say(b"OK")
            await writing
            assert not any(later.done() for later in writes[nth + 1 :])


async def test_the_least_busy_of_several_brokers_is_taken() -> None:
    async with Scripted(silent) as one, Scripted(silent) as two, publishing(one, two) as publisher:
        writes = [asyncio.create_task(write(publisher, b"%d" % nth)) for nth in range(6)]
        await until(lambda: publisher.connected == 2 and publisher.unanswered == 6)
        await until(lambda: sum(each.answers for peer in (one, two) for each in peer.caller.all(Publish)) == 6)
        assert [sum(each.answers for each in peer.caller.all(Publish)) for peer in (one, two)] == [3, 3]
        for peer in (one, two):
            for _ in range(3):
                peer.caller.say(b"OK")
        await asyncio.gather(*writes)


# ── losses ──────────────────────────────────────────────────────────────────────────────────────


async def test_after_a_loss_exactly_what_was_not_answered_is_sent_again_in_order() -> None:
    def script(caller: Caller, command: Command) -> bool:
        if isinstance(command, Publish) and len(caller.peer.callers) == 1:
            if len(caller.all(Publish)) <= 2:
                return False  # the first two are answered
            if len(caller.all(Publish)) == 6:
                caller.cut()
            return True
        return False

    async with Scripted(script) as peer, publishing(peer) as publisher:
        writes = [asyncio.create_task(write(publisher, b"%d" % nth, b"x")) for nth in range(6)]
        await asyncio.gather(*writes)
        assert [each.bodies[0] for each in peer.caller.all(Publish)] == [b"2", b"3", b"4", b"5"]
        assert [body for body in peer.published if body != b"x"] == [b"0", b"1", b"2", b"3", b"4", b"5"]
        assert publisher.resent == 8
        assert publisher.published == 12
        assert publisher.reconnects == 1


async def test_a_run_of_dpubs_that_was_partly_answered_goes_on_behind_what_was() -> None:
    def script(caller: Caller, command: Command) -> bool:
        if isinstance(command, Publish) and len(caller.peer.callers) == 1:
            answered = len(caller.all(Publish))
            if answered == 4:
                caller.transport.close()  # the three answers before it are on their way
            return answered >= 4
        return False

    async with Scripted(script) as peer, publishing(peer, delay_ms=5) as publisher:
        await write(publisher, *numbered(10))
        assert peer.published == numbered(10)
        assert publisher.resent == 7
        assert publisher.published == 10


async def test_what_one_broker_lost_goes_to_another() -> None:
    async with Scripted(silent) as one, Scripted() as two, publishing(one, two) as publisher:
        writes = [asyncio.create_task(write(publisher, body)) for body in numbered(8)]
        await until(lambda: sum(each.answers for each in one.caller.all(Publish)) >= 1)
        await one.close()
        await asyncio.gather(*writes)
        assert sorted(two.published) == numbered(8)


async def test_a_write_waits_for_a_broker_to_come_back() -> None:
    async with Scripted() as peer, publishing(peer) as publisher:
        await peer.close()
        await until(lambda: "connections=0>" in repr(publisher))
        writing = asyncio.create_task(write(publisher, b"a"))
        await asyncio.sleep(0.3)
        assert not writing.done()
        await peer.open()
        await writing
        assert peer.published == [b"a"]


async def test_it_waits_no_longer_than_it_may() -> None:
    async with Scripted() as peer, publishing(peer, retry_timeout=0.3) as publisher:
        await peer.close()
        await until(lambda: "connections=0>" in repr(publisher))
        begun = asyncio.get_running_loop().time()
        writes = [asyncio.create_task(write(publisher, b"%d" % nth)) for nth in range(3)]
        for writing in writes:
            with pytest.raises(NetworkError, match=f"{peer.address}: no broker could be reached for 0.3 s"):
                await writing
        assert 0.25 < asyncio.get_running_loop().time() - begun < 2.0
        await peer.open()
        await until(lambda: "connections=1>" in repr(publisher))  # its next try may be further off than it may wait
        await write(publisher, b"later")
        assert peer.published == [b"later"]


async def test_a_write_that_is_cancelled_is_not_sent_later() -> None:
    async with Scripted() as peer, publishing(peer) as publisher:
        await peer.close()
        await until(lambda: "connections=0>" in repr(publisher))
        writing = asyncio.create_task(write(publisher, b"a"))
        await asyncio.sleep(0.05)
        writing.cancel()
        await asyncio.wait((writing,))
        await peer.open()
        await write(publisher, b"b")
        assert peer.published == [b"b"]


async def test_when_nobody_can_be_reached_at_the_start_that_is_told() -> None:
    async with Scripted() as peer:
        await peer.close()
        publisher = NsqPublisher(Brokers(nsqd=(peer.address,)), settings())
        with pytest.raises(StartError, match="nothing listens there"):
            await publisher.start()


# ── refusals ────────────────────────────────────────────────────────────────────────────────────


def refuse_first(code: str, times: int = 1) -> Callable[[Caller, Command], bool]:
    left = [times]

    def script(caller: Caller, command: Command) -> bool:
        if isinstance(command, Publish) and left[0]:
            left[0] -= 1
            caller.refuse(code, "in the broker's words")
            return True
        return caller.transport.is_closing()

    return script


@pytest.mark.parametrize("code", ["E_PUB_FAILED", "E_MPUB_FAILED", "E_DPUB_FAILED"])
async def test_a_refusal_that_passes_is_tried_again(
    code: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(publish_queue_module, "TRANSIENT_PAUSE", 0.05)
    async with Scripted(refuse_first(code, 2)) as peer, publishing(peer) as publisher:
        await write(publisher, b"a", b"b")
        assert peer.published == [b"a", b"b"]
        assert publisher.resent == 0
        told = [record.getMessage() for record in caplog.records if code in record.getMessage()]
        assert sum(line.endswith("; trying again") and "the broker says" in line for line in told) == 1, told


async def test_refusals_without_end_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish_queue_module, "TRANSIENT_PAUSE", 0.05)
    refusing = Scripted(refuse_first("E_MPUB_FAILED", 1_000_000))
    async with refusing as peer, publishing(peer, retry_timeout=0.5) as publisher:
        async with asyncio.timeout(10):
            with pytest.raises(BrokerError, match="E_MPUB_FAILED"):
                await write(publisher, b"a", b"b")
        assert peer.published == []


async def test_after_giving_up_the_next_publish_has_its_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker refuses for a while, one publish is given up, and the next one outlasts what is left of the refusals."""
    monkeypatch.setattr(publish_queue_module, "TRANSIENT_PAUSE", 0.05)
    refusing = True

    def script(caller: Caller, command: Command) -> bool:
        if isinstance(command, Publish) and refusing:
            caller.refuse("E_MPUB_FAILED", "the disk is full")
        return caller.transport.is_closing()

    async with Scripted(script) as peer, publishing(peer, retry_timeout=0.4) as publisher:
        clock = asyncio.get_running_loop().time
        with pytest.raises(BrokerError, match="E_MPUB_FAILED"):
            await write(publisher, b"a", b"b")
        begun = clock()
        with pytest.raises(BrokerError, match="E_MPUB_FAILED"):
            await write(publisher, b"c", b"d")
        assert clock() - begun >= 0.4
        late = asyncio.create_task(write(publisher, b"e", b"f"))
        await asyncio.sleep(0.2)
        refusing = False
        await late
        assert peer.published == [b"e", b"f"]


async def test_what_waits_as_long_is_given_up_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish_queue_module, "TRANSIENT_PAUSE", 0.05)
    refusing = Scripted(refuse_first("E_MPUB_FAILED", 1_000_000))
    async with refusing as peer, publishing(peer, retry_timeout=0.4) as publisher:
        begun = asyncio.get_running_loop().time()
        writes = [asyncio.create_task(write(publisher, b"a", b"b")) for _ in range(8)]
        for writing in writes:
            with pytest.raises(BrokerError, match="E_MPUB_FAILED"):
                await writing
        assert asyncio.get_running_loop().time() - begun < 2 * 0.4


async def test_a_publish_that_begins_without_a_broker_has_its_own_time() -> None:
    async with Scripted() as peer, publishing(peer, retry_timeout=0.6) as publisher:
        await peer.close()
        await until(lambda: "connections=0>" in repr(publisher))
        first = asyncio.create_task(write(publisher, b"a"))
        await asyncio.sleep(0.4)
        begun = asyncio.get_running_loop().time()
        second = asyncio.create_task(write(publisher, b"b"))
        for writing in (first, second):
            with pytest.raises(NetworkError):
                await writing
        assert asyncio.get_running_loop().time() - begun >= 0.6


async def test_a_publish_that_is_cancelled_leaves_nothing_in_memory() -> None:
    async with Scripted() as peer, publishing(peer) as publisher:
        await peer.close()
        await until(lambda: "connections=0>" in repr(publisher))
        first = asyncio.create_task(write(publisher, b"first"))
        await asyncio.sleep(0)
        writes = [asyncio.create_task(write(publisher, b"%d" % nth)) for nth in range(200)]
        await asyncio.sleep(0)
        for nth, writing in enumerate(writes):
            writing.cancel()
            await asyncio.wait((writing,))
            await asyncio.sleep(0)
            assert len(publisher._queues[None]._waiting) <= 2 * (200 - nth) + 1
        assert len(publisher._queues[None]._waiting) <= 2
        await peer.open()
        await first
        assert peer.published == [b"first"]


@pytest.mark.parametrize("code", ["E_BAD_TOPIC", "E_INVALID", "E_UNAUTHORIZED"])
async def test_a_refusal_for_good_is_raised(code: str) -> None:
    async with Scripted(refuse_first(code)) as peer, publishing(peer) as publisher:
        with pytest.raises(BrokerError, match=code):
            await write(publisher, b"a", b"b")
        await write(publisher, b"c")
        assert peer.published == [b"c"]


# ── sizes ───────────────────────────────────────────────────────────────────────────────────────


async def refused_of(publisher: NsqPublisher, bodies: Sequence[bytes]) -> dict[int, str]:
    """What of `bodies` was refused, by place, and why."""
    with pytest.raises(PartialFailure) as caught:
        await write(publisher, *bodies)
    assert all(isinstance(error, MessageRefused) for error in caught.value.failed.values())
    return {place: str(error) for place, error in caught.value.failed.items()}


async def test_an_empty_message_is_named_and_the_rest_sent() -> None:
    async with Scripted() as peer, publishing(peer) as publisher:
        refused = await refused_of(publisher, [b"a", b"", b"b", b""])
        assert refused == dict.fromkeys((1, 3), "it is empty, and NSQ has no empty messages")
        assert peer.published == [b"a", b"b"]


BIG = b"x" * (1024 * 1024 + 1)


async def test_what_is_over_nsqd_s_default_is_named_where_the_broker_cannot_be_asked() -> None:
    async with Scripted() as peer, publishing(peer) as publisher:
        refused = await refused_of(publisher, [b"a", BIG, b"b"])
        assert list(refused) == [1]
        assert refused[1].startswith("it has 1048577 bytes, the broker takes at most 1048576 ")
        assert peer.published == [b"a", b"b"]


async def test_what_is_over_nsqd_s_default_is_sent_where_the_broker_takes_it() -> None:
    async with Scripted() as peer, web(limits(1 << 22, 1 << 23)) as http:
        peer.http = http.base
        async with publishing(peer) as publisher:
            await write(publisher, b"a", BIG)
            await write(publisher, BIG)
            assert sorted(map(len, peer.published)) == [1, len(BIG), len(BIG)]
            assert http.asked["/config/max_msg_size"] == 1


async def test_writes_that_learn_the_limits_at_the_same_time_all_go_by_them() -> None:
    async with Scripted() as peer, web(limits(1 << 22, 1 << 23)) as http:
        may_answer = asyncio.Event()

        async def slowly(path: str) -> None:
            await may_answer.wait()

        http.before = slowly
        peer.http = http.base
        async with publishing(peer) as publisher:
            writes = [asyncio.create_task(write(publisher, BIG)) for _ in range(3)]
            await until(lambda: http.asked)
            may_answer.set()
            await asyncio.gather(*writes)
            assert len(peer.published) == 3


@asynccontextmanager
async def small(message: int, body: int, *, asked: bool) -> AsyncIterator[tuple[Scripted, Web]]:
    async with Scripted(Small(message, body)) as peer, web(limits(message, body)) as http:
        peer.http = http.base if asked else ""
        yield peer, http


async def test_a_broker_with_smaller_limits_is_asked_for_them_and_its_messages_cut_to_them() -> None:
    bodies = [b"%03d" % n + b"x" * (n % 17) for n in range(200)]
    bodies[50] = bodies[170] = b"y" * 21
    async with small(20, 300, asked=True) as (peer, http), publishing(peer) as publisher:
        refused = await refused_of(publisher, bodies)
        assert refused == dict.fromkeys((50, 170), "it has 21 bytes, the broker takes at most 20 (its --max-msg-size)")
        assert sorted(peer.published) == sorted(body for body in bodies if len(body) <= 20)
        assert http.asked["/config/max_msg_size"] == 1
        assert publisher.resent == 0  # nothing of what was refused had been queued
        known = len(peer.callers)
        await write(publisher, *[b"z" * 20] * 100)
        assert len(peer.callers) == known  # no connection more was lost over it


async def test_a_broker_with_smaller_limits_that_cannot_be_asked_shows_them() -> None:
    bodies = numbered(9)
    bodies[4] = b"y" * 21
    async with small(20, 1000, asked=False) as (peer, _), publishing(peer) as publisher:
        refused = await refused_of(publisher, bodies)
        assert list(refused) == [4]
        assert refused[4].startswith("it has 21 bytes, and the broker ")
        assert "E_BAD_MESSAGE PUB message too big" in refused[4]
        assert sorted(peer.published) == sorted(body for body in bodies if len(body) <= 20)


async def test_an_mpub_that_is_too_large_is_halved_where_the_limit_cannot_be_asked() -> None:
    async with small(1000, 60, asked=False) as (peer, _), publishing(peer) as publisher:
        await write(publisher, *numbered(12))
        assert peer.published == numbered(12)


async def test_one_deferred_message_that_is_too_large_is_named_and_the_others_go_on() -> None:
    bodies = numbered(7)
    bodies[3] = b"y" * 21
    async with small(20, 1000, asked=False) as (peer, _), publishing(peer, delay_ms=5) as publisher:
        refused = await refused_of(publisher, bodies)
        assert list(refused) == [3]
        assert peer.published == [body for body in bodies if len(body) <= 20]


@pytest.mark.parametrize("balance", [LeastBusy, RoundRobin, Fastest])
async def test_a_stalled_broker_holds_up_nothing_while_another_takes_bytes(balance: type[Any]) -> None:
    body = b"x" * 1_000_000
    async with (
        Scripted(silent) as stalled,
        Scripted() as free,
        publishing(stalled, free, balance=balance(), retry_timeout=0.5) as publisher,
    ):
        stalled.caller.transport.pause_reading()
        writes = [asyncio.create_task(write(publisher, body)) for _ in range(40)]
        # What the stalled one was sent before its socket was full waits; everything else has gone to the other one.
        await until(lambda: sum(writing.done() for writing in writes) + publisher.unanswered == len(writes))
        assert publisher.unanswered < 20
        await write(publisher, *numbered(3))
        await stalled.close()
        await asyncio.gather(*writes)
        assert free.published.count(body) == len(writes)


async def test_a_broker_that_stalls_is_not_taken_for_one_that_cannot_be_reached() -> None:
    async with Scripted(silent) as peer, publishing(peer, retry_timeout=0.2) as publisher:
        peer.caller.transport.pause_reading()
        writes = [asyncio.create_task(write(publisher, b"x" * 1_000_000)) for _ in range(20)]
        await asyncio.wait(writes, timeout=0.6)  # three times as long as it may be unreachable
        assert not any(writing.done() for writing in writes)
        peer.script = None
        peer.caller.transport.resume_reading()
        while publisher.unanswered:
            peer.caller.say(b"OK")
            await asyncio.sleep(0)
        await asyncio.gather(*writes)


async def test_limits_that_could_not_be_asked_are_asked_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Scripted() as peer, web() as http:
        peer.http = http.base
        async with publishing(peer) as publisher:
            assert list(await refused_of(publisher, [BIG])) == [0]
            http.pages.update(limits(1 << 22, 1 << 23))
            assert list(await refused_of(publisher, [BIG])) == [0]
            assert http.asked["/config/max_msg_size"] == 1
            now = asyncio.get_running_loop().time
            monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now() + ASK_AGAIN_AFTER)
            await write(publisher, BIG)
            assert peer.published == [BIG]


async def test_a_defect_of_the_sender_reaches_every_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> bytes:
        raise RuntimeError("a defect")

    async with Scripted() as peer, publishing(peer) as publisher:
        monkeypatch.setattr(PublishCommand, "encode", fail)
        for body in (b"a", b"b"):
            with pytest.raises(RuntimeError, match="a defect"):
                await write(publisher, body)


# ── to all ──────────────────────────────────────────────────────────────────────────────────────


async def test_to_replicate_is_to_wait_for_all() -> None:
    async with Scripted() as one, Scripted(silent) as two, publishing(one, two, replicate=True) as publisher:
        writing = asyncio.create_task(write(publisher, *numbered(3)))
        await until(lambda: one.published and two.caller.all(Publish))
        assert not writing.done()
        two.caller.say(b"OK")
        await writing
        assert one.published == numbered(3)
        assert [each.bodies for each in two.caller.all(Publish)] == [numbered(3)]


async def test_to_replicate_waits_for_one_that_is_down() -> None:
    async with Scripted() as one, Scripted() as two, publishing(one, two, replicate=True) as publisher:
        await two.close()
        await until(lambda: "connections=1>" in repr(publisher))
        writing = asyncio.create_task(write(publisher, b"a"))
        await until(lambda: one.published)
        assert not writing.done()
        await two.open()
        await writing
        assert (one.published, two.published) == ([b"a"], [b"a"])


async def test_what_one_of_all_refuses_is_named() -> None:
    async with Scripted() as one, Scripted(Small(5)) as two, publishing(one, two, replicate=True) as publisher:
        refused = await refused_of(publisher, [b"a", b"too large"])
        assert list(refused) == [1]
        assert two.published == [b"a"]


async def test_to_replicate_to_nobody_is_not_done() -> None:
    """All may be unknown for a while: nsqlookupd begins with an empty list."""
    nobody = (200, b'{"producers":[]}')
    async with Scripted() as peer, web({"/nodes": nobody}) as lookupd:
        publisher = NsqPublisher(Brokers(lookupd=(lookupd.base,)), settings(), replicate=True)
        await publisher.start()
        writing = asyncio.create_task(write(publisher, b"a"))
        await until(lambda: lookupd.asked["/nodes"] >= 1)
        await asyncio.sleep(0.05)
        assert not writing.done()
        lookupd.pages["/nodes"] = (
            200,
            b'{"producers":[{"broadcast_address":"127.0.0.1","tcp_port":%d,"http_port":0}]}' % peer.port,
        )
        await writing
        assert peer.published == [b"a"]
        # One that is named no more is still there as long as it is connected.
        lookupd.pages["/nodes"] = nobody
        publisher._pool.discovery.known = set()
        await write(publisher, b"b")
        assert peer.published == [b"a", b"b"]
        await publisher.close()


def named_by_lookupd(*peers: Scripted) -> tuple[int, bytes]:
    """What nsqlookupd answers to /nodes."""
    producers = [{"broadcast_address": "127.0.0.1", "tcp_port": peer.port, "http_port": 0} for peer in peers]
    return 200, json.dumps({"producers": producers}).encode()


@pytest.mark.parametrize("in_flight", [True, False])
async def test_to_replicate_does_not_wait_for_a_broker_that_nsqlookupd_names_no_more(
    in_flight: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(discovery_module, "POLL_SECONDS", 0.02)
    async with Scripted() as one, Scripted(silent) as two, web() as lookupd:
        lookupd.pages["/nodes"] = named_by_lookupd(one, two)
        publisher = NsqPublisher(Brokers(lookupd=(lookupd.base,)), settings(), replicate=True)
        await publisher.start()
        await until(lambda: publisher.connected == 2)
        if in_flight:
            writing = asyncio.create_task(write(publisher, b"a", b"b"))
            await until(lambda: one.published and two.caller.all(Publish))
            await two.close()
        else:
            await two.close()
            await until(lambda: publisher.connected == 1)
            writing = asyncio.create_task(write(publisher, b"a", b"b"))
            await until(lambda: one.published)
        assert not writing.done()
        lookupd.pages["/nodes"] = named_by_lookupd(one)
        await writing
        assert one.published == [b"a", b"b"]
        assert publisher.published == 2
        warning = f"{two.address} is gone and nsqlookupd no longer lists it: 2 messages are not replicated to it"
        assert warning in [record.getMessage() for record in caplog.records]
        await write(publisher, b"c")
        assert one.published == [b"a", b"b", b"c"]
        senders = [task for task in asyncio.all_tasks() if "_send_all" in repr(task.get_coro())]
        assert len(senders) == 1  # the one of the other broker: brokers that come and go leave nothing behind
        # When it is back and named, it gets what comes from then on.
        two.script = None
        await two.open()
        lookupd.pages["/nodes"] = named_by_lookupd(one, two)
        await until(lambda: publisher.connected == 2)
        await write(publisher, b"d")
        assert (one.published[-1], two.published) == (b"d", [b"d"])
        await publisher.close()


async def test_to_replicate_to_a_last_broker_that_is_named_no_more_is_not_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery_module, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(discovery_module, "POLL_SECONDS_EMPTY", 0.02)
    async with Scripted(silent) as peer, Scripted() as other, web() as lookupd:
        lookupd.pages["/nodes"] = named_by_lookupd(peer)
        publisher = NsqPublisher(Brokers(lookupd=(lookupd.base,)), settings(), replicate=True)
        await publisher.start()
        writing = asyncio.create_task(write(publisher, b"a"))
        await until(lambda: peer.caller.all(Publish))
        lookupd.pages["/nodes"] = named_by_lookupd()
        await peer.close()
        await until(lambda: publisher.connected == 0)
        asked = lookupd.asked["/nodes"]
        await until(lambda: lookupd.asked["/nodes"] > asked + 2)
        assert not writing.done()
        lookupd.pages["/nodes"] = named_by_lookupd(other)
        await writing
        assert other.published == [b"a"]
        await publisher.close()


async def test_to_replicate_to_nobody_is_given_up_in_time() -> None:
    async with web({"/nodes": (200, b'{"producers":[]}')}) as lookupd:
        publisher = NsqPublisher(Brokers(lookupd=(lookupd.base,)), settings(), replicate=True, retry_timeout=0.2)
        await publisher.start()
        with pytest.raises(NetworkError, match=r"no broker could be reached for 0\.2 s"):
            await write(publisher, b"a")
        await publisher.close()


# ── many topics ─────────────────────────────────────────────────────────────────────────────────


def asked_for(peer: Scripted) -> list[tuple[str, list[bytes]]]:
    return [(each.topic, list(each.bodies)) for caller in peer.callers for each in caller.all(Publish)]


async def publish(publisher: NsqPublisher, *groups: tuple[str, list[bytes]]) -> dict[tuple[int, int], str]:
    async with asyncio.timeout(8):
        return {at: str(error) for at, error in (await publisher.publish(groups)).items()}


async def test_topics_share_a_connection_and_each_is_one_command() -> None:
    async with Scripted() as peer, publishing(peer) as publisher:
        groups = [(f"topic-{nth}", numbered(3, nth)) for nth in range(50)]
        assert await publish(publisher, *groups) == {}
        assert asked_for(peer) == groups
        assert len(peer.callers) == 1


async def test_what_one_topic_refuses_is_named_by_its_group_and_place() -> None:
    async with Scripted() as peer, publishing(peer) as publisher:
        refused = await publish(publisher, ("a", [b"1", b""]), ("b", [b"2"]), ("c", [b"", b"3"]))
        assert refused == dict.fromkeys(((0, 1), (2, 0)), "it is empty, and NSQ has no empty messages")
        assert asked_for(peer) == [("a", [b"1"]), ("b", [b"2"]), ("c", [b"3"])]


async def test_a_topic_that_is_refused_for_good_takes_none_of_the_others_with_it() -> None:
    def script(caller: Caller, command: Command) -> bool:
        if caller.transport.is_closing():
            return True
        if isinstance(command, Publish) and command.topic == "secret":
            caller.refuse("E_UNAUTHORIZED", "not for you")
            return True
        return False

    async with Scripted(script) as peer, publishing(peer, batch_count=2) as publisher:
        refused = await publish(publisher, ("a", numbered(2)), ("secret", numbered(5)), ("b", numbered(3)))
        assert set(refused) == {(1, nth) for nth in range(5)}
        assert all("E_UNAUTHORIZED" in why for why in refused.values())
        assert sorted(peer.published) == sorted(numbered(2) + numbered(3))


async def test_after_a_loss_only_the_topics_that_were_not_answered_go_again() -> None:
    def script(caller: Caller, command: Command) -> bool:
        if isinstance(command, Publish) and len(caller.peer.callers) == 1:
            if command.topic == "c":
                caller.transport.close()
            return command.topic >= "c"
        return False

    async with Scripted(script) as peer, publishing(peer) as publisher:
        assert await publish(publisher, *[(name, numbered(2)) for name in "abcd"]) == {}
        assert [name for name, _ in asked_for(peer)] == ["a", "b", "c", "d", "c", "d"][-len(asked_for(peer)) :]
        assert peer.published == numbered(2) * 4
        assert publisher.resent == 4


async def test_a_message_too_large_for_the_broker_is_told_whatever_its_topic() -> None:
    async with small(20, 1000, asked=False) as (peer, _), publishing(peer) as publisher:
        refused = await publish(publisher, ("a", numbered(3)), ("b", [b"x", b"y" * 21, b"z"]), ("c", numbered(2)))
        assert list(refused) == [(1, 1)]
        assert sorted(peer.published) == sorted([*numbered(3), b"x", b"z", *numbered(2)])


# ── which broker ────────────────────────────────────────────────────────────────────────────────


async def test_round_robin_takes_each_in_turn() -> None:
    async with Scripted() as one, Scripted() as two, publishing(one, two, balance=RoundRobin()) as publisher:
        for nth in range(10):
            await write(publisher, b"%d" % nth)
        assert [len(peer.published) for peer in (one, two)] == [5, 5]


async def test_the_fastest_is_preferred_and_the_slow_one_tried_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(balance_module, "FORGET", 0.05)

    def slowly(caller: Caller, command: Command) -> bool:
        if isinstance(command, Publish) and not caller.peer.quick:  # type: ignore[attr-defined]
            asyncio.get_running_loop().call_later(0.05, caller.say, b"OK")
            return True
        return False

    async with Scripted(slowly) as slow, Scripted() as fast:
        slow.quick = False  # type: ignore[attr-defined]
        async with publishing(slow, fast, balance=Fastest()) as publisher:
            for _ in range(20):
                await write(publisher, b"x")
            assert len(slow.callers[0].all(Publish)) <= 5
            before = len(slow.callers[0].all(Publish))
            slow.quick = True  # type: ignore[attr-defined]
            async with asyncio.timeout(5):
                while len(slow.callers[0].all(Publish)) == before:
                    await write(publisher, b"x")
                    await asyncio.sleep(0.005)


@pytest.mark.parametrize("balance", [RoundRobin, Fastest])
async def test_a_dead_one_is_left_out_and_has_its_share_when_it_is_back(balance: type[Any]) -> None:
    async with Scripted() as one, Scripted() as two, publishing(one, two, balance=balance()) as publisher:
        await one.close()
        await until(lambda: publisher.connected == 1)
        for nth in range(10):
            await write(publisher, b"%d" % nth)
        assert len(two.published) == 10
        await one.open()
        await until(lambda: publisher.connected == 2)
        await asyncio.gather(*(write(publisher, b"%d" % nth) for nth in range(40)))
        assert one.published
