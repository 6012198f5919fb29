"""What a broker refuses: tried again for a time, or named at once."""

from __future__ import annotations

import asyncio

import pytest

from qtools.engines.nsq.protocol.client_commands import Command, Publish
from qtools.engines.nsq.publish import publish_queue as publish_queue_module
from qtools.engines.nsq.publish.batch_splitter import PublishCommand
from qtools.errors import BrokerError, NetworkError
from tests.engines.nsq.publish.publishing import publishing, refuse_first, write
from tests.engines.nsq.scripted import Caller, Scripted, until

pytestmark = pytest.mark.usefixtures("tidy")


# ── refusals ──────────────────────────────────────────────────────────────────────────────────────


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

    async with Scripted(script) as peer, publishing(peer, retry_timeout=1.0) as publisher:
        clock = asyncio.get_running_loop().time
        with pytest.raises(BrokerError, match="E_MPUB_FAILED"):
            await write(publisher, b"a", b"b")
        begun = clock()
        with pytest.raises(BrokerError, match="E_MPUB_FAILED"):
            await write(publisher, b"c", b"d")
        assert clock() - begun >= 1.0
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


# ── sizes ─────────────────────────────────────────────────────────────────────────────────────────


async def test_a_defect_of_the_sender_reaches_every_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> bytes:
        raise RuntimeError("a defect")

    async with Scripted() as peer, publishing(peer) as publisher:
        monkeypatch.setattr(PublishCommand, "encode", fail)
        for body in (b"a", b"b"):
            with pytest.raises(RuntimeError, match="a defect"):
                await write(publisher, body)
