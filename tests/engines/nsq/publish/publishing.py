"""What the tests of the publisher share: publishers of scripted brokers, and batches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from qtools.engines.nsq.address import Brokers
from qtools.engines.nsq.protocol.client_commands import Command, Publish
from qtools.engines.nsq.publish.publisher import NsqPublisher
from qtools.errors import MessageRefused, PartialFailure
from qtools.flow.topic_sink import TopicSink
from qtools.message import Batch
from tests.engines.nsq.scripted import Caller, Scripted, Web, settings, until, web
from tests.flow.memory import Ledger


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


def refuse_first(code: str, times: int = 1) -> Callable[[Caller, Command], bool]:
    left = [times]

    def script(caller: Caller, command: Command) -> bool:
        if isinstance(command, Publish) and left[0]:
            left[0] -= 1
            caller.refuse(code, "in the broker's words")
            return True
        return caller.transport.is_closing()

    return script


async def refused_of(publisher: NsqPublisher, bodies: Sequence[bytes]) -> dict[int, str]:
    """What of `bodies` was refused, by place, and why."""
    with pytest.raises(PartialFailure) as caught:
        await write(publisher, *bodies)
    assert all(isinstance(error, MessageRefused) for error in caught.value.failed.values())
    return {place: str(error) for place, error in caught.value.failed.items()}


BIG = b"x" * (1024 * 1024 + 1)


@asynccontextmanager
async def small(message: int, body: int, *, asked: bool) -> AsyncIterator[tuple[Scripted, Web]]:
    async with Scripted(Small(message, body)) as peer, web(limits(message, body)) as http:
        peer.http = http.base if asked else ""
        yield peer, http


async def publish(publisher: NsqPublisher, *groups: tuple[str, list[bytes]]) -> dict[tuple[int, int], str]:
    async with asyncio.timeout(8):
        return {at: str(error) for at, error in (await publisher.publish(groups)).items()}
