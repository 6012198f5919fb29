"""Messages and commands that are too large: named, or cut to what the broker takes."""

from __future__ import annotations

import asyncio

import pytest

from qtools.engines.nsq.publish.publisher import ASK_AGAIN_AFTER
from tests.engines.nsq.publish.publishing import BIG, limits, numbered, publishing, refused_of, small, write
from tests.engines.nsq.scripted import Scripted, until, web

pytestmark = pytest.mark.usefixtures("tidy")


async def test_an_empty_message_is_named_and_the_rest_sent() -> None:
    async with Scripted() as peer, publishing(peer) as publisher:
        refused = await refused_of(publisher, [b"a", b"", b"b", b""])
        assert refused == dict.fromkeys((1, 3), "it is empty, and NSQ has no empty messages")
        assert peer.published == [b"a", b"b"]


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
