"""The Sink between a plan and the publishers: whose fault a refusal is, what counts as what, what goes back."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from qtools.bridge.routing import Planning
from qtools.bridge.sink import BridgeSink
from qtools.engines.nsq.address import Brokers
from qtools.engines.nsq.protocol.client_commands import Command, Publish
from qtools.engines.nsq.publish.publisher import NsqPublisher
from qtools.errors import BrokerError, DeadLettersRefused, PartialFailure, Postponed, RouteFailed
from qtools.expressions.expression import compile_expression
from qtools.message import Batch, Message, Messages
from qtools.names import Subscription
from qtools.routing.dead_letter_sink import DeadLetterSink
from qtools.routing.routes import Route, Routes
from qtools.routing.routes_file import to_of
from tests.engines.nsq.scripted import Caller, Scripted, settings
from tests.flow.memory import Ledger


def batch(*bodies: bytes, attempts: int = 1) -> Batch:
    messages = (Message(1, attempts, b"%016d" % nth, body) for nth, body in enumerate(bodies))
    return Batch.of(Ledger(), Messages.of(messages))


def refuse(topic: str) -> Any:
    def script(caller: Caller, command: Command) -> bool:
        if caller.transport.is_closing():
            return True
        if isinstance(command, Publish) and command.topic == topic:
            caller.refuse("E_UNAUTHORIZED", "not for you")
            return True
        return False

    return script


@asynccontextmanager
async def delivering(peer: Scripted, to: str, when: str | None = None, **some: Any) -> AsyncIterator[BridgeSink]:
    publisher = NsqPublisher(Brokers(nsqd=(peer.address,)), settings())
    await publisher.start()
    routes = Routes([Route("one", (to_of(to),), compile_expression(when) if when else None)])
    planning = Planning(routes, tuple(routes.fixed_topics), tuple(routes.fixed_topics))
    some = {"on_error": "dead-letter", **some}
    dead, sources = {"events": "events.dead"}, [Subscription("events", "me")]
    try:
        yield BridgeSink(planning, publisher, DeadLetterSink(publisher, dead, sources), **some)
    finally:
        await publisher.close()


def published(peer: Scripted, topic: str) -> list[bytes]:
    return [
        body for caller in peer.callers for each in caller.all(Publish) if each.topic == topic for body in each.bodies
    ]


async def test_a_refusal_of_a_topic_that_no_message_chose_is_the_end() -> None:
    async with Scripted(refuse("out")) as peer, delivering(peer, "out") as deliver:
        with pytest.raises(BrokerError, match="E_UNAUTHORIZED"):
            await deliver.write(batch(b"a", b"b"))
        assert (deliver.counts.routed, deliver.counts.dead_lettered) == (0, 0)


async def test_a_refusal_of_one_that_a_message_chose_is_about_that_message() -> None:
    async with Scripted(refuse("t.secret")) as peer, delivering(peer, "t.\\(.)") as deliver:
        await deliver.write(batch(b'"a"', b'"secret"', b'"b"'))
        assert (deliver.counts.routed, deliver.counts.dead_lettered) == (2, 1)
        (letter,) = map(json.loads, published(peer, "events.dead"))
        assert letter["body"] == '"secret"'
        assert letter["reason"].startswith("to t.secret: ")
        assert "E_UNAUTHORIZED" in letter["reason"]


async def test_a_refusal_of_the_dead_letters_is_the_end_and_nothing_is_counted_as_kept() -> None:
    async with Scripted(refuse("events.dead")) as peer, delivering(peer, "out", ".x") as deliver:
        with pytest.raises(DeadLettersRefused, match=r"it is not JSON .*E_UNAUTHORIZED"):
            await deliver.write(batch(b'{"x":1}', b"no json"))
        assert deliver.counts.dead_lettered == 0


async def test_the_counts_are_of_every_message_once() -> None:
    async with Scripted() as peer, delivering(peer, "out", ".x") as deliver:
        await deliver.write(batch(b'{"x":1}', b"no json", b"{}", b'{"x":1}', b'{"x":null}'))
        counts = deliver.counts
        assert (counts.routed, counts.filtered, counts.dead_lettered, counts.dropped) == (2, 2, 1, 0)
        assert counts.hits == {"one": 2}


async def test_with_fail_what_cannot_be_routed_is_named_and_the_rest_is_done() -> None:
    async with Scripted() as peer, delivering(peer, "out", ".x", on_error="fail") as deliver:
        with pytest.raises(PartialFailure) as caught:
            await deliver.write(batch(b"no json", b'{"x":1}'))
        assert {place: type(error) for place, error in caught.value.failed.items()} == {0: RouteFailed}
        assert deliver.counts.routed == 1
        assert published(peer, "out") == [b'{"x":1}']


@pytest.mark.parametrize(("attempts", "minutes"), [(1, 1), (7, 7), (61, 60), (65535, 60)])
async def test_what_no_dead_letter_holds_comes_again_later_and_later(attempts: int, minutes: int) -> None:
    async with Scripted() as peer, delivering(peer, "out", ".x") as deliver:
        with pytest.raises(PartialFailure) as caught:
            await deliver.write(batch(b"x" * (1024 * 1024), b'{"x":1}', attempts=attempts))
        (error,) = caught.value.failed.values()
        assert isinstance(error, Postponed)
        assert error.delay_ms == minutes * 60_000
        assert (deliver.counts.routed, deliver.counts.dead_lettered) == (1, 0)


async def test_more_attempts_than_may_be() -> None:
    async with Scripted() as peer, delivering(peer, "out", max_attempts=3) as deliver:
        await deliver.write(batch(b"a", attempts=3))
        await deliver.write(batch(b"b", attempts=4))
        assert published(peer, "out") == [b"a"]
        assert (deliver.counts.routed, deliver.counts.dead_lettered) == (1, 1)
