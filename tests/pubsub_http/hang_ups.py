"""Subscribers that hang up at random moments, and an account of what was published, received and left over.

In: a gateway, a broker, a number of hang-ups. Out: how many there were of each kind, and which confirmed messages
no subscriber has received although they are not in the channel any more.

Each subscriber ends its own side (a FIN, or a WebSocket's close frame) and then reads to the end of the stream, so that
no byte which its kernel acknowledged stays unread: a message that it has not seen was not sent.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections import Counter
from dataclasses import dataclass, field

from harness.brokers import Broker

KINDS = ("stream", "events", "websocket", "message")
CHANNEL = "c"
BACKLOG = 1000  # messages that may wait or be on their way: beyond it the publisher waits for the subscribers
PUBLISHERS = 3
PATIENCE = 30.0  # s that a stream may take to end after the client's end
LONGEST = 0.06  # s until a hang-up
_MESSAGE = re.compile(rb"<(\d{8})>")
_CLOSE_FRAME = b"\x88\x82\0\0\0\0\x03\xe8"  # masked with zeros: 1000 (RFC 6455, 5.5.1)
UPGRADE = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" + (
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)


@dataclass
class Result:
    """`lost`: confirmed, not received, and not in the channel any more."""

    hang_ups: Counter[str] = field(default_factory=Counter)
    refused: int = 0  # connections that were not served, as the broker or the gateway was restarting
    published: int = 0
    received: int = 0
    restarts: int = 0
    lost: list[int] = field(default_factory=list)


class HangUps:
    """One run on `topic`, by `clients` subscribers at a time, over `restarts` restarts of the broker at least."""

    def __init__(
        self, port: int, broker: Broker, topic: str, count: int, seed: int, *, clients: int = 12, restarts: int = 0
    ) -> None:
        self.result = Result()
        self._port = port
        self._broker = broker
        self._topic = topic
        self._count = count
        self._chance = random.Random(seed)
        self._clients = clients
        self._restarts = restarts
        self._begun = 0
        self._confirmed: set[int] = set()
        self._seen: set[int] = set()
        self._next = 0

    def run(self) -> Result:
        self._broker.create(self._topic, CHANNEL)
        asyncio.run(self._run())
        return self.result

    async def _run(self) -> None:
        ended = asyncio.Event()
        others = [asyncio.create_task(self._publish(ended)) for _ in range(PUBLISHERS)]
        if self._restarts:
            others.append(asyncio.create_task(self._restart(ended)))
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._clients):
                    group.create_task(self._subscribe())
        finally:
            ended.set()
            await asyncio.gather(*others)
        left = await asyncio.to_thread(self._broker.bodies, self._topic, CHANNEL)
        had = self._seen | {int(body[1:-1]) for body in left}
        self.result.published = len(self._confirmed)
        self.result.received = len(self._seen)
        self.result.lost = sorted(self._confirmed - had)

    # ── publisher ──

    async def _publish(self, ended: asyncio.Event) -> None:
        while not ended.is_set():
            waiting = len(self._confirmed) - len(self._seen)
            if waiting < BACKLOG:
                numbers = range(self._next, self._next + self._chance.choice([1, 2, 5, 10]))
                self._next += len(numbers)
                try:
                    await asyncio.to_thread(self._broker.fill, self._topic, [b"<%08d>" % number for number in numbers])
                except (OSError, AssertionError):
                    await asyncio.sleep(0.05)  # the broker restarts; these may have been taken or not
                    continue
                self._confirmed.update(numbers)
            await asyncio.sleep(0.001)

    async def _restart(self, ended: asyncio.Event) -> None:
        while not ended.is_set():
            try:
                async with asyncio.timeout(self._chance.uniform(0.2, 2.0)):
                    await ended.wait()
            except TimeoutError:
                end = self._broker.kill if self._broker.kind == "q-broker" and self._chance.random() < 0.5 else None
                await asyncio.to_thread(end or self._broker.stop)
                await asyncio.to_thread(self._broker.start)
                self.result.restarts += 1

    # ── subscribers ──

    async def _subscribe(self) -> None:
        while self._begun < self._count or self.result.restarts < self._restarts:
            self._begun += 1
            kind = KINDS[self._begun % len(KINDS)]
            served, data = await self._hang_up(kind)
            self._seen.update(map(int, _MESSAGE.findall(data)))
            if served:
                self.result.hang_ups[kind] += 1
            else:
                self.result.refused += 1
                self._begun -= 1
                await asyncio.sleep(0.02)

    def _request(self, kind: str) -> bytes:
        path = f"/message?wait=5&topic={self._topic}&channel={CHANNEL}"
        if kind != "message":
            form = "sse" if kind == "events" else self._chance.choice(["raw", "envelope", "msgpack"])
            in_flight = self._chance.choice([1, 3, 10, 100, 2500])
            path = f"/sub?topic={self._topic}&channel={CHANNEL}&format={form}&max_in_flight={in_flight}"
        upgrade = UPGRADE if kind == "websocket" else ""
        return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{upgrade}\r\n".encode()

    async def _hang_up(self, kind: str) -> tuple[bool, bytes]:
        """Whether a subscriber was served until it hung up, and all that it has read."""
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            return False, b""
        data = bytearray()
        begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        reading = asyncio.create_task(_read_all(reader, data, begun))
        try:
            writer.write(self._request(kind))
            if self._chance.random() < 0.5:  # the others may hang up before anything has come
                await asyncio.wait([begun, reading], timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait([reading], timeout=self._chance.uniform(0.0, LONGEST))
            if kind == "websocket" and data and self._chance.random() < 0.5:
                writer.write(_CLOSE_FRAME)
            else:
                writer.write_eof()
            async with asyncio.timeout(PATIENCE):
                await reading
        except OSError:
            pass
        finally:
            reading.cancel()
            writer.close()
        return not data or data.startswith((b"HTTP/1.1 200", b"HTTP/1.1 101", b"HTTP/1.1 204")), bytes(data)


async def _read_all(reader: asyncio.StreamReader, data: bytearray, begun: asyncio.Future[None]) -> None:
    try:
        while chunk := await reader.read(1 << 16):
            data += chunk
            if not begun.done():
                begun.set_result(None)
    except ConnectionError:
        pass
