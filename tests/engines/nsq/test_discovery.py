"""Every nsqlookupd is asked, and the union counts."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest

from qtools.engines.nsq import discovery as module
from qtools.engines.nsq.address import Address, Brokers
from qtools.engines.nsq.discovery import Discovery
from qtools.engines.nsq.topics import TopicLister
from qtools.errors import StartError
from tests.engines.nsq.scripted import Answer, settings, web

pytestmark = pytest.mark.usefixtures("tidy")

LOOKUP = "/lookup?topic=events"


def producers(*each: tuple[str, int, int]) -> Answer:
    told = [{"broadcast_address": host, "tcp_port": tcp, "http_port": http} for host, tcp, http in each]
    return 200, json.dumps({"channels": [], "producers": told}).encode()


NOT_FOUND = (404, b'{"message":"TOPIC_NOT_FOUND"}')


async def look(*bases: str, topic: str | None = "events") -> set[Address]:
    discovery = Discovery(Brokers(lookupd=bases), topic, settings())
    try:
        found = await discovery.look()
        assert discovery.known == found
        return found
    finally:
        await discovery.close()


async def test_the_union_of_all_answers_counts() -> None:
    async with (
        web({LOOKUP: producers(("a", 1, 2), ("b", 3, 4))}) as one,
        web({LOOKUP: producers(("b", 3, 4), ("c", 5, 6))}) as two,
    ):
        assert await look(one.base, two.base) == {
            Address("a", 1, http="http://a:2"),
            Address("b", 3, http="http://b:4"),
            Address("c", 5, http="http://c:6"),
        }


async def test_to_publish_anywhere_all_nsqds_are_asked_for() -> None:
    async with web({"/nodes": producers(("a", 1, 2))}) as one:
        assert await look(one.base, topic=None) == {Address("a", 1, http="http://a:2")}
        assert one.asked == {"/nodes": 1}


async def test_an_ipv6_address_has_brackets_in_its_url() -> None:
    async with web({LOOKUP: producers(("::1", 1, 2))}) as one:
        (address,) = await look(one.base)
        assert (address.host, str(address), address.http) == ("::1", "[::1]:1", "http://[::1]:2")


async def test_a_producer_without_a_tcp_door_is_none_and_one_without_http_has_none() -> None:
    async with web({LOOKUP: producers(("a", 0, 2), ("b", 1, 0))}) as one:
        assert await look(one.base) == {Address("b", 1)}


async def test_a_topic_that_nobody_has_yet_is_no_failure() -> None:
    async with web({LOOKUP: NOT_FOUND}) as one:
        assert await look(one.base) == set()


BROKEN: list[tuple[Answer, str]] = [
    ((404, b"404 page not found"), "answers 404: is it nsqlookupd's HTTP port"),
    ((500, b'{"message":"INTERNAL_ERROR"}'), "answers 500: is it nsqlookupd's HTTP port"),
    ((200, b"<html>"), "something that is not JSON"),
    ((200, b"[" * 100_000), "something that is not JSON"),
    ((200, b"[]"), "JSON that is not nsqlookupd's"),
    ((200, b'{"producers":[{}]}'), "in a form that is not nsqlookupd's"),
    ((200, b'{"producers":{"a":1}}'), "in a form that is not nsqlookupd's"),
    ((200, b'{"producers":7}'), "in a form that is not nsqlookupd's"),
]


@pytest.mark.parametrize(("answer", "why"), BROKEN)
async def test_one_that_answers_nonsense_is_named_and_the_others_count(
    answer: Answer, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with web({LOOKUP: answer}) as broken, web({LOOKUP: producers(("a", 1, 2))}) as good:
        assert await look(broken.base, good.base) == {Address("a", 1, http="http://a:2")}
        (record,) = caplog.records
        assert (record.levelno, record.name) == (logging.WARNING, "qtools.client")
        assert broken.base in record.getMessage()
        assert why in record.getMessage()
        with pytest.raises(StartError, match="no nsqlookupd answers"):
            await look(broken.base)


async def test_one_that_is_down_is_said_once_and_again_only_after_it_was_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with web({LOOKUP: producers(("a", 1, 2))}) as good, web({LOOKUP: (500, b"{}")}) as weak:
        discovery = Discovery(Brokers(lookupd=(weak.base, good.base)), "events", settings())
        for _ in range(3):
            await discovery.look()
        assert len(caplog.records) == 1
        weak.pages[LOOKUP] = NOT_FOUND
        await discovery.look()
        weak.pages[LOOKUP] = (500, b"{}")
        await discovery.look()
        assert len(caplog.records) == 2
        await discovery.close()


async def test_when_nobody_answers_what_was_known_stays_known() -> None:
    async with web({LOOKUP: producers(("a", 1, 2))}) as one:
        discovery = Discovery(Brokers(lookupd=(one.base,)), "events", settings())
        found = await discovery.look()
        one.pages[LOOKUP] = (500, b"{}")
        with pytest.raises(StartError, match=f"no nsqlookupd answers: {one.base}"):
            await discovery.look()
        assert discovery.known == found
        await discovery.close()


async def test_an_error_that_is_raised_is_not_logged_as_well(caplog: pytest.LogCaptureFixture) -> None:
    async with web({LOOKUP: (500, b"{}")}) as one, web({LOOKUP: (500, b"{}")}) as two:
        brokers = Brokers(lookupd=(one.base, two.base))
        discovery = Discovery(brokers, "events", settings())
        with pytest.raises(StartError, match=f"{one.base} answers 500.*; {two.base} answers 500"):
            await discovery.look()
        assert not caplog.records
        for _ in range(2):
            assert await discovery.look_again() == set()
        assert [record.getMessage().endswith("; looking again") for record in caplog.records] == [True]
        await discovery.close()


async def test_an_outage_is_logged_once_in_a_run(caplog: pytest.LogCaptureFixture) -> None:
    """What asks before the run, the consumer, and what looks for topics share what they know of nsqlookupds."""
    pages = {LOOKUP: producers(("a", 1, 2)), "/topics": (200, b'{"topics":["events"]}')}
    async with web(pages) as good, web({}) as weak:
        weak.pages = {LOOKUP: (500, b"{}"), "/topics": (500, b"{}")}
        brokers = Brokers(lookupd=(weak.base, good.base))
        first, second = (Discovery(brokers, "events", settings()) for _ in range(2))
        topics = TopicLister(brokers, settings())
        await first.look()
        await second.look()
        await topics.look()
        assert len(caplog.records) == 1
        for each in (first, second, topics):
            await each.close()


async def test_addresses_that_were_given_are_asked_of_nobody() -> None:
    address = Address("a", 1)
    discovery = Discovery(Brokers(nsqd=(address,)), "events", settings())
    assert await discovery.look() == {address}
    waiting = asyncio.create_task(discovery.wait_next_poll())
    for _ in range(10):
        await asyncio.sleep(0)
    assert not waiting.done()
    waiting.cancel()
    await asyncio.wait((waiting,))
    await discovery.close()


@pytest.mark.parametrize(("known", "pause"), [(set(), 1.0), ({Address("a", 1)}, 15.0)])
async def test_who_waits_for_a_first_nsqd_looks_every_second(
    known: Any, pause: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(module.asyncio, "sleep", sleep)
    discovery = Discovery(Brokers(lookupd=("http://127.0.0.1:1",)), "events", settings())
    discovery.known = known
    for _ in range(100):
        await discovery.wait_next_poll()
    assert all(0.9 * pause <= seconds <= 1.1 * pause for seconds in slept)
    assert len(set(slept)) > 1
