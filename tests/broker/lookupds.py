"""A scripted nsqlookupd, which says only what it is told to say, and a broker that registers with it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from qtools.broker.daemon import Daemon

from .inside import come_true, serving


class Lookupd:
    """Answers OK, and keeps what it was told in the order it came, for each connection."""

    def __init__(self) -> None:
        self.heard: list[list[str]] = []
        self.identities: list[dict[str, object]] = []
        self.known: dict[str, set[str]] = {}  # what is registered just now, as nsqlookupd would have it
        self.answer: Callable[[str], bytes] = lambda command: b"OK"
        self.mute = False
        self.channels: dict[str, list[str]] | None = {}  # what HTTP tells; None: nothing, ever
        self.asked: list[str] = []
        self._http: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        if self._http is None:
            self._http = await asyncio.start_server(self._tell, "127.0.0.1", 0)

    @property
    def hello(self) -> bytes:
        assert self._http is not None
        return json.dumps(
            {"broadcast_address": "127.0.0.1", "http_port": self._http.sockets[0].getsockname()[1]}
        ).encode()

    async def _tell(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                topic = head.split(" ")[1].removeprefix("/channels?topic=")
                self.asked.append(topic)
                if self.channels is not None:
                    body = json.dumps({"channels": self.channels.get(topic, [])}).encode()
                    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
        await self._let_go(writer)

    async def _let_go(self, writer: asyncio.StreamWriter) -> None:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        self._writers.discard(writer)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            assert await reader.readexactly(4) == b"  V1"
            commands: list[str] = []
            self.heard.append(commands)
            while line := (await reader.readline()).decode().rstrip("\n"):
                answer = self.hello if line == "IDENTIFY" else self.answer(line)
                if line == "IDENTIFY":
                    size = int.from_bytes(await reader.readexactly(4), "big")
                    self.identities.append(json.loads(await reader.readexactly(size)))
                else:
                    commands.append(line)
                    self._note(line)
                if not self.mute:
                    writer.write(len(answer).to_bytes(4, "big") + answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.known.clear()
            await self._let_go(writer)

    def _note(self, line: str) -> None:
        command, _, names = line.partition(" ")
        topic, _, channel = names.partition(" ")
        if command == "REGISTER":
            self.known.setdefault(topic, set()).update({channel} - {""})
        elif command == "UNREGISTER" and channel:
            self.known.get(topic, set()).discard(channel)
        elif command == "UNREGISTER":
            self.known.pop(topic, None)

    def cut(self) -> None:
        for writer in tuple(self._writers):
            writer.transport.abort()

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()

    async def close(self) -> None:
        await self.stop()
        assert self._http is not None
        self._http.close()
        await come_true(lambda: not self._writers)


@asynccontextmanager
async def lookupd() -> AsyncIterator[Lookupd]:
    made = Lookupd()
    await made.start()
    try:
        yield made
    finally:
        await made.close()


@asynccontextmanager
async def registered(*addresses: str, **options: object) -> AsyncIterator[Daemon]:
    settings = {"broadcast_address": "127.0.0.1", "http_address": "127.0.0.1:0"} | options
    async with serving(nsqlookupd_tcp_addresses=addresses, **settings) as daemon:
        yield daemon
