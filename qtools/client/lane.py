"""Encoded publishes in order, through whatever connection there is. In: shipments. Out: each one's answer.

A shipment is numbered when it is handed in, and the lowest number goes first: after a lost connection too, when
what was not answered goes again before what never went. With one broker the order of the input is the
order in the queue, whatever happens on the way.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from qtools.client.connection import Connection
from qtools.client.held import Answers
from qtools.errors import BrokerError, ConnectionLost, NetworkError, QtoolsError

logger = logging.getLogger("qtools.client")

# Refusals that pass: the broker's disk is full, it is about to stop. Everything else it refuses is for good.
PASSING = frozenset({"E_PUB_FAILED", "E_MPUB_FAILED", "E_DPUB_FAILED"})
PASSING_PAUSE = 1.0  # s


@dataclass(slots=True)
class Part:
    """One command's worth: bodies for one topic, all of which its one answer is about.

    `group` and `places` say where they came from, to who handed them in. `delay_ms`: how long they are deferred.
    """

    topic: str
    bodies: Sequence[bytes]
    group: int
    places: Sequence[int]
    delay_ms: int = 0


Encode = Callable[[Part], bytes]
OnAnswered = Callable[[Connection, float, int], None]


class Shipment:
    """Parts that travel in one write; `done` ends when all are answered OK, or with the refusal of `parts[0]`.

    They are answered one by one: what was answered OK has left `parts` when `done` ends.
    """

    __slots__ = ("done", "order", "parts", "sent", "sent_at")

    def __init__(self, order: int, parts: Sequence[Part], done: asyncio.Future[None]) -> None:
        self.order = order
        self.parts = parts
        self.done = done
        self.sent = False
        self.sent_at = 0.0  # loop time

    def __lt__(self, other: Shipment) -> bool:
        return self.order < other.order


class Lane:
    """Ships what it is given.

    choose: the connection to use now, or None while there is none; `notify` says that this may have changed.
    encode: a part → the bytes of its command.
    on_answered: told of each shipment that was answered OK: by whom, how long that took (s), how many messages it had.
    retry_timeout: s without a connection after which everything waiting fails, and s for which brokers may refuse
    everything, as with a full disk; None for never.
    """

    def __init__(
        self,
        name: str,
        choose: Callable[[], Connection | None],
        encode: Encode,
        on_answered: OnAnswered,
        retry_timeout: float | None,
    ) -> None:
        self.published = 0  # messages answered OK
        self.published_bytes = 0  # of their commands, before any compression
        self.resent = 0  # messages sent again since their answer was lost
        self._name = name
        self._choose = choose
        self._encode = encode
        self._on_answered = on_answered
        self._retry_timeout = retry_timeout
        self._waiting: list[Shipment] = []
        self._changed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._not_before = 0.0
        self._refused_since: float | None = None  # nothing was taken since
        self._refusal = ""  # what was said of it
        self._shipper: asyncio.Task[None] | None = None

    def ship(self, order: int, parts: Sequence[Part]) -> Shipment:
        """Hand in a shipment; await its `done`."""
        shipment = Shipment(order, parts, self._loop.create_future())
        heapq.heappush(self._waiting, shipment)
        self._changed.set()
        if self._shipper is None:
            self._shipper = asyncio.create_task(self._ship())
        return shipment

    def notify(self) -> None:
        """A connection came or went."""
        self._changed.set()

    async def close(self) -> None:
        if self._shipper is not None:
            self._shipper.cancel()
            await asyncio.wait((self._shipper,))

    async def _ship(self) -> None:
        without_since: float | None = None
        while True:
            while self._waiting and self._waiting[0].done.cancelled():
                heapq.heappop(self._waiting)
            connection = self._choose() if self._waiting else None
            if connection is not None:
                without_since = None
                pause = self._not_before - self._loop.time()
                if pause > 0:
                    await asyncio.sleep(pause)
                elif not connection.is_writable:
                    await connection.wait_writable()
                else:
                    self._send(connection, heapq.heappop(self._waiting))
                continue
            self._changed.clear()
            if not self._waiting or self._retry_timeout is None:
                await self._changed.wait()
                continue
            without_since = without_since or self._loop.time()
            try:
                async with asyncio.timeout_at(without_since + self._retry_timeout):
                    await self._changed.wait()
            except TimeoutError:
                without_since = None
                self._fail_all(NetworkError(self._name, f"no broker could be reached for {self._retry_timeout:.4g} s"))

    def _send(self, connection: Connection, shipment: Shipment) -> None:
        parts = shipment.parts
        if shipment.sent:
            self.resent += sum(len(part.bodies) for part in parts)
        shipment.sent = True
        shipment.sent_at = self._loop.time()
        encoded = self._encode(parts[0]) if len(parts) == 1 else b"".join(map(self._encode, parts))
        answers = connection.publish(encoded, len(parts))
        answers.done.add_done_callback(partial(self._answered, connection, shipment, answers, len(encoded)))

    def _answered(
        self, connection: Connection, shipment: Shipment, answers: Answers, size: int, _: asyncio.Future[None]
    ) -> None:
        self._changed.set()  # the connection may be less busy, or gone
        error = answers.done.exception()
        parts = shipment.parts
        accepted = len(parts) if error is None else len(parts) - answers.left
        if accepted:
            self._refused_since, self._refusal = None, ""
            count = sum(len(part.bodies) for part in parts[:accepted])
            self.published += count
            self.published_bytes += size * accepted // len(parts)  # to the byte where all is well
            self._on_answered(connection, self._loop.time() - shipment.sent_at, count)
        if shipment.done.done():
            return
        if error is None:
            shipment.done.set_result(None)
            return
        shipment.parts = parts[accepted:]
        if isinstance(error, BrokerError) and error.code in PASSING and self._may_pass(error):
            self._not_before = self._loop.time() + PASSING_PAUSE
            shipment.sent = False  # nothing of it was queued
        elif not isinstance(error, ConnectionLost):
            shipment.done.set_exception(error)
            return
        heapq.heappush(self._waiting, shipment)

    def _may_pass(self, error: BrokerError) -> bool:
        """Whether to try again after a refusal that need not be for ever. It is told once, until something is taken."""
        now = self._loop.time()
        if self._refused_since is None:
            self._refused_since = now
        elif self._retry_timeout is not None and now - self._refused_since >= self._retry_timeout:
            return False
        if str(error) != self._refusal:
            self._refusal = str(error)
            logger.warning("%s; trying again", error)
        return True

    def _fail_all(self, error: QtoolsError) -> None:
        for shipment in self._waiting:
            if not shipment.done.done():
                shipment.done.set_exception(error)
        self._waiting.clear()
