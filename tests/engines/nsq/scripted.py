"""The other side of a client, on real sockets in the test's own loop: it says what a test wants it to say.

Scripted    speaks NSQ: answers handshakes, delivers from a queue as far as the ready counts allow, keeps what
            it heard in order, and does what a test put in the place of its own answers
Web         answers HTTP GETs with what it was given for each path
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Self

from qtools.engines.nsq.address import Address
from qtools.engines.nsq.protocol.client_commands import (
    Auth,
    Close,
    Command,
    Finish,
    Identify,
    Publish,
    Ready,
    Requeue,
    Sub,
    Touch,
)
from qtools.engines.nsq.protocol.command_reader import CommandLimits, CommandReader
from qtools.engines.nsq.protocol.frames import ERROR, HEARTBEAT, RESPONSE, encode_frame, encode_message
from qtools.engines.nsq.protocol.identify import IdentifyResponse
from qtools.engines.nsq.settings import Settings
from qtools.message import Message

DEADLINE = 20.0


async def until(condition: Callable[[], object], deadline: float = DEADLINE) -> None:
    """Let the loop go on until `condition` is so."""
    async with asyncio.timeout(deadline):
        while not condition():  # noqa: ASYNC110 - what is waited for is not ours to announce
            await asyncio.sleep(0.001)


def settings(**some: Any) -> Settings:
    return Settings(**{"program": "q-test", "connect_timeout": 3.0, **some})


class Caller(asyncio.Protocol):
    """One connection as the broker sees it."""

    def __init__(self, peer: Scripted) -> None:
        self.peer = peer
        self.heard: list[Command] = []
        self.identified: dict[str, Any] = {}
        self.sub: Sub | None = None
        self.ready = 0
        self.in_flight: dict[bytes, bytes] = {}  # id → body
        self.closing = False  # CLS was heard
        self.ended = False  # the client's sending side has ended
        self.lost = asyncio.get_running_loop().create_future()
        self._reader = CommandReader(CommandLimits(max_msg_size=1 << 26, max_body_size=1 << 27))
        self._begun = b""

    # ── what it says ──

    def say(self, data: bytes, kind: int = RESPONSE) -> None:
        self.transport.write(encode_frame(kind, data))

    def refuse(self, code: str, text: str = "") -> None:
        """An error frame; a fatal one is the last word."""
        self.say(f"{code} {text}".encode(), ERROR)
        if code not in ("E_FIN_FAILED", "E_REQ_FAILED", "E_TOUCH_FAILED"):
            self.transport.close()

    def beat(self) -> None:
        self.say(HEARTBEAT)

    def cut(self) -> None:
        self.transport.abort()

    def deliver(self, *bodies: bytes) -> list[bytes]:
        """Messages in one write, whatever the ready count; their ids."""
        ids = [b"%016x" % (self.peer.delivered + nth) for nth in range(len(bodies))]
        self.peer.delivered += len(bodies)
        self.in_flight.update(zip(ids, bodies, strict=True))
        self.transport.write(
            b"".join(encode_message(Message(1, 1, ident, body)) for ident, body in zip(ids, bodies, strict=True))
        )
        self.peer.note(self)
        return ids

    def pump(self) -> None:
        """Deliver from the queue as far as may be."""
        room = self.ready - len(self.in_flight)
        bodies = []
        while room > 0 and self.peer.queue and not self.closing and self.sub is not None:
            bodies.append(self.peer.queue.popleft())
            room -= 1
        if bodies:
            self.deliver(*bodies)

    # ── what it hears ──

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.peer.callers.append(self)
        if self.peer.greet is not None:
            self.peer.greet(self)

    def data_received(self, data: bytes) -> None:
        if len(self._begun) < 4:
            self._begun += data
            if len(self._begun) < 4:
                return
            data = self._begun[4:]
            assert self._begun.startswith(b"  V2")
        commands = self._reader.feed(data)
        while commands:
            for command in commands:
                self.heard.append(command)
                if self.peer.script is None or not self.peer.script(self, command):
                    self.answer(command)
            commands = self._reader.feed(b"")

    def answer(self, command: Command) -> None:
        match command:
            case Identify(body):
                self.identified = json.loads(body)
                told = self.peer.agreed
                if self.identified["msg_timeout"]:
                    told.msg_timeout = self.identified["msg_timeout"]
                self.say(told.encode())
            case Auth():
                self.say(b'{"identity":"me","permission_count":1}')
            case Sub():
                self.sub = command
                self.say(b"OK")
            case Ready(count):
                self.ready = count
                self.pump()
            case Finish():
                ids = command.ids
                for ident in ids:
                    del self.in_flight[ident]
                self.peer.finished += len(ids)
                self.pump()
            case Requeue(ident, _):
                self.peer.queue.append(self.in_flight.pop(ident))
                self.pump()
            case Touch(ident):
                assert ident in self.in_flight
            case Close():
                self.closing = True
                self.say(b"CLOSE_WAIT")
            case Publish(_, _, bodies, _, answers):
                self.peer.published += bodies
                for _ in range(answers):
                    self.say(b"OK")

    def eof_received(self) -> bool:
        self.ended = True
        return False  # ours ends too

    def connection_lost(self, exc: Exception | None) -> None:
        self.in_flight.clear()
        if not self.lost.done():
            self.lost.set_result(None)

    # ── what was heard ──

    def all(self, kind: type[Any]) -> list[Any]:
        return [command for command in self.heard if isinstance(command, kind)]

    @property
    def finished(self) -> list[bytes]:
        return [ident for command in self.all(Finish) for ident in command.ids]

    @property
    def ready_counts(self) -> list[int]:
        return [command.count for command in self.all(Ready)]


Script = Callable[[Caller, Command], object]


class Scripted:
    """A broker that says what a test wants.

    script: asked before every answer; what it returns true for, it has seen to.
    greet: called with each connection before it has said anything.
    queue: bodies that are delivered as far as ready counts allow.
    """

    def __init__(self, script: Script | None = None, *, greet: Callable[[Caller], None] | None = None) -> None:
        self.script = script
        self.greet = greet
        self.agreed = IdentifyResponse()
        self.callers: list[Caller] = []
        self.queue: deque[bytes] = deque()
        self.published: list[bytes] = []
        self.delivered = 0
        self.finished = 0
        self.most_in_flight = 0
        self.house: list[Scripted] = [self]  # whose messages in flight are counted together
        self.http = ""
        self._server: asyncio.Server | None = None
        self.port = 0

    def note(self, caller: Caller) -> None:
        now = sum(len(each.in_flight) for peer in self.house for each in peer.callers)
        for peer in self.house:
            peer.most_in_flight = max(peer.most_in_flight, now)

    @property
    def address(self) -> Address:
        return Address("127.0.0.1", self.port, http=self.http)

    @property
    def caller(self) -> Caller:
        """The connection that there is now."""
        return self.callers[-1]

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Caller(self), "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Listen no more, and drop who is connected."""
        assert self._server is not None
        self._server.close()
        for caller in self.callers:
            if not caller.lost.done():
                caller.transport.abort()
                await caller.lost

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def family(*peers: Scripted) -> None:
    """Count what is in flight over all of `peers`."""
    for peer in peers:
        peer.house = list(peers)


Answer = tuple[int, bytes]


class Web:
    """Answers GETs: `pages` maps a path (with its query) to status and body; anything else is 404."""

    def __init__(self, pages: dict[str, Answer] | None = None) -> None:
        self.pages = pages or {}
        self.asked: Counter[str] = Counter()
        self.before: Callable[[str], Awaitable[object]] | None = None
        self.base = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                path = head.split(b" ")[1].decode()
                self.asked[path] += 1
                if self.before is not None:
                    await self.before(path)
                status, body = self.pages.get(path, (404, b'{"message":"NOT_FOUND"}'))
                writer.write(b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n%b" % (status, len(body), body))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def web(
    pages: dict[str, Answer] | None = None, path: str = "", tls: ssl.SSLContext | None = None
) -> AsyncIterator[Web]:
    """A Web on a free port, there over HTTPS where `tls` is given, or on the unix socket at `path`."""
    made = Web(pages)
    if path:
        server = await asyncio.start_unix_server(made.serve, path)
        made.base = f"unix:{path}"
    else:
        server = await asyncio.start_server(made.serve, "127.0.0.1", 0, ssl=tls)
        made.base = f"{'https' if tls else 'http'}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield made
    finally:
        server.close()
