"""Many connections as one Sink. In: batches. Out: MPUBs, answered OK by a broker before `write` returns.

    batch ─▶ MPUBs of at most `batch_count` messages and `batch_bytes` ─▶ the least busy connection ─▶ OK
                                         ▲                                        │
                                         └── sent again: lost before an answer ◀──┘

Several writes may be under way at once; each waits for its own answers only. Sizes are held against the
limits before anything is sent. The limits are nsqd's defaults until a broker refuses a size: then its HTTP
API is asked for the real ones, and where that cannot be, the refused MPUB is halved until the message that
does not fit stands alone. Nothing of a refused MPUB was queued, nor of what followed it on its connection.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence

from qtools.client.address import Address, Brokers
from qtools.client.connection import Connection
from qtools.client.discovery import Discovery
from qtools.client.http import ask_limits
from qtools.client.links import Links
from qtools.client.settings import Settings
from qtools.errors import (
    BrokerError,
    ConnectionLost,
    MessageRefused,
    NetworkError,
    PartialFailure,
    QtoolsError,
    SizeError,
)
from qtools.message import Batch
from qtools.protocol import commands

logger = logging.getLogger("qtools.client")

MAX_MSG_SIZE = 1024 * 1024  # nsqd's --max-msg-size
MAX_BODY_SIZE = 5 * 1024 * 1024  # nsqd's --max-body-size

# Refusals that pass: the broker's disk is full, it is about to stop. Everything else it refuses is for good.
_PASSING = frozenset({"E_PUB_FAILED", "E_MPUB_FAILED", "E_DPUB_FAILED"})
_PASSING_PAUSE = 1.0  # s


Places = Sequence[int]  # where in the batch each body stands
Choice = Callable[[], Connection | None]


async def gather_all(writes: Sequence[Coroutine[None, None, None]]) -> None:
    """Wait for all of them, the first error too; then raise it. None is left behind."""
    outcomes = await asyncio.gather(*writes, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome


class Publisher:
    """Publishes to `brokers`: to any one of them, or, with `replicate`, to all.

    batch_count, batch_bytes: the most that one MPUB holds.
    delay_ms: with it every message is a DPUB, deferred by so much.
    retry_timeout: s that a write may wait for any broker to be reachable; None for ever.
    """

    def __init__(
        self,
        topic: str,
        brokers: Brokers,
        settings: Settings,
        *,
        batch_count: int = 5000,
        batch_bytes: int = 1024 * 1024,
        delay_ms: int = 0,
        replicate: bool = False,
        retry_timeout: float | None = None,
    ) -> None:
        self.topic = topic
        self.resent = 0  # messages sent again since their answer was lost: they may be there twice
        self._links = Links(Discovery(brokers, None), settings, self._on_up, self._on_down)
        self._brokers = brokers
        self._batch_count = batch_count
        self._batch_bytes = batch_bytes
        self._delay_ms = delay_ms
        self._replicate = replicate
        self._retry_timeout = retry_timeout
        self._max_msg_size = MAX_MSG_SIZE
        self._max_body_size = MAX_BODY_SIZE
        self._limits_asked = False
        self._connections: dict[Connection, int] = {}  # → MPUBs under way on it
        self._up = asyncio.Event()

    async def start(self) -> None:
        """Connect; StartError when nobody could be reached."""
        await self._links.start()

    # ── Sink ──

    async def write(self, batch: Batch) -> None:
        """Publish all of `batch`; returns when every broker that has to has answered OK.

        PartialFailure names the messages that are over the limit, with MessageRefused for each.
        BrokerError when a broker refuses for good, NetworkError when none was reachable in time.
        """
        bodies: Sequence[bytes] = batch.bodies
        places: Places = range(len(bodies))
        refused = self._unfit(bodies)
        if refused:
            await self._learn_limits()  # the broker's may be higher than nsqd's default
            refused = self._unfit(bodies)
            places = [place for place in places if place not in refused]
            bodies = [bodies[place] for place in places]
        groups = self._groups(places, bodies) if bodies else []
        if len(groups) == 1:
            await self._publish(*groups[0], refused)
        else:
            await gather_all([self._publish(some_places, some, refused) for some_places, some in groups])
        if refused:
            raise PartialFailure(dict(sorted(refused.items())))

    async def close(self) -> None:
        await self._links.close()

    # ── batches ──

    def _unfit(self, bodies: Sequence[bytes]) -> dict[int, QtoolsError]:
        """The places in `bodies` of what no broker takes, and why."""
        if not bodies or (max(map(len, bodies)) <= self._max_msg_size and all(bodies)):
            return {}
        unfit: dict[int, QtoolsError] = {}
        for place, body in enumerate(bodies):
            if not body:
                unfit[place] = MessageRefused("it is empty, and NSQ has no empty messages")
            elif len(body) > self._max_msg_size:
                unfit[place] = self._too_big(body)
        return unfit

    def _too_big(self, body: bytes) -> MessageRefused:
        return MessageRefused(
            f"it has {len(body)} bytes, the broker takes at most {self._max_msg_size} (--max-msg-size)"
        )

    def _groups(self, places: Places, bodies: Sequence[bytes]) -> list[tuple[Places, Sequence[bytes]]]:
        """`bodies`, each of which fits, cut into what one command takes."""
        most = min(self._batch_bytes, self._max_body_size)
        if len(bodies) <= self._batch_count and commands.mpub_size(bodies) <= most:
            return [(places, bodies)]
        groups = []
        start, size = 0, 4
        for end, body in enumerate(bodies):
            if end - start == self._batch_count or (size + 4 + len(body) > most and end > start):
                groups.append((places[start:end], bodies[start:end]))
                start, size = end, 4
            size += 4 + len(body)
        groups.append((places[start:], bodies[start:]))
        return groups

    def _encode(self, bodies: Sequence[bytes]) -> tuple[bytes, int]:
        """`bodies` as bytes for the wire, and how many answers they will have."""
        if self._delay_ms:  # there is no MPUB that defers; they share a write all the same
            return b"".join([commands.dpub(self.topic, body, self._delay_ms) for body in bodies]), len(bodies)
        if len(bodies) == 1:
            return commands.pub(self.topic, bodies[0]), 1
        return commands.mpub(self.topic, bodies), 1

    # ── one group ──

    async def _publish(self, places: Places, bodies: Sequence[bytes], refused: dict[int, QtoolsError]) -> None:
        """Publish `bodies`; what a broker finds too large is cut again, down to the message that is."""
        if self._replicate:
            await self._to_all(places, bodies, refused)
        else:
            await self._until_answered(places, bodies, refused, self._least_busy)

    async def _to_all(self, places: Places, bodies: Sequence[bytes], refused: dict[int, QtoolsError]) -> None:
        """Publish to every broker and wait for all; one that is down is waited for."""

        def only(address: Address) -> Choice:
            return lambda: next((c for c in self._connections if c.address_ == address and c.is_open), None)

        await gather_all(
            [self._until_answered(places, bodies, refused, only(address)) for address in self._links.discovery.known]
        )

    async def _until_answered(
        self, places: Places, bodies: Sequence[bytes], refused: dict[int, QtoolsError], choose: Choice
    ) -> None:
        """Send until a broker has answered OK to all of `bodies` that it does not find too large."""
        sent_before = False
        while bodies:
            connection = await self._wait_connection(choose)
            if sent_before:
                self.resent += len(bodies)
            encoded, count = self._encode(bodies)
            self._connections[connection] += 1
            answers = connection.publish(encoded, count)
            try:
                await answers.done
                return
            except ConnectionLost:
                sent_before = True
            except SizeError as error:
                sent_before = False
                accepted = count - answers.left if count > 1 else 0
                places, bodies = places[accepted:], bodies[accepted:]
                if count == 1 and len(bodies) > 1:
                    await self._cut(places, bodies, refused, choose)
                    return
                refused[places[0]] = MessageRefused(f"it has {len(bodies[0])} bytes, and {error}")
                places, bodies = places[1:], bodies[1:]
                continue
            except BrokerError as error:
                if error.code not in _PASSING:
                    raise
                logger.warning("%s: %s; trying again", connection.address, error)
                await asyncio.sleep(_PASSING_PAUSE)
            finally:
                if connection in self._connections:
                    self._connections[connection] -= 1
            if count > 1:  # a run of DPUBs: those answered OK are not sent again
                accepted = count - answers.left
                places, bodies = places[accepted:], bodies[accepted:]

    async def _cut(
        self, places: Places, bodies: Sequence[bytes], refused: dict[int, QtoolsError], choose: Choice
    ) -> None:
        """Publish an MPUB that was refused for its size, by what the broker says of its limits, or by halves."""
        await self._learn_limits()
        unfit = self._unfit(bodies)
        refused.update((places[place], why) for place, why in unfit.items())
        places = [at for place, at in enumerate(places) if place not in unfit]
        groups = self._groups(places, [body for place, body in enumerate(bodies) if place not in unfit])
        if len(groups) == 1 and not unfit:  # nothing was learned
            half = len(bodies) // 2
            groups = [(places[:half], bodies[:half]), (places[half:], bodies[half:])]
        for some_places, some in groups:
            await self._until_answered(some_places, some, refused, choose)

    async def _wait_connection(self, choose: Choice) -> Connection:
        loop = asyncio.get_running_loop()
        deadline = None if self._retry_timeout is None else loop.time() + self._retry_timeout
        while True:
            connection = choose()
            if connection is not None:
                await connection.wait_writable()
                if connection.is_open:
                    return connection
                continue
            self._up.clear()
            try:
                async with asyncio.timeout_at(deadline):
                    await self._up.wait()
            except TimeoutError:
                raise NetworkError(
                    str(self._brokers), f"no broker was reachable for {self._retry_timeout:.0f} s"
                ) from None

    def _least_busy(self) -> Connection | None:
        alive = [connection for connection in self._connections if connection.is_open]
        return min(alive, key=self._connections.__getitem__, default=None)

    async def _learn_limits(self) -> None:
        """Ask the brokers for their limits, once."""
        if self._limits_asked:
            return
        self._limits_asked = True
        bases = {address.http for address in self._links.discovery.known if address.http}
        told = [limits for limits in await asyncio.gather(*map(ask_limits, bases)) if limits is not None]
        if told:
            self._max_msg_size = min(limits[0] for limits in told)
            self._max_body_size = min(limits[1] for limits in told)

    # ── Links ──

    async def _on_up(self, connection: Connection) -> None:
        self._connections[connection] = 0
        self._up.set()

    def _on_down(self, connection: Connection) -> None:
        self._connections.pop(connection, None)

    def __repr__(self) -> str:
        return f"<Publisher {self.topic} connections={len(self._connections)}>"
