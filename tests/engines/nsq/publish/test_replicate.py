"""A publisher that replicates waits for all brokers."""

from __future__ import annotations

import asyncio
import json

import pytest

from qtools.engines.nsq import discovery as discovery_module
from qtools.engines.nsq.address import Brokers
from qtools.engines.nsq.protocol.client_commands import Publish
from qtools.engines.nsq.publish.publisher import NsqPublisher
from qtools.errors import NetworkError
from tests.engines.nsq.publish.publishing import Small, numbered, publishing, refused_of, silent, write
from tests.engines.nsq.scripted import Scripted, settings, until, web

pytestmark = pytest.mark.usefixtures("tidy")


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
