"""NSQ's protocol spoken by hand: enough to see what is in a queue without the client under test.

In: where a broker is, a topic, a channel. Out: messages as they came, with their attempts.
"""

from __future__ import annotations

import json
import socket
import struct
from typing import NamedTuple

_FRAME = struct.Struct(">ii")
_HEAD = struct.Struct(">qH16s")
MESSAGE = 2


class Delivered(NamedTuple):
    """One message as the broker sent it."""

    timestamp: int
    attempts: int
    id: bytes
    body: bytes


class Reader:
    """A consumer on a blocking socket."""

    def __init__(self, port: int, topic: str, channel: str, *, ready: int = 2500, **identify: object) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), 10)
        self._buffer = bytearray()
        told = json.dumps({"client_id": "harness", "output_buffer_timeout": 25, **identify}).encode()
        self._socket.sendall(b"  V2IDENTIFY\n" + struct.pack(">I", len(told)) + told)
        self._expect_ok()
        self._socket.sendall(f"SUB {topic} {channel}\n".encode())
        self._expect_ok()
        if ready:
            self.ready(ready)

    def ready(self, count: int) -> None:
        self._socket.sendall(b"RDY %d\n" % count)

    def read(self, timeout: float) -> list[Delivered]:
        """What is there, or comes within `timeout` seconds."""
        messages = self._parse()
        if messages:
            return messages
        self._socket.settimeout(timeout)
        try:
            chunk = self._socket.recv(1 << 20)
        except TimeoutError:
            return []
        assert chunk, "the broker closed the connection"
        self._buffer += chunk
        return self._parse()

    def take(self, count: int, timeout: float = 20.0) -> list[Delivered]:
        """`count` messages, which stay in flight."""
        messages: list[Delivered] = []
        while len(messages) < count:
            more = self.read(timeout)
            assert more, f"{len(messages)} of {count} messages came"
            messages += more
        return messages

    def finish(self, messages: list[Delivered]) -> None:
        self._socket.sendall(b"".join([b"FIN %b\n" % message.id for message in messages]))

    def requeue(self, messages: list[Delivered], delay_ms: int = 0) -> None:
        self._socket.sendall(b"".join([b"REQ %b %d\n" % (message.id, delay_ms) for message in messages]))

    def close(self) -> None:
        self._socket.close()

    def _parse(self) -> list[Delivered]:
        buffer = bytes(self._buffer)
        at, end = 0, len(buffer)
        messages = []
        while end - at >= 8:
            size, kind = _FRAME.unpack_from(buffer, at)
            stop = at + 4 + size
            if stop > end:
                break
            if kind == MESSAGE:
                messages.append(Delivered(*_HEAD.unpack_from(buffer, at + 8), buffer[at + 34 : stop]))
            elif buffer[at + 8 : stop] == b"_heartbeat_":
                self._socket.sendall(b"NOP\n")
            else:
                raise AssertionError(buffer[at + 8 : stop])
            at = stop
        del self._buffer[:at]
        return messages

    def _expect_ok(self) -> None:
        while len(self._buffer) < 10:
            chunk = self._socket.recv(4096)
            assert chunk, "the broker closed the connection"
            self._buffer += chunk
        assert self._buffer[:10] == b"\0\0\0\x06\0\0\0\0OK", bytes(self._buffer)
        del self._buffer[:10]
