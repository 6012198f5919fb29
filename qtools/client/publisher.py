"""Many connections that publish. In: bodies for topics. Out: MPUBs, answered OK by a broker before a publish returns.

    (topic, bodies) … ─▶ MPUBs of at most `batch_count` messages and `batch_bytes` ─▶ a lane ─▶ a connection ─▶ OK
                                                   with `replicate`: a lane for each broker

However many topics there are, they share the connections, and what is published together leaves in one write: no
state is kept for a topic. Several publishes may be under way at once; each waits for its own answers only. Sizes are
held against the limits before anything is sent. The limits are nsqd's defaults until a message or a broker says
otherwise: then its HTTP API is asked for the real ones, and where that cannot be, a refused MPUB is halved until the
message that does not fit stands alone. Nothing of a refused MPUB was queued, nor of what followed it on its connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence

from qtools.client.address import Address, Brokers
from qtools.client.balance import Balance, LeastBusy
from qtools.client.connection import Connection
from qtools.client.discovery import Discovery
from qtools.client.http import ask_limits
from qtools.client.lane import Lane, Part
from qtools.client.links import Links
from qtools.client.settings import Settings
from qtools.errors import BrokerError, MessageRefused, NetworkError, PartialFailure, QtoolsError, SizeError
from qtools.message import Batch
from qtools.protocol import commands

MAX_MSG_SIZE = 1024 * 1024  # nsqd's --max-msg-size
MAX_BODY_SIZE = 5 * 1024 * 1024  # nsqd's --max-body-size

Group = tuple[str, Sequence[bytes]]  # a topic and what goes there
Refused = dict[tuple[int, int], QtoolsError]  # (group, place in it) → why


class Publisher:
    """Publishes to `brokers`: to any one of them, or, with `replicate`, to all.

    batch_count, batch_bytes: the most that one MPUB holds.
    delay_ms: with it every message is a DPUB, deferred by so much.
    balance: which broker the next publish goes to; default: the least busy one.
    retry_timeout: s that a write may wait for any broker to be reachable; None for ever.
    on_published: told of each write that a broker answered OK: how long that took, s, and how many messages it had.
    """

    def __init__(
        self,
        brokers: Brokers,
        settings: Settings,
        *,
        batch_count: int = 5000,
        batch_bytes: int = 1024 * 1024,
        delay_ms: int = 0,
        replicate: bool = False,
        balance: Balance | None = None,
        retry_timeout: float | None = None,
        on_published: Callable[[float, int], None] | None = None,
    ) -> None:
        self._settings = settings
        self._links = Links(Discovery(brokers, None, settings), settings, self._on_up, self._on_down)
        self._brokers = brokers
        self._batch_count = batch_count
        self._batch_bytes = batch_bytes
        self._delay_ms = delay_ms
        self._replicate = replicate
        self._balance = balance or LeastBusy()
        self._retry_timeout = retry_timeout
        self._on_published = on_published
        self._max_msg_size = MAX_MSG_SIZE
        self._max_body_size = MAX_BODY_SIZE
        self._asking: asyncio.Task[None] | None = None
        self._connections: list[Connection] = []
        self._came = asyncio.Event()  # a connection
        self._lanes: dict[Address | None, Lane] = {}
        self._publishes = 0

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
    def unanswered(self) -> int:
        """Commands that wait for a broker's answer."""
        return sum(connection.unanswered for connection in self._connections)

    @property
    def reconnects(self) -> int:
        return self._links.reconnects

    @property
    def connected(self) -> int:
        """How many brokers are connected now."""
        return len(self._connections)

    async def publish(self, groups: Sequence[Group], delay_ms: int | None = None) -> Refused:
        """Publish all of `groups`; returns when every broker that has to has answered OK, what was refused apart.

        delay_ms: for these, instead of the publisher's own.

        Of that it returns each message: with MessageRefused, one that no broker takes, or with the BrokerError that
        its topic was refused with. Raises NetworkError when no broker was reachable in time.
        """
        self._publishes += 1
        order = self._publishes
        refused: Refused = {}
        delay = self._delay_ms if delay_ms is None else delay_ms
        parts = self._parts(groups, delay, refused)
        if refused or (self._asking is not None and not self._asking.done()):  # who comes later may not overtake
            await self._learn_limits()  # the broker's may be higher than nsqd's default
            refused.clear()
            parts = self._parts(groups, delay, refused)
        if parts:
            await _all([self._publish(lane, order, parts, refused) for lane in await self._wait_lanes()])
        return refused

    async def close(self) -> None:
        for lane in self._lanes.values():
            await lane.close()
        await self._links.close()

    # ── batches ──

    def _parts(self, groups: Sequence[Group], delay_ms: int, refused: Refused) -> list[Part]:
        """`groups` as one command each, or several where one does not take it; what no broker takes is `refused`."""
        parts: list[Part] = []
        for nth, (topic, bodies) in enumerate(groups):
            part = Part(topic, bodies, nth, range(len(bodies)), delay_ms)
            part = self._fitting(part, refused)
            parts += self._split(part) if part.bodies else []
        return parts

    def _fitting(self, part: Part, refused: Refused) -> Part:
        """`part` without what no broker takes, which is `refused`."""
        bodies, most = part.bodies, self._max_msg_size
        if not bodies or (max(map(len, bodies)) <= most and all(bodies)):
            return part
        places = []
        for place, body in zip(part.places, bodies, strict=True):
            if not body:
                refused[part.group, place] = MessageRefused("it is empty, and NSQ has no empty messages")
            elif len(body) > most:
                refused[part.group, place] = MessageRefused(
                    f"it has {len(body)} bytes, the broker takes at most {most} (its --max-msg-size)"
                )
            else:
                places.append(place)
        fitting = [body for body in bodies if 0 < len(body) <= most]
        return Part(part.topic, fitting, part.group, places, part.delay_ms)

    def _split(self, part: Part) -> list[Part]:
        """`part`, each message of which fits, cut into what one command takes."""
        most = min(self._batch_bytes, self._max_body_size)
        bodies = part.bodies
        if part.delay_ms:  # there is no MPUB that defers; they share a write all the same
            ends = list(range(1, len(bodies) + 1))
        elif len(bodies) <= self._batch_count and commands.mpub_size(bodies) <= most:
            return [part]
        else:
            ends = []
            start, size = 0, 4
            for end, body in enumerate(bodies):
                if end - start == self._batch_count or (size + 4 + len(body) > most and end > start):
                    ends.append(end)
                    start, size = end, 4
                size += 4 + len(body)
            ends.append(len(bodies))
        return [_piece(part, start, end) for start, end in zip([0, *ends], ends, strict=False)]

    def _encode(self, part: Part) -> bytes:
        """The command for `part`."""
        if part.delay_ms:
            return commands.dpub(part.topic, part.bodies[0], part.delay_ms)
        if len(part.bodies) == 1:
            return commands.pub(part.topic, part.bodies[0])
        return commands.mpub(part.topic, part.bodies)

    # ── one publish ──

    async def _publish(self, lane: Lane, order: int, parts: Sequence[Part], refused: Refused) -> None:
        """Publish `parts` on `lane`; what a broker finds too large is cut again, down to the message that is."""
        while parts:
            shipment = lane.ship(order, parts)
            try:
                await shipment.done
                return
            except SizeError as error:
                part, *parts = shipment.parts
                if len(part.bodies) > 1:
                    parts = [*await self._cut(part, refused), *parts]
                else:
                    refused[part.group, part.places[0]] = MessageRefused(
                        f"it has {len(part.bodies[0])} bytes, and {error}"
                    )
            except BrokerError as error:
                topic = shipment.parts[0].topic
                for part in shipment.parts:
                    if part.topic == topic:
                        refused.update(((part.group, place), error) for place in part.places)
                parts = [part for part in shipment.parts if part.topic != topic]
            except asyncio.CancelledError:
                shipment.done.cancel()
                raise

    async def _cut(self, part: Part, refused: Refused) -> list[Part]:
        """An MPUB that was refused for its size, cut by what the broker says of its limits, or in halves."""
        await self._learn_limits()
        fitting = self._fitting(part, refused)
        if not fitting.bodies:
            return []
        pieces = self._split(fitting)
        if len(pieces) == 1 and fitting is part:  # nothing was learned
            half = len(part.bodies) // 2
            return [_piece(part, 0, half), _piece(part, half, len(part.bodies))]
        return pieces

    async def _learn_limits(self) -> None:
        """Ask the brokers for their limits, once."""
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask_limits())
        await asyncio.shield(self._asking)

    async def _ask_limits(self) -> None:
        bases = {address.http for address in self._links.discovery.known if address.http}
        tls = self._settings.http_tls_context()
        told = [
            limits for limits in await asyncio.gather(*(ask_limits(base, tls) for base in bases)) if limits is not None
        ]
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
            self._lanes[address] = Lane(name, self._chooser(address), self._encode, self._answered, self._retry_timeout)
        return self._lanes[address]

    def _answered(self, connection: Connection, seconds: float, count: int) -> None:
        self._balance.took(connection, seconds)
        if self._on_published is not None:
            self._on_published(seconds, count)

    def _chooser(self, address: Address | None) -> Callable[[], Connection | None]:
        def choose() -> Connection | None:
            open_ones = [
                connection
                for connection in self._connections
                if connection.is_open and (address is None or connection.address_ == address)
            ]
            return self._balance.pick(open_ones) if open_ones else None

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
        return f"<Publisher {self._brokers} connections={len(self._connections)}>"


class TopicSink:
    """One topic of a publisher, as a Sink."""

    def __init__(self, publisher: Publisher, topic: str) -> None:
        self._publisher = publisher
        self._topic = topic

    async def write(self, batch: Batch) -> None:
        """Publish all of `batch`; returns when every broker that has to has answered OK.

        PartialFailure names the messages that are over the limit, with MessageRefused for each.
        BrokerError when a broker refuses for good, NetworkError when none was reachable in time.
        """
        refused = await self._publisher.publish([(self._topic, batch.bodies)])
        if refused:
            for error in refused.values():
                if not isinstance(error, MessageRefused):
                    raise error
            raise PartialFailure({place: refused[group, place] for group, place in sorted(refused)})

    async def close(self) -> None:
        await self._publisher.close()


def _piece(part: Part, start: int, end: int) -> Part:
    return Part(part.topic, part.bodies[start:end], part.group, part.places[start:end], part.delay_ms)


async def _all(writes: Sequence[Coroutine[None, None, None]]) -> None:
    """Wait for all of them, beyond a first error too, and then raise it: none is left behind."""
    if len(writes) == 1:
        await writes[0]
        return
    outcomes = await asyncio.gather(*writes, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
