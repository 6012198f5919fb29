"""What one subscription has in flight, and what becomes of it. In: entries, acknowledgements. Out: batches, and calls
of the subclass, which speaks to the server.

    entries ─▶ arrive() ─▶ a batch ─▶ finish()   requeue(delay) ─▶ waiting ─▶ due() ─▶ fetched again ─▶ arrive()

A requeued message is not kept: it stays pending in the server and is fetched again when its delay is over. Only its id
is kept, and the source bounds how many wait (`waiting_count`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container, Sequence
from heapq import heappop, heappush

from qtools.attributes import Attributes
from qtools.engines.connections.in_flight import Delivery, InFlightLedger
from qtools.engines.redelivery import AttemptCounts
from qtools.engines.redis.connection import RedisConnection
from qtools.engines.redis.protocol.entries import attributes_of, bodies_of, timestamp_of
from qtools.engines.redis.protocol.replies import Entry
from qtools.engines.redis.protocol.stream_ids import message_id
from qtools.message import Batch, Messages
from qtools.names import Subscription


class EntryDelivery(Delivery):
    """The RecordOrigin of the entries of one read; a record is an entry."""

    __slots__ = ()
    connection: StreamChannel

    def messages_of(self, records: Sequence[Entry], bodies: list[bytes]) -> Messages:
        attempts = self.connection.attempts
        return Messages(
            [message_id(entry[0]) for entry in records],
            bodies,
            [timestamp_of(entry) for entry in records],
            [attempts.get(entry[0], 1) for entry in records],
        )

    def attributes_of(self, records: Sequence[Entry], only: Container[str] = Attributes._fields) -> Attributes:
        return attributes_of(records, only)

    def delivered_more_than(self, times: int, records: Sequence[Entry]) -> dict[int, int]:
        return self.connection.attempts.more_than(times, [entry[0] for entry in records])

    def take_back(self) -> Sequence[bytes]:
        """The ids that are in flight; none of them is afterwards."""
        return self._take(self.in_flight)


class StreamChannel:
    """One subscription. on_changed: called when messages have left the flight, or wait to be fetched again.

    attempts: how often messages were delivered, if more than once. position: the id of the newest entry that arrived.
    """

    def __init__(self, subscription: Subscription, address: str, on_changed: Callable[[], None]) -> None:
        self.subscription = subscription
        self.topic, self.channel = subscription
        self.address = address
        self.attempts = AttemptCounts()
        self.acknowledgements_failed = 0
        self.lag_messages: int | None = None
        self.reader: RedisConnection | None = None
        self.commands: RedisConnection | None = None
        self.position = b""
        self.is_asking = False  # for new entries, over the connection that is open
        self.ledger = InFlightLedger(self, EntryDelivery)
        self._on_changed = on_changed
        self._waiting: list[tuple[float, int, Sequence[bytes]]] = []  # a heap: when due, a number, ids
        self._requeues = 0
        self.waiting_count = 0  # ids in `_waiting`
        self.has_waiting = asyncio.Event()

    # ── what was read ──

    def arrive(self, entries: Sequence[Entry], now: float) -> Batch:
        """`entries` as a batch; they are in flight from now on. now: of the event loop."""
        ids = [entry[0] for entry in entries]
        delivery = self.ledger.add(ids, now)
        return Batch([(delivery, 0, len(ids))], None, bodies_of(entries), ids, entries)

    def known_ids(self) -> set[bytes]:
        """The ids in flight, and those that wait to be fetched again."""
        known = set(self.ledger.ids())
        for _, _, ids in self._waiting:
            known.update(ids)
        return known

    # ── what becomes of messages (in_flight.Acknowledger) ──

    def finish(self, ids: Sequence[bytes]) -> None:
        self.attempts.forget(ids)
        self._on_changed()

    def requeue(self, ids: Sequence[bytes], delay_ms: int) -> None:
        if ids:
            self.wait(ids, asyncio.get_running_loop().time() + delay_ms / 1000)
        self._on_changed()

    def touch(self, ids: Sequence[bytes]) -> None:
        """Nothing to do without a group."""

    # ── waiting to be fetched again ──

    def wait(self, ids: Sequence[bytes], due: float) -> None:
        """`ids` are to be fetched again at the loop's time `due`."""
        self._requeues += 1
        self.waiting_count += len(ids)
        heappush(self._waiting, (due, self._requeues, ids))
        self.has_waiting.set()

    @property
    def next_due(self) -> float | None:
        """When the next of them is due, by the event loop's time."""
        return self._waiting[0][0] if self._waiting else None

    def take_due(self, now: float, most: int) -> Sequence[bytes]:
        """At most `most` ids that are due; they no longer wait."""
        if most < 1 or not self._waiting or self._waiting[0][0] > now:
            return ()
        due, number, ids = heappop(self._waiting)
        if len(ids) > most:
            heappush(self._waiting, (due, number, ids[most:]))
        taken = ids[:most]
        self.waiting_count -= len(taken)
        return taken

    @property
    def waits(self) -> bool:
        """Whether messages wait to be fetched again."""
        return bool(self._waiting)

    def waiting_ids(self) -> list[bytes]:
        return [ident for _, _, ids in self._waiting for ident in ids]

    def note_again(self, ids: Sequence[bytes]) -> None:
        """`ids` are delivered once more."""
        for ident in ids:
            self.attempts.add(ident)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.subscription} in_flight={self.ledger.count}>"
