"""Many connections as one Sink. In: batches. Out: MPUBs, answered OK by a broker before `write` returns.

    batch ─▶ MPUBs of at most `batch_count` messages and `batch_bytes` ─▶ a lane ─▶ the least busy connection ─▶ OK
                                                      with --replicate: a lane for each broker

Several writes may be under way at once; each waits for its own answers only. Sizes are held against the
limits before anything is sent. The limits are nsqd's defaults until a message or a broker says otherwise: then
its HTTP API is asked for the real ones, and where that cannot be, a refused MPUB is halved until the message
that does not fit stands alone. Nothing of a refused MPUB was queued, nor of what followed it on its connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence

from qtools.client.address import Address, Brokers
from qtools.client.connection import Connection
from qtools.client.discovery import Discovery
from qtools.client.http import ask_limits
from qtools.client.lane import Lane, OnPublished, Order
from qtools.client.links import Links
from qtools.client.settings import Settings
from qtools.errors import MessageRefused, NetworkError, PartialFailure, QtoolsError, SizeError
from qtools.message import Batch
from qtools.protocol import commands

MAX_MSG_SIZE = 1024 * 1024  # nsqd's --max-msg-size
MAX_BODY_SIZE = 5 * 1024 * 1024  # nsqd's --max-body-size

Places = Sequence[int]  # where in the batch each body stands


class Publisher:
    """Publishes to `brokers`: to any one of them, or, with `replicate`, to all.

    batch_count, batch_bytes: the most that one MPUB holds.
    delay_ms: with it every message is a DPUB, deferred by so much.
    retry_timeout: s that a write may wait for any broker to be reachable; None for ever.
    on_published: told of each command that a broker answered OK.
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
        on_published: OnPublished | None = None,
    ) -> None:
        self.topic = topic
        self._links = Links(Discovery(brokers, None), settings, self._on_up, self._on_down)
        self._brokers = brokers
        self._batch_count = batch_count
        self._batch_bytes = batch_bytes
        self._delay_ms = delay_ms
        self._replicate = replicate
        self._retry_timeout = retry_timeout
        self._on_published = on_published
        self._max_msg_size = MAX_MSG_SIZE
        self._max_body_size = MAX_BODY_SIZE
        self._asking: asyncio.Task[None] | None = None
        self._connections: list[Connection] = []
        self._came = asyncio.Event()  # a connection
        self._lanes: dict[Address | None, Lane] = {}
        self._writes = 0

    async def start(self) -> None:
        """Connect; StartError when nobody could be reached."""
        await self._links.start()

    @property
    def resent(self) -> int:
        """Messages sent again since their answer was lost: they may be there twice."""
        return sum(lane.resent for lane in self._lanes.values())

    @property
    def published(self) -> int:
        """Messages answered OK; with `replicate` once for each broker."""
        return sum(lane.published for lane in self._lanes.values())

    @property
    def published_bytes(self) -> int:
        """Bytes of the commands that were answered OK, before any compression."""
        return sum(lane.published_bytes for lane in self._lanes.values())

    @property
    def connected(self) -> int:
        """How many connections there are."""
        return len(self._connections)

    @property
    def reconnects(self) -> int:
        return self._links.reconnects

    @property
    def unanswered(self) -> int:
        """Commands that wait for a broker's answer."""
        return sum(connection.unanswered for connection in self._connections)

    # ── Sink ──

    async def write(self, batch: Batch) -> None:
        """Publish all of `batch`; returns when every broker that has to has answered OK.

        PartialFailure names the messages that are over the limit, with MessageRefused for each.
        BrokerError when a broker refuses for good, NetworkError when none was reachable in time.
        """
        self._writes += 1
        number = self._writes
        bodies: Sequence[bytes] = batch.bodies
        places: Places = range(len(bodies))
        refused = self._unfit(bodies)
        if refused or (self._asking is not None and not self._asking.done()):  # who comes later may not overtake
            await self._learn_limits()  # the broker's may be higher than nsqd's default
            refused = self._unfit(bodies)
            places = [place for place in places if place not in refused]
            bodies = [bodies[place] for place in places]
        groups = self._groups(places, bodies) if bodies else []
        lanes = await self._wait_lanes() if groups else []
        await _all(
            [
                self._publish(lane, (number, nth), some_places, some, refused)
                for nth, (some_places, some) in enumerate(groups)
                for lane in lanes
            ]
        )
        if refused:
            raise PartialFailure(dict(sorted(refused.items())))

    async def close(self) -> None:
        for lane in self._lanes.values():
            await lane.close()
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
            f"it has {len(body)} bytes, the broker takes at most {self._max_msg_size} (its --max-msg-size)"
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

    async def _publish(
        self, lane: Lane, order: Order, places: Places, bodies: Sequence[bytes], refused: dict[int, QtoolsError]
    ) -> None:
        """Publish `bodies` on `lane`; what a broker finds too large is cut again, down to the message that is."""
        while bodies:
            shipment = lane.ship(order, bodies)
            try:
                await shipment.done
                return
            except SizeError as error:
                places, bodies = places[shipment.accepted :], shipment.bodies
                if len(bodies) > 1 and not self._delay_ms:
                    await self._cut(lane, order, places, bodies, refused)
                    return
                refused[places[0]] = MessageRefused(f"it has {len(bodies[0])} bytes, and {error}")
                places, bodies = places[1:], bodies[1:]
            except asyncio.CancelledError:
                shipment.done.cancel()
                raise

    async def _cut(
        self, lane: Lane, order: Order, places: Places, bodies: Sequence[bytes], refused: dict[int, QtoolsError]
    ) -> None:
        """Publish an MPUB that was refused for its size, by what the broker says of its limits, or by halves."""
        await self._learn_limits()
        unfit = self._unfit(bodies)
        refused.update((places[place], why) for place, why in unfit.items())
        places = [at for place, at in enumerate(places) if place not in unfit]
        bodies = [body for place, body in enumerate(bodies) if place not in unfit]
        groups = self._groups(places, bodies) if bodies else []
        if len(groups) == 1 and not unfit:  # nothing was learned
            half = len(bodies) // 2
            groups = [(places[:half], bodies[:half]), (places[half:], bodies[half:])]
        for nth, (some_places, some) in enumerate(groups):
            await self._publish(lane, (*order, nth), some_places, some, refused)

    async def _learn_limits(self) -> None:
        """Ask the brokers for their limits, once."""
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask_limits())
        await asyncio.shield(self._asking)

    async def _ask_limits(self) -> None:
        bases = {address.http for address in self._links.discovery.known if address.http}
        told = [limits for limits in await asyncio.gather(*map(ask_limits, bases)) if limits is not None]
        if told:
            self._max_msg_size = min(limits[0] for limits in told)
            self._max_body_size = min(limits[1] for limits in told)

    # ── lanes ──

    async def _wait_lanes(self) -> list[Lane]:
        """The lanes that every message takes: one to any broker, or one to each; waits while there is none."""
        if not self._replicate:
            return [self._lane(None)]
        # Who is connected is one of all, also when no nsqlookupd names him any more (it has just started, perhaps).
        while not (all_of_them := self._links.discovery.known | {each.address_ for each in self._connections}):
            self._came.clear()
            try:
                async with asyncio.timeout(self._retry_timeout):
                    await self._came.wait()
            except TimeoutError:
                raise NetworkError(
                    str(self._brokers), f"no broker could be reached for {self._retry_timeout:.4g} s"
                ) from None
        return [self._lane(address) for address in all_of_them]

    def _lane(self, address: Address | None) -> Lane:
        if address not in self._lanes:
            name = str(self._brokers) if address is None else str(address)
            self._lanes[address] = Lane(
                name, self._chooser(address), self._encode, self._retry_timeout, self._on_published
            )
        return self._lanes[address]

    def _chooser(self, address: Address | None) -> Callable[[], Connection | None]:
        def choose() -> Connection | None:
            open_ones = [
                connection
                for connection in self._connections
                if connection.is_open and (address is None or connection.address_ == address)
            ]
            return min(open_ones, key=lambda each: (not each.is_writable, each.unanswered), default=None)

        return choose

    # ── Links ──

    async def _on_up(self, connection: Connection) -> None:
        self._connections.append(connection)
        self._came.set()
        for lane in self._lanes.values():
            lane.notify()

    def _on_down(self, connection: Connection) -> None:
        if connection in self._connections:
            self._connections.remove(connection)

    def __repr__(self) -> str:
        return f"<Publisher {self.topic} connections={len(self._connections)}>"


async def _all(writes: Sequence[Coroutine[None, None, None]]) -> None:
    """Wait for all of them, beyond a first error too, and then raise it: none is left behind."""
    if len(writes) == 1:
        await writes[0]
        return
    outcomes = await asyncio.gather(*writes, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
