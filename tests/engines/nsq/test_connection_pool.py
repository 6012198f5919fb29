"""Many addresses, each kept connected: how it begins, goes on after a loss, and ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from qtools.engines.connections import keep_connected as module
from qtools.engines.nsq.address import Address, Brokers
from qtools.engines.nsq.connection import Connection
from qtools.engines.nsq.connection_pool import ConnectionPool
from qtools.engines.nsq.discovery import Discovery
from qtools.engines.nsq.protocol.client_commands import Close, Identify, Sub
from qtools.errors import StartError
from tests.engines.nsq.scripted import Scripted, settings, until

pytestmark = pytest.mark.usefixtures("tidy")

NOBODY = Address("127.0.0.1", 1)


class Named(Discovery):
    """A discovery whose answers a test sets; it looks when told to."""

    def __init__(self, *addresses: Address) -> None:
        super().__init__(Brokers(nsqd=addresses), None, settings())
        self.poll = asyncio.Event()
        self.looks = 0
        self.fails = False

    async def look(self) -> set[Address]:
        self.looks += 1
        if self.fails:
            raise StartError("no nsqlookupd answers")
        return self.known

    async def wait_next_poll(self) -> None:
        await self.poll.wait()
        self.poll.clear()


class Using:
    """What a consumer or a publisher is to its links."""

    def __init__(self, up: Callable[[Connection], Awaitable[None]] | None = None) -> None:
        self.told: list[tuple[str, Connection]] = []
        self._up = up

    async def up(self, connection: Connection) -> None:
        if self._up is not None:
            await self._up(connection)
        self.told.append(("up", connection))

    def down(self, connection: Connection) -> None:
        self.told.append(("down", connection))

    @property
    def words(self) -> list[str]:
        return [word for word, _ in self.told]


def links_to(discovery: Discovery, using: Using, **some: Any) -> ConnectionPool:
    return ConnectionPool(discovery, settings(**some), using.up, using.down)


# ── the beginning ───────────────────────────────────────────────────────────────────────────────


async def test_it_begins_with_the_first_connection_that_is_up() -> None:
    async with Scripted() as peer:
        using = Using()
        pool = links_to(Named(peer.address), using)
        await pool.start()
        assert list(pool.up) == [peer.address]
        assert repr(pool) == "<ConnectionPool 1 of 1 up>"
        await pool.close()
        assert using.words == ["up", "down"]
        assert peer.caller.ended


async def test_when_nobody_can_be_reached_it_says_why_for_each() -> None:
    async with Scripted(lambda caller, command: caller.refuse("E_BAD_BODY", "no") or True) as peer:
        pool = links_to(Named(NOBODY), Using())
        with pytest.raises(StartError, match=r"^127\.0\.0\.1:1: nothing listens there; is nsqd running\?$"):
            await pool.start()
        pool = links_to(Named(NOBODY, peer.address), Using())
        with pytest.raises(StartError) as caught:
            await pool.start()
        assert sorted(str(caught.value).split("; ")) == sorted(
            [
                "127.0.0.1:1: nothing listens there",
                "is nsqd running?",
                f"{peer.address}: the broker refused IDENTIFY: E_BAD_BODY no",
            ]
        )


async def test_one_of_two_that_is_down_is_said_once_and_the_other_is_used(caplog: pytest.LogCaptureFixture) -> None:
    async with Scripted() as peer:
        using = Using()
        pool = links_to(Named(NOBODY, peer.address), using)
        await pool.start()
        await until(lambda: len(caplog.records) == 1)
        keeper_failed_again = asyncio.get_running_loop().time() + 0.7  # the second and the third try are over
        await until(lambda: asyncio.get_running_loop().time() > keeper_failed_again)
        assert [record.getMessage() for record in caplog.records] == [
            "127.0.0.1:1: nothing listens there; is nsqd running?; trying again"
        ]
        await pool.close()


async def test_one_that_fails_after_the_start_is_said_as_well(caplog: pytest.LogCaptureFixture) -> None:
    may_answer = asyncio.Event()

    def script(caller: Any, command: Any) -> bool:
        if may_answer.is_set():
            caller.transport.close()
        return True

    async with Scripted() as good, Scripted(script) as slow:
        pool = links_to(Named(good.address, slow.address), Using(), connect_timeout=0.2)
        await pool.start()
        assert not caplog.records
        await until(lambda: caplog.records)
        assert f"{slow.address}: no NSQ handshake within 0.2 s; trying again" in caplog.records[0].getMessage()
        await pool.close()


async def test_where_no_address_is_known_yet_it_begins_and_looks_on(caplog: pytest.LogCaptureFixture) -> None:
    async with Scripted() as peer:
        using, discovery = Using(), Named()
        pool = links_to(discovery, using)
        await pool.start()
        assert len(caplog.records) == 1
        discovery.known = {peer.address}
        discovery.poll.set()
        await until(lambda: using.words == ["up"])
        await pool.close()


async def test_what_on_up_refuses_counts_as_a_failure_and_leaves_no_socket() -> None:
    async with Scripted(
        lambda caller, command: isinstance(command, Sub) and (caller.refuse("E_UNAUTHORIZED") or True)
    ) as peer:
        pool = links_to(Named(peer.address), Using(lambda connection: connection.subscribe("events", "archive")))
        with pytest.raises(StartError, match="E_UNAUTHORIZED"):
            await pool.start()
        await until(lambda: peer.caller.lost.done())


async def test_a_defect_is_neither_waited_for_nor_hidden() -> None:
    async def defect(connection: Connection) -> None:
        raise ZeroDivisionError

    async with Scripted() as peer:
        pool = links_to(Named(peer.address), Using(defect))
        with pytest.raises(ZeroDivisionError):
            async with asyncio.timeout(5):
                await pool.start()
        await pool.close()
        await until(lambda: peer.caller.lost.done())


async def test_a_host_that_is_no_name_is_a_failure_like_any_other() -> None:
    """nsqlookupd may name one."""
    pool = links_to(Named(Address("a..b", 1)), Using())
    with pytest.raises(StartError, match=r"the host name 'a\.\.b' is not known"):
        async with asyncio.timeout(5):
            await pool.start()


# ── a loss ──────────────────────────────────────────────────────────────────────────────────────


async def test_a_lost_connection_is_back_within_a_second(caplog: pytest.LogCaptureFixture) -> None:
    async with Scripted() as peer:
        using = Using()
        pool = links_to(Named(peer.address), using)
        await pool.start()
        clock = asyncio.get_running_loop().time
        begun = clock()
        peer.caller.cut()
        await until(lambda: using.words == ["up", "down", "up"])
        assert clock() - begun < 1.0
        assert pool.reconnects == 1
        assert [record.getMessage().partition("; ")[2] or record.getMessage() for record in caplog.records] == [
            "trying again",
            f"{peer.address} is back",
        ]
        await pool.close()


async def test_a_broker_that_is_away_for_a_while_is_found_again() -> None:
    async with Scripted() as peer:
        using = Using()
        pool = links_to(Named(peer.address), using)
        await pool.start()
        await peer.close()
        await until(lambda: using.words == ["up", "down"])
        await asyncio.sleep(0.3)  # a try or two in vain
        await peer.open()
        await until(lambda: using.words == ["up", "down", "up"])
        await pool.close()


async def test_an_address_nobody_names_any_more_is_kept_while_it_lives_and_not_tried_again() -> None:
    async with Scripted() as peer:
        using, discovery = Using(), Named(peer.address)
        pool = links_to(discovery, using)
        await pool.start()
        discovery.known = set()
        discovery.poll.set()
        await until(lambda: discovery.looks == 2)
        assert using.words == ["up"]
        peer.caller.cut()
        await until(lambda: repr(pool) == "<ConnectionPool 0 of 0 up>")
        assert len(peer.callers) == 1
        discovery.known = {peer.address}  # it is named again: a beginning
        discovery.poll.set()
        await until(lambda: using.words == ["up", "down", "up"])
        await pool.close()


async def test_nsqlookupds_that_are_all_away_change_nothing() -> None:
    async with Scripted() as peer:
        using, discovery = Using(), Named(peer.address)
        pool = links_to(discovery, using)
        await pool.start()
        discovery.fails = True
        discovery.poll.set()
        await until(lambda: discovery.looks == 2)
        discovery.fails = False
        discovery.poll.set()
        await until(lambda: discovery.looks == 3)
        assert using.words == ["up"]
        await pool.close()


async def test_a_refusal_is_not_tried_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AFTER_REFUSAL", 0.8)
    async with Scripted() as good, Scripted(lambda caller, command: caller.refuse("E_BAD_BODY") or True) as bad:
        pool = links_to(Named(good.address, bad.address), Using())
        await pool.start()
        await until(lambda: len(bad.callers) == 1)
        begun = asyncio.get_running_loop().time()
        await until(lambda: len(bad.callers) == 2)
        assert asyncio.get_running_loop().time() - begun > 0.6
        await pool.close()


# ── the end ─────────────────────────────────────────────────────────────────────────────────────


async def test_the_end_while_a_connection_comes_about_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qtools.engines.connections.stream_connection.LINGER", 0.1)
    for stuck in (Identify, Sub, Close):
        async with Scripted() as good, Scripted(lambda caller, command, kind=stuck: isinstance(command, kind)) as slow:
            subscribing = Using(lambda connection: connection.subscribe("events", "archive"))
            pool = links_to(Named(good.address, slow.address), subscribing)
            await pool.start()
            await until(lambda: slow.callers and (slow.caller.all(Identify)))
            if stuck is not Identify:
                await until(lambda: slow.caller.all(Sub))
            async with asyncio.timeout(8):
                await pool.close()
            await until(lambda: slow.caller.lost.done())


async def test_a_start_that_is_given_up_leaves_nothing() -> None:
    async with Scripted(lambda caller, command: True) as slow:
        pool = links_to(Named(slow.address), Using())
        starting = asyncio.create_task(pool.start())
        await until(lambda: slow.callers and slow.caller.heard)
        starting.cancel()
        await asyncio.wait((starting,))
        await pool.close()
        await until(lambda: slow.caller.lost.done())


async def test_all_connections_are_closed_at_once() -> None:
    async with Scripted() as one, Scripted() as two:
        subscribing = Using(lambda connection: connection.subscribe("events", "archive"))
        pool = links_to(Named(one.address, two.address), subscribing)
        await pool.start()
        await until(lambda: len(pool.up) == 2)
        await pool.close()
        for peer in (one, two):
            assert peer.caller.all(Close)
            assert peer.caller.ended
        assert not pool.up


def test_what_is_said_is_said_to_the_client_s_logger() -> None:
    assert module.logger is logging.getLogger("qtools.client")
