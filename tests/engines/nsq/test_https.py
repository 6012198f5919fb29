"""Every question to an HTTP API over TLS trusts the certificates that --tls-ca names, and no others."""

from __future__ import annotations

import json
import ssl
from collections.abc import Awaitable, Callable

import pytest
from harness.certificates import Certificates

from qtools.engines.nsq.address import Address, Brokers
from qtools.engines.nsq.consume.backlog_guard import refuse_to_take_backlog
from qtools.engines.nsq.consume.history import peek
from qtools.engines.nsq.discovery import Discovery
from qtools.engines.nsq.settings import Settings
from qtools.engines.nsq.topics import TopicLister
from qtools.errors import QtoolsError
from qtools.names import Subscription

from .scripted import Web, settings, web

SOURCE = Subscription("events", "me#ephemeral")
PAGES = {
    "/lookup?topic=events": {"channels": [], "producers": []},
    "/topics": {"topics": ["events"]},
    "/stats?format=json&topic=events&include_clients=false": {
        "topics": [{"topic_name": "events", "depth": 3, "channels": []}]
    },
    "/info": {"version": "1.3.0", "durable": True},
    "/channel/peek?topic=events&channel=me%23ephemeral&count=1": {"messages": []},
}

Ask = Callable[[str, Settings], Awaitable[object]]


def nsqd(base: str) -> Brokers:
    return Brokers(nsqd=(Address("127.0.0.1", 4150, http=base),))


async def look_up(base: str, some: Settings) -> object:
    discovery = Discovery(Brokers(lookupd=(base,)), "events", some)
    try:
        return await discovery.look()
    finally:
        await discovery.close()


async def list_topics(base: str, some: Settings) -> object:
    topics = TopicLister(Brokers(lookupd=(base,)), some)
    try:
        return await topics.look()
    finally:
        await topics.close()


async def guard_backlog(base: str, some: Settings) -> object:
    try:
        await refuse_to_take_backlog([SOURCE], nsqd(base), some)
    except QtoolsError as error:
        return str(error)
    raise QtoolsError("nothing was asked")


async def peek_one(base: str, some: Settings) -> object:
    return await peek(SOURCE, nsqd(base), some, 1)


@pytest.mark.parametrize(
    ("ask", "answer"),
    [(look_up, set()), (list_topics, {"events"}), (guard_backlog, "3 messages"), (peek_one, [])],
)
async def test_the_given_ca_is_trusted(ask: Ask, answer: object, certificates: Certificates) -> None:
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(certificates.server_cert, certificates.server_key)
    pages = {path: (200, json.dumps(page).encode()) for path, page in PAGES.items()}
    async with web(pages, tls=server) as peer:
        for tls in (True, False):  # HTTPS does not depend on TLS at the TCP port
            found = await ask(peer.base, settings(tls=tls, tls_ca=str(certificates.ca)))
            assert found == answer or str(answer) in str(found)
        assert sum(peer.asked.values()) >= 2
        await _is_refused(ask, peer, settings(tls_ca=str(certificates.stranger_ca)))
        await _is_refused(ask, peer, settings())


async def _is_refused(ask: Ask, peer: Web, some: Settings) -> None:
    before = peer.asked.copy()
    with pytest.raises(QtoolsError):
        await ask(peer.base, some)
    assert peer.asked == before
