"""Messages in flight on a connection. No I/O.

    Connection ─ids of one read─▶ InFlightLedger.add ─▶ Delivery, the origin of a batch
    Batch.finish ─▶ Delivery.finish ─▶ Connection.finish ─▶ one run of FINs

The ledger belongs to the connection and not to the consumer. What ends a delivery beside its acknowledgement (the loss
of the connection, its close) and what prolongs it (TOUCH) happens to one connection, and NSQ counts what is in flight
for each connection too. So an acknowledgement goes in one direction. A consumer is called only while it counts finished
messages, for a limit or a quota (`InFlightLedger.on_finish`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from qtools.message import Batch, Parts


class Acknowledger(Protocol):
    """Sends acknowledgements to the broker that delivered the messages. No call waits."""

    topic: str

    @property
    def address(self) -> str: ...
    def finish(self, ids: Sequence[bytes]) -> None: ...
    def requeue(self, ids: Sequence[bytes], delay_ms: int) -> None: ...
    def touch(self, ids: Sequence[bytes]) -> None: ...


class InFlightLedger:
    """The messages that arrived on one connection and are neither finished nor requeued.

    count: how many. on_finish: if set, it is called with the number of messages before they are acknowledged.
    delivery_class: what is made for the messages of each read.
    """

    __slots__ = ("_deliveries", "connection", "count", "delivery_class", "on_finish")

    def __init__(self, connection: Acknowledger, delivery_class: type[Delivery] | None = None) -> None:
        self.connection = connection
        self.delivery_class = delivery_class or Delivery
        self.count = 0
        self.on_finish: Callable[[int], None] | None = None
        self._deliveries: deque[Delivery] = deque()  # by `at`; a finished one is removed once it is the first

    def add(self, ids: list[bytes], now: float) -> Delivery:
        """Record the messages of one read, which arrived at the loop time `now`."""
        delivery = self.delivery_class(self, ids, now)
        self.count += len(ids)
        self._deliveries.append(delivery)
        return delivery

    def take_due(self, now: float, age: float) -> Iterator[Sequence[bytes]]:
        """The ids of each delivery that arrived, or was touched, `age` s ago; each counts as touched at `now`."""
        deliveries = self._deliveries
        while deliveries and now - deliveries[0].at >= age:
            delivery = deliveries.popleft()
            if delivery.left:
                delivery.at = now
                deliveries.append(delivery)
                yield delivery.in_flight

    def ids(self) -> Iterator[bytes]:
        """The ids of all messages in flight."""
        for delivery in self._deliveries:
            yield from delivery.in_flight

    def take_all(self) -> list[Sequence[bytes]]:
        """The ids of each delivery; afterwards nothing is in flight."""
        ids = [delivery.in_flight for delivery in self._deliveries if delivery.left]
        self.drop()
        return ids

    def drop(self) -> None:
        """Forget all messages: the connection is lost, and the broker delivers them again."""
        for delivery in self._deliveries:
            delivery.drop()
        self._deliveries.clear()
        self.count = 0

    def remove_finished(self) -> None:
        """Remove the oldest deliveries that have nothing in flight."""
        deliveries = self._deliveries
        while deliveries and not deliveries[0].left:
            deliveries.popleft()


class Delivery:
    """The messages of one read, and which of them are in flight: the origin of their batch.

    left: how many are in flight. at: loop time of the arrival, or of the last TOUCH.
    Nearly always the messages are finished in their order, most often all by one call. Then those in flight are the
    last `left` of `_ids`, and no single id is looked up.
    """

    __slots__ = ("_ids", "_ledger", "_some", "at", "connection", "left")

    def __init__(self, ledger: InFlightLedger, ids: list[bytes], at: float) -> None:
        self.connection = ledger.connection
        self.left = len(ids)
        self.at = at
        self._ledger = ledger
        self._ids: Sequence[bytes] = ids
        self._some: set[bytes] | None = None  # the ids in flight; None while they are the last `left` of `_ids`

    @property
    def topic(self) -> str:
        return self.connection.topic

    @property
    def address(self) -> str:
        return self.connection.address

    @property
    def is_lost(self) -> bool:
        """Also true once all messages are finished: nothing can be acknowledged then either."""
        return not self.left

    @property
    def in_flight(self) -> Sequence[bytes]:
        """The ids that are neither finished nor requeued."""
        if not self.left:
            return ()
        return self._ids[len(self._ids) - self.left :] if self._some is None else list(self._some)

    def finish(self, ids: Sequence[bytes]) -> None:
        taken = self._take(ids)
        if self._ledger.on_finish is not None:
            self._ledger.on_finish(len(ids))
        self.connection.finish(taken)

    def requeue(self, ids: Sequence[bytes], delay_ms: int) -> None:
        self.connection.requeue(self._take(ids), delay_ms)

    def touch(self, ids: Sequence[bytes]) -> None:
        in_flight = set(self.in_flight)
        self.connection.touch([ident for ident in ids if ident in in_flight])

    def _take(self, ids: Sequence[bytes]) -> Sequence[bytes]:
        """Return those of `ids` that are in flight, and no longer count them as in flight."""
        before = self.left
        if self._some is None and len(ids) == before == len(self._ids):
            self.left = 0
        elif self._some is None and self._are_next(ids):
            self.left -= len(ids)
        else:
            if self._some is None:
                self._some = set(self.in_flight)
            if not self._some.issuperset(ids):
                ids = [ident for ident in ids if ident in self._some]
            self._some.difference_update(ids)
            self.left = len(self._some)
        ledger = self._ledger
        ledger.count -= before - self.left
        if not self.left:
            ledger.remove_finished()
        return ids

    def _are_next(self, ids: Sequence[bytes]) -> bool:
        """Whether `ids` are the first of the last `left` ids, in their order."""
        first = len(self._ids) - self.left
        return ids == self._ids[first : first + len(ids)]

    def drop(self) -> None:
        """Forget all ids: the broker delivers these messages again."""
        self.left = 0
        self._some = set()

    def merge(self, others: Sequence[Delivery], ids: Sequence[bytes]) -> None:
        """Take over the messages of `others`, later deliveries of the same connection. ids: of all, in their order."""
        for other in others:
            other.drop()
        self._ids = ids
        self.left = len(ids)

    def can_merge(self, other: Delivery) -> bool:
        """Whether both are of the same connection, and all their messages are in flight."""
        return self._ledger is other._ledger and self._is_whole and other._is_whole

    @property
    def _is_whole(self) -> bool:
        return bool(self.left) and self.left == len(self._ids) and self._some is None

    def __repr__(self) -> str:
        return repr(self.connection)


def merge_deliveries(batch: Batch) -> None:
    """Make one part of each run of parts of `batch` that are whole deliveries of one connection, so that the run is
    acknowledged by one call."""
    parts: Parts = []
    ids = batch.ids
    runs: list[list[tuple[Delivery, int, int]]] = []
    for part in batch.parts:
        delivery, start, stop = part
        assert isinstance(delivery, Delivery)
        if runs and runs[-1][-1][0].can_merge(delivery):
            runs[-1].append((delivery, start, stop))
        else:
            runs.append([(delivery, start, stop)])
    for run in runs:
        first, start, stop = run[0]
        if len(run) > 1:
            stop = run[-1][2]
            first.merge([delivery for delivery, _, _ in run[1:]], ids[start:stop])
        parts.append((first, start, stop))
    batch.parts = parts
