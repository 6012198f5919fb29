"""A broker in the test's own loop, and peers that speak to it byte by byte. In: options. Out: frames."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from qtools.broker.core.store import Store
from qtools.broker.daemon import Daemon
from qtools.broker.options import Options
from qtools.engines.nsq.protocol.frames import Frame, FrameReader
from qtools.message import Message

PATIENCE = 20.0  # s; a busy machine takes its time


@asynccontextmanager
async def serving(store: Store | None = None, idle_exit: float | None = None, **options: Any) -> AsyncIterator[Daemon]:
    """A daemon on free ports, stopped in order at the end."""
    settings = {"tcp_address": "127.0.0.1:0", "http_address": None, "https_address": None} | options
    daemon = Daemon(Options(**settings), store=store, idle_exit=idle_exit)
    await daemon.start()
    task = asyncio.create_task(daemon.serve())
    try:
        yield daemon
    finally:
        daemon.stop()
        await task


async def come_true(probe: Callable[[], Any], patience: float = PATIENCE) -> Any:
    """Wait until `probe` answers something true."""
    async with asyncio.timeout(patience):
        while not (answer := probe()):  # noqa: ASYNC110 - what is probed is plain data, and has no event
            await asyncio.sleep(0.005)
        return answer


def mpub(topic: str, *bodies: bytes) -> bytes:
    joined = b"".join(len(body).to_bytes(4, "big") + body for body in bodies)
    return b"MPUB %b\n%b" % (topic.encode(), struct.pack(">ii", 4 + len(joined), len(bodies)) + joined)


def pub(topic: str, body: bytes) -> bytes:
    return b"PUB %b\n%b%b" % (topic.encode(), len(body).to_bytes(4, "big"), body)


def identify(**wishes: Any) -> bytes:
    body = json.dumps({"feature_negotiation": True} | wishes).encode()
    return b"IDENTIFY\n" + len(body).to_bytes(4, "big") + body


class Peer:
    """One connection. Nothing is answered by itself, not even heartbeats."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self._frames = FrameReader()
        self._have: list[Message | Frame] = []
        self._raw = b""  # came behind the answer to IDENTIFY, through whatever that agreed on
        self.unpack: Callable[[bytes], bytes] = lambda data: data
        self.pack: Callable[[bytes], bytes] = lambda data: data

    @classmethod
    async def to(cls, daemon: Daemon, said: bytes = b"", limit: int = 1 << 16) -> Peer:
        """Connect, and say the magic and `said`."""
        address = daemon.tcp_address
        if address.startswith("unix:"):
            peer = cls(*await asyncio.open_unix_connection(address.removeprefix("unix:"), limit=limit))
        else:
            host, _, port = address.rpartition(":")
            peer = cls(*await asyncio.open_connection(host, int(port), limit=limit))
        peer.writer.write(b"  V2" + said)
        return peer

    def say(self, data: bytes) -> None:
        self.writer.write(self.pack(data))

    async def hear(self) -> Message | Frame:
        """The next frame; EOFError when the broker has hung up."""
        async with asyncio.timeout(PATIENCE):
            while not self._have:
                data = self._raw or await self.reader.read(1 << 18)
                self._raw = b""
                if not data:
                    raise EOFError
                messages, others = self._frames.read(self.unpack(data))
                self._have += [*others, *messages]  # answers first: which of them was first is not told
            return self._have.pop(0)

    async def answer(self) -> bytes:
        """The next answer or error, which must not be a message."""
        frame = await self.hear()
        assert isinstance(frame, Frame), frame
        return frame.data

    async def alone(self) -> bytes:
        """The next answer, and not a byte more: what comes behind it may have to be unpacked first."""
        frame = None
        while frame is None:
            data = self._raw or await self.reader.read(1 << 18)
            self._raw = b""
            frame = self._frames.read_one(data)
        self._raw = self._frames.take_rest()
        return frame.data

    async def message(self) -> Message:
        """The next message; heartbeats before it are passed over."""
        while True:
            frame = await self.hear()
            if isinstance(frame, Message):
                return frame
            assert frame.data == b"_heartbeat_", frame

    async def messages(self, count: int) -> list[Message]:
        return [await self.message() for _ in range(count)]

    async def silent(self, seconds: float = 0.1) -> bool:
        """Whether nothing comes for a while."""
        if self._have:
            return False
        try:
            async with asyncio.timeout(seconds):
                self._have.append(await self.hear())
        except TimeoutError:
            return True
        return False

    async def hung_up(self) -> bool:
        """Wait until the broker has hung up; False when it says more instead."""
        try:
            await self.hear()
        except (EOFError, ConnectionError):
            return True
        return False

    async def start_tls(self, context: ssl.SSLContext) -> None:
        await self.writer.start_tls(context, server_hostname="localhost")

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError, ssl.SSLError):  # how it ended is not what the test is about
            await self.writer.wait_closed()


async def subscribed(daemon: Daemon, topic: str = "t", channel: str = "c", ready: int = 100, **wishes: Any) -> Peer:
    """A peer that receives."""
    peer = await Peer.to(daemon)
    if wishes:
        peer.say(identify(**wishes))
        await peer.answer()
    peer.say(f"SUB {topic} {channel}\nRDY {ready}\n".encode())
    assert await peer.answer() == b"OK"
    return peer
