"""What a WebSocket client sends: messages faster than the application takes them, a handshake without a target."""

from __future__ import annotations

import asyncio
import base64
import os
import socket
import struct
from typing import Any

import pytest

from qtools.web.http_server import HttpServer
from tests.engines.nsq.scripted import until

HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + base64.b64encode(os.urandom(16)) + b"\r\n\r\n"
)
TEXT = 0x81
MASK = b"\x01\x02\x03\x04"


def frame(text: bytes) -> bytes:
    """A short text frame of a client (RFC 6455, 5.2)."""
    masked = bytes(byte ^ MASK[place % 4] for place, byte in enumerate(text))
    return struct.pack("BB", TEXT, 0x80 | len(text)) + MASK + masked


@pytest.mark.parametrize("pause_every", [1, 7, 100])
async def test_messages_that_come_faster_than_they_are_taken(pause_every: int) -> None:
    found: list[str] = []
    ended = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            found.append(message["text"])
            if len(found) % pause_every == 0:
                await asyncio.sleep(0)
        ended.set()

    listening = socket.create_server(("127.0.0.1", 0))
    server = HttpServer(app, websockets=True)
    await server.open(listening)
    reader, writer = await asyncio.open_connection(*listening.getsockname())
    try:
        async with asyncio.timeout(20):
            writer.write(HANDSHAKE)
            await reader.readuntil(b"\r\n\r\n")
            texts = [b"%d" % number for number in range(5000)]
            writer.write(b"".join(map(frame, texts[:4000])))  # far more than is parsed in one turn
            await writer.drain()
            await until(lambda: len(found) == 4000)
            writer.write(b"".join(map(frame, texts[4000:])))  # reading has been resumed
            await writer.drain()
            await until(lambda: len(found) == 5000)
            assert found == [text.decode() for text in texts]
            writer.close()
            await ended.wait()
    finally:
        writer.close()
        server.close()
        await server.drain(0.1)


@pytest.mark.parametrize("target", [b"http://", b"http://a:b:c/", b"http://[::1/", b"http://a:99999999/"])
@pytest.mark.parametrize("upgrade", [True, False])
async def test_a_target_that_is_no_url(target: bytes, upgrade: bool) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("the request has no path")

    listening = socket.create_server(("127.0.0.1", 0))
    server = HttpServer(app, websockets=True)
    await server.open(listening)
    reader, writer = await asyncio.open_connection(*listening.getsockname())
    try:
        request = HANDSHAKE if upgrade else b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
        writer.write(request.replace(b"GET /", b"GET " + target, 1))
        async with asyncio.timeout(20):
            answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert answer.endswith(b'{"message":"INVALID_REQUEST"}')
    finally:
        writer.close()
        server.close()
        await server.drain(0.1)
