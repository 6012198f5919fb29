"""q-pubsub-http as a process, and its clients: httpx for what is answered whole, a bare socket where bytes matter.

In: flags. Out: where it serves, answers, what streams.
"""

from __future__ import annotations

import json
import re
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import httpx

from harness.brokers import Broker
from harness.shell import Running, Shell
from harness.waiting import DEADLINE, wait_until

_SERVING = re.compile(r"serving (?P<url>https?://(?P<host>\[?[^\s/]*?\]?):(?P<port>\d+)|unix:(?P<path>\S+))\n")


class Gateway:
    """A running gateway. `broker_flags`, in the place of the broker's own, lead it there through something."""

    def __init__(
        self,
        shell: Shell,
        broker: Broker,
        *flags: str,
        address: str = "127.0.0.1:0",
        broker_flags: Sequence[str] | None = None,
    ) -> None:
        self.broker = broker
        there = broker.flags if broker_flags is None else broker_flags
        self.process: Running = shell.start("q-pubsub-http", "--http-address", address, *there, *flags)
        wait_until(
            lambda: _SERVING.search(self.process.err) or not self.process.is_running, what=lambda: self.process.err
        )
        found = _SERVING.search(self.process.err)
        assert found is not None, self.process.err
        self.port = int(found["port"] or 0)
        self.url = found["url"]
        self.client = httpx.Client(base_url=self.url, timeout=DEADLINE, trust_env=False, verify=False)

    def close(self) -> None:
        self.client.close()
        self.process.reap()

    def get(self, path: str, **params: Any) -> httpx.Response:
        return self.client.get(path, params=params)

    def post(self, path: str, body: Any = b"", headers: dict[str, str] | None = None, **params: Any) -> httpx.Response:
        return self.client.post(path, content=body, params=params, headers=headers)

    @contextmanager
    def stream(self, topic: str, channel: str = "", **more: Any) -> Iterator[Lines]:
        """A subscriber of NDJSON, or of whatever `format` says, line by line."""
        headers = more.pop("headers", None)
        params = {"topic": topic, **({"channel": channel} if channel else {}), **more}
        with self.client.stream("GET", "/sub", params=params, headers=headers) as answer:
            if answer.status_code != 200:
                answer.read()
                raise AssertionError((answer.status_code, answer.text))
            yield Lines(answer)

    def memory(self) -> int:
        """Bytes that its process has in memory."""
        with open(f"/proc/{self.process.pid}/statm") as file:
            return int(file.read().split()[1]) * 4096


class Lines:
    """A streamed answer, read line by line."""

    def __init__(self, answer: httpx.Response) -> None:
        self.answer = answer
        self._lines = answer.iter_lines()

    @property
    def session(self) -> str:
        return str(self.answer.headers["q-session"])

    def line(self) -> str:
        return next(self._lines)

    def message(self) -> dict[str, Any]:
        """The next envelope."""
        told: dict[str, Any] = json.loads(self.line())
        return told

    def bodies(self, count: int) -> list[str]:
        return [self.message()["body"] for _ in range(count)]

    def beginning(self, prefix: str, count: int) -> list[str]:
        """The next `count` lines that begin with `prefix`, without it."""
        found: list[str] = []
        while len(found) < count:
            line = self.line()
            if line.startswith(prefix):
                found.append(line.removeprefix(prefix))
        return found

    def rest(self) -> list[str]:
        return list(self._lines)


class Bare:
    """A client that is a bare socket: it says what it likes, reads when it likes, and goes as it likes."""

    def __init__(self, port: int, *, receive_buffer: int = 0) -> None:
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(DEADLINE)
        self.socket.connect(("127.0.0.1", port))

    def say(self, data: bytes) -> None:
        self.socket.sendall(data)

    def get(self, target: str, *headers: str) -> None:
        self.say("\r\n".join([f"GET {target} HTTP/1.1", "Host: localhost", *headers, "", ""]).encode())

    def read_until(self, end: bytes, most: int = 1 << 24) -> bytes:
        """What comes, up to `end` at least."""
        have = b""
        while end not in have and len(have) < most:
            chunk = self.socket.recv(1 << 16)
            assert chunk, have
            have += chunk
        return have

    def read_all(self) -> bytes:
        """What comes until the other side hangs up, or resets."""
        have = b""
        try:
            while chunk := self.socket.recv(1 << 16):
                have += chunk
        except ConnectionResetError:
            pass
        return have

    def taken(self) -> bytes:
        """What this side's kernel holds unread, once no more of it comes; it is not read by that."""
        seen, since = -1, time.monotonic()
        deadline = since + DEADLINE
        while time.monotonic() - since < 0.2:
            data = self.peek()
            if len(data) != seen:
                seen, since = len(data), time.monotonic()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return self.peek()

    def peek(self) -> bytes:
        self.socket.setblocking(False)
        try:
            return self.socket.recv(1 << 24, socket.MSG_PEEK)
        except BlockingIOError:
            return b""
        finally:
            self.socket.settimeout(DEADLINE)

    def reset(self) -> None:
        """Go as a killed program with unread bytes goes: with a reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def close(self) -> None:
        self.socket.close()


def unchunked(data: bytes) -> bytes:
    """What the chunks of an answer hold, its head and the last incomplete chunk left out (RFC 9112, 7.1)."""
    data = data.partition(b"\r\n\r\n")[2]
    out = b""
    while True:
        size_text, found, rest = data.partition(b"\r\n")
        if not found:
            return out
        size = int(size_text, 16)
        out += rest[:size]
        if not size or len(rest) < size + 2:
            return out
        data = rest[size + 2 :]
