"""One socket that drives the protocol. In: encoded commands. Out: their replies, in order.

    request ─▶ one write for each turn of the event loop ─▶ socket
    socket ─▶ data_received ─▶ Reader ─▶ the first request that waits ─▶ its future, once all its replies are there

A timer closes the connection when a reply is due and the server has been silent for too long.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import NamedTuple

from qtools.engines.connections.stream_connection import LINGER, StreamConnection
from qtools.engines.redis.protocol import commands
from qtools.engines.redis.protocol.fast_reader import make_reader
from qtools.engines.redis.protocol.replies import ErrorReply, Push, Reply, as_map
from qtools.engines.redis.server_errors import error_of
from qtools.engines.redis.settings import RedisSettings
from qtools.errors import ConnectFailed, ConnectionLost, NetworkError, PeerError, ProtocolError, QtoolsError

SILENCE = 20.0  # s without a byte while a reply is due: twice what a server takes for anything that it blocks for
BLOCK_MS = 2000  # that a command waits in the server for a message


class ServerHello(NamedTuple):
    """What a server says of itself. server: "redis", "valkey" …; mode: "standalone", "cluster", "sentinel"; role:
    "master", "replica"."""

    server: str
    version: str
    mode: str
    role: str
    client: int


class PendingCommands:
    """Commands that were sent together. count: of their replies. done: completes when all are there; raises
    ConnectionLost, and then `replies` holds those that came before."""

    __slots__ = ("count", "done", "replies")

    def __init__(self, count: int, done: asyncio.Future[list[Reply]]) -> None:
        self.count = count
        self.done = done
        self.replies: list[Reply] = []

    def fail(self, error: QtoolsError) -> None:
        if not self.done.done():
            self.done.set_exception(error)
            self.done.exception()  # mark it as retrieved: the caller may have been cancelled


class RedisConnection(StreamConnection[ServerHello]):
    """A connection to the server at `host`; open_connection makes it and waits for the handshake."""

    def __init__(self, host: str, settings: RedisSettings) -> None:
        super().__init__()
        self.hello = ServerHello("", "", "", "", 0)
        self._host = host
        self._settings = settings
        self._reader = make_reader()
        self._first = b""  # the first bytes of the server, to name what is no Redis
        self._output: list[bytes] = []
        self._waiting: deque[PendingCommands] = deque()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def address(self) -> str:
        return self._host

    @property
    def unanswered(self) -> int:
        """Requests that wait for replies."""
        return len(self._waiting)

    # ── what others call ──

    def request(self, data: bytes, count: int = 1) -> PendingCommands:
        """Send `count` encoded commands."""
        made = PendingCommands(count, self._loop.create_future())
        if self._is_shut:
            made.fail(ConnectionLost(self.address, "the connection is closed"))
            return made
        if not self._waiting:
            self._last_received = self._loop.time()  # the silence begins now
        self._waiting.append(made)
        self._output.append(data)
        self._unflushed += len(data)
        if not self._flush_due:
            self._flush_soon()
        return made

    def send(self, data: bytes) -> None:
        """Send one encoded command whose reply does not matter."""
        self.request(data)

    async def ask(self, *words: commands.Word) -> Reply:
        """Send one command and return its reply, which may be an ErrorReply; ConnectionLost."""
        (reply,) = await self.request(commands.encode(*words)).done
        return reply

    async def close(self) -> None:
        """Close once all commands that were sent are answered, or after a time."""
        self._flush()
        last = self._waiting[-1] if self._waiting and self.is_open else None
        if last is not None:
            await asyncio.wait([last.done], timeout=LINGER)
        await self.drop()

    async def drop(self) -> None:
        """Close at once, and return when the socket is closed."""
        self.abort()
        await asyncio.wait([self.lost])

    # ── asyncio.Protocol ──

    def data_received(self, data: bytes) -> None:
        self._last_received = self._loop.time()
        try:
            replies = self._reader.read(data)
        except ProtocolError as error:
            self._fail(error, data)
            return
        if not self._established.done():
            self._first = self._first or data
        at, count = 0, len(replies)
        if self._settings.resp == 3 and any(isinstance(reply, Push) for reply in replies):
            replies = [reply for reply in replies if not isinstance(reply, Push)]
            count = len(replies)
        waiting = self._waiting
        while at < count:
            if not waiting:
                self._fail(ProtocolError("it answers without being asked"), data)
                return
            request = waiting[0]
            missing = request.count - len(request.replies)
            if not at and missing >= count and not request.replies:
                request.replies = replies
                at = count
            else:
                request.replies += replies[at : at + missing]
                at += missing
            if len(request.replies) == request.count:
                waiting.popleft()
                if not request.done.done():
                    request.done.set_result(request.replies)

    # ── for StreamConnection ──

    def _on_connected(self) -> None:
        settings = self._settings
        greeting = commands.hello(settings.resp, settings.client_name, settings.user, settings.secret or b"")
        asked = self.request(greeting + commands.encode("SELECT", settings.db), 2)
        asked.done.add_done_callback(self._greeted)
        self._timer = self._loop.call_later(SILENCE / 4, self._tick)

    def _greeted(self, asked: asyncio.Future[list[Reply]]) -> None:
        if asked.cancelled() or asked.exception() is not None:
            return  # the connection is lost, which wait_established raises
        hello, selected = asked.result()
        said = as_map(hello)
        if isinstance(hello, ErrorReply):
            self._refuse(hello)
            return
        client = said.get(b"id")
        self.hello = ServerHello(
            _text(said.get(b"server")), _text(said.get(b"version")), _text(said.get(b"mode")), _text(said.get(b"role")),
            client if isinstance(client, int) else 0,
        )  # fmt: skip
        if self.hello.mode == "sentinel":
            error: QtoolsError = ConnectFailed(
                self.address, "it is a Sentinel, and no server: give the address of the master that it watches", True
            )
        elif self.hello.server == "redis" and _is_older(self.hello.version, (6, 2)):
            error = ConnectFailed(
                self.address, f"Redis {self.hello.version} is too old: 6.2 and later are supported", True
            )
        elif isinstance(selected, ErrorReply) and selected.code not in ("LOADING", "MASTERDOWN"):
            self._refuse(selected)
            return
        else:
            self._established.set_result(self.hello)
            return
        self.abort(error)

    def _refuse(self, reply: ErrorReply) -> None:
        if reply.text.startswith("unknown command") and "HELLO" in reply.text.upper():
            self.abort(ConnectFailed(self.address, "it is too old: Redis 6.2 and later are supported", True))
        else:
            self.abort(error_of(reply, self.address))

    def _on_lost(self, error: QtoolsError | None, reason: str) -> None:
        if self._timer is not None:
            self._timer.cancel()
        lost = error if isinstance(error, NetworkError | PeerError) else ConnectionLost(self.address, reason)
        while self._waiting:
            self._waiting.popleft().fail(lost)

    def _take_output(self) -> bytes:
        data = b"".join(self._output)
        self._output.clear()
        return data

    # ── inside ──

    def _fail(self, error: ProtocolError, data: bytes) -> None:
        advice = ""
        if not self._established.done():
            from qtools.engines.peer_protocol import advice_on_answer

            advice = advice_on_answer(self._first or data, "Redis", self.address, is_tls=self._settings.tls)
        if advice:
            self.abort(ConnectFailed(self.address, advice, permanent=True))
        else:
            self.abort(ProtocolError(f"{self.address} does not speak Redis's protocol: {error}"))

    def _tick(self) -> None:
        if self._waiting and self._silence > SILENCE:
            self.abort(ConnectionLost(self.address, f"silent for {self._silence:.0f} s"))
            return
        self._timer = self._loop.call_later(SILENCE / 4, self._tick)

    def __repr__(self) -> str:
        state = "" if self.is_open else " closed"
        return f"<RedisConnection {self.address} unanswered={self.unanswered}{state}>"


def _text(value: Reply) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else ""


def _is_older(version: str, than: tuple[int, int]) -> bool:
    """Whether `version`, as "7.0.15", comes before `than`; False if it is no version."""
    parts = version.split(".")
    return len(parts) > 1 and all(part.isdigit() for part in parts[:2]) and tuple(map(int, parts[:2])) < than
