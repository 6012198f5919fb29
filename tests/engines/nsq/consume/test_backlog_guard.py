"""A temporary channel may not take what waits for the first channel of a topic."""

from __future__ import annotations

import asyncio
import json

import pytest

from qtools.engines.nsq import http_client
from qtools.engines.nsq.address import Address, Brokers
from qtools.engines.nsq.consume.backlog_guard import refuse_to_take_backlog
from qtools.errors import StartError, UsageError
from qtools.names import Subscription
from tests.engines.nsq.scripted import Answer, settings, web

pytestmark = pytest.mark.usefixtures("tidy")

SOURCE = Subscription("events", "tail#ephemeral")
STATS = "/stats?format=json&topic=events&include_clients=false"


def stats(depth: int, *channels: str) -> dict[str, Answer]:
    told = [{"channel_name": name, "depth": 5, "in_flight_count": 0, "deferred_count": 0} for name in channels]
    return {STATS: (200, json.dumps({"topics": [{"topic_name": "events", "depth": depth, "channels": told}]}).encode())}


def at(*bases: str) -> Brokers:
    return Brokers(nsqd=tuple(Address("a", 1 + nth, http=base) for nth, base in enumerate(bases)))


async def test_messages_that_wait_for_a_first_channel_are_left_alone() -> None:
    async with web(stats(1)) as one, web(stats(2000)) as two, web(stats(9, "archive")) as three:
        with pytest.raises(UsageError, match=r"events has no channel yet and 2,001 messages: .*: events/NAME"):
            await refuse_to_take_backlog([SOURCE], at(one.base, two.base, three.base), settings())
        with pytest.raises(UsageError, match=r"events has no channel yet and 1 message: .*would take it,"):
            await refuse_to_take_backlog([SOURCE], at(one.base), settings())


@pytest.mark.parametrize(
    "pages",
    [stats(7, "archive"), stats(0), {STATS: (200, b'{"topics":[]}')}, {STATS: (500, b"{}")}, {STATS: (200, b"7")}],
)
async def test_where_nothing_can_be_lost_or_nothing_is_told_it_goes_on(pages: dict[str, Answer]) -> None:
    async with web(pages) as server:
        await refuse_to_take_backlog([SOURCE], at(server.base, "", "http://127.0.0.1:1"), settings())


async def test_a_busy_broker_may_hold_the_only_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_client, "TIMEOUT", 0.05)
    async with web(stats(5)) as server:

        async def never(path: str) -> None:
            await asyncio.Event().wait()

        server.before = never
        with pytest.raises(StartError, match=r"does not answer whether events has messages .* as in events/NAME"):
            await refuse_to_take_backlog([SOURCE], at(server.base), settings())


async def test_nsqds_are_those_that_nsqlookupd_names() -> None:
    async with web(stats(3)) as nsqd:
        port = int(nsqd.base.rpartition(":")[2])
        told = {"producers": [{"broadcast_address": "127.0.0.1", "tcp_port": 1, "http_port": port}]}
        async with web({"/lookup?topic=events": (200, json.dumps(told).encode())}) as lookupd:
            with pytest.raises(UsageError, match="3 messages"):
                await refuse_to_take_backlog([SOURCE], Brokers(lookupd=(lookupd.base,)), settings())
    with pytest.raises(StartError, match="no nsqlookupd answers"):
        await refuse_to_take_backlog([SOURCE], Brokers(lookupd=("http://127.0.0.1:1",)), settings())
