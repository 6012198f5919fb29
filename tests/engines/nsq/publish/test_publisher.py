"""Many connections as one Sink: every message answered OK, whatever happens on the way, or named."""

from __future__ import annotations

import asyncio

import pytest

from qtools.engines.nsq.address import Brokers
from qtools.engines.nsq.protocol import commands
from qtools.engines.nsq.protocol.client_commands import Command, Publish
from qtools.engines.nsq.publish.publisher import NsqPublisher
from qtools.errors import NetworkError, StartError
from tests.engines.nsq.publish.publishing import numbered, publish, publishing, silent, small, write
from tests.engines.nsq.scripted import Caller, Scripted, settings, until

pytestmark = pytest.mark.usefixtures("tidy")


# ── what is sent ──────────────────────────────────────────────────────────────────────────────────


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


# ── losses ────────────────────────────────────────────────────────────────────────────────────────


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
        for _ in range(5):  # it waits for a broker then
            await asyncio.sleep(0)
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


# ── many topics ───────────────────────────────────────────────────────────────────────────────────


def asked_for(peer: Scripted) -> list[tuple[str, list[bytes]]]:
    return [(each.topic, list(each.bodies)) for caller in peer.callers for each in caller.all(Publish)]


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
