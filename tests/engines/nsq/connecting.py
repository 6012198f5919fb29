"""What the tests of a connection share: its owner, a subscribed connection, what it writes, a broker that refuses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from qtools.engines.connections.in_flight import Delivery
from qtools.engines.nsq.connect import connect
from qtools.engines.nsq.connection import Connection
from qtools.engines.nsq.protocol.client_commands import (
    Command,
    Identify,
)
from qtools.message import Batch, Messages
from tests.engines.nsq.scripted import Caller, Scripted, settings, until


class Owner:
    """Keeps what it is handed."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.sizes: list[int] = []
        self.finished: list[int] = []

    def on_messages(self, connection: Connection, delivery: Delivery, messages: Messages, size: int) -> None:
        self.batches.append(Batch.of(delivery, messages))
        self.sizes.append(size)

    def on_finish(self, count: int) -> None:
        self.finished.append(count)


@asynccontextmanager
async def subscribed(
    peer: Scripted, *, ready: int = 100, **some: Any
) -> AsyncIterator[tuple[Connection, Owner, Caller]]:
    """A connection that reads, its owner, and the peer's end of it."""
    connection = await connect(peer.address, settings(**some))
    owner = connection.owner = Owner()
    connection.ledger.on_finish = owner.on_finish
    try:
        await connection.subscribe("events", "archive")
        if ready:
            connection.ready(ready)
            await until(lambda: peer.caller.ready == ready)
        yield connection, owner, peer.caller
    finally:
        connection.abort()
        await connection.lost


class Spy:
    """A transport that counts what is written to it."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self.writes: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.writes.append(data)
        self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


def spy_on(connection: Connection) -> Spy:
    assert connection._transport is not None
    spy = Spy(connection._transport)
    connection._transport = spy  # type: ignore[assignment]
    return spy


def refusing(code: str, to: type[Any] = Identify) -> Callable[[Caller, Command], bool]:
    def script(caller: Caller, command: Command) -> bool:
        if isinstance(command, to):
            caller.refuse(code, "in the broker's words")
            return True
        return False

    return script
