"""Divides what may be in flight among the consumers of a source. In: readers, a bound, a limit. Out: their prefetch.

What the broker may have sent is bounded, and not only what has arrived: messages in flight, and those that may come for
the prefetch of the consumers that run, are together never more than the bound, and never go beyond the limit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from qtools.engines.amqp.consume.queue_reader import QueueReader

TURN_SECONDS = 0.2  # how long an idle consumer keeps its turn, if fewer may be in flight than there are subscriptions


class PrefetchShares:
    """The shares of `readers`, a list that may grow. most: messages in flight. left: of the limit, None without one.
    runs: whether anything may be read now; when it is not, all consumers are cancelled."""

    def __init__(self, readers: list[QueueReader], most: int) -> None:
        self.left: int | None = None
        self.runs = True
        self._readers = readers
        self._most = most
        self._share = 0  # of each consumer
        self._turn = 0
        self._timer: asyncio.TimerHandle | None = None

    def divide(self) -> None:
        """Start the consumers that may run and do not, and end those that may not."""
        readers = self._readers
        if not self.runs:
            for reader in readers:
                reader.cancel()
            return
        count, may_come = len(readers), sum(reader.may_come for reader in readers)
        room = self._most - sum(reader.in_flight for reader in readers) - may_come
        most = self._most
        if self.left is not None:
            room, most = min(room, self.left - may_come), min(most, self.left)
        self._share = max(1, most // count)
        for reader in (*readers[self._turn % count :], *readers[: self._turn % count]):
            prefetch = min(self._share, room)
            if reader.can_consume and prefetch > 0:
                reader.consume(prefetch)
                room -= prefetch
            elif 2 * reader.prefetch <= min(self._share, reader.prefetch + room):
                reader.cancel()  # it was started when there was little room
        if self._timer is None and any(reader.can_consume for reader in readers):
            self._timer = asyncio.get_running_loop().call_later(TURN_SECONDS, self._take_turns)

    def divide_anew(self) -> None:
        """There are more readers: their shares are smaller now."""
        for reader in self._readers:
            reader.cancel()
        self.divide()

    def settling(self, reader: QueueReader, tags: Sequence[int]) -> None:
        """Messages are settled next, in the place of which the broker sends others: not beyond the limit."""
        if self.left is not None:
            more = reader.of_consumer(tags)
            if more and sum(each.may_come for each in self._readers) + more > self.left:
                for each in self._readers:
                    each.cancel()

    def settled(self) -> None:
        """There may be room for consumers that wait, or that have less than their share."""
        if any(reader.prefetch < self._share for reader in self._readers):
            self.divide()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _take_turns(self) -> None:
        """End the consumers that have nothing in flight, while others wait for room."""
        self._timer = None
        self._turn += 1
        if any(reader.can_consume for reader in self._readers):
            for reader in self._readers:
                if reader.is_idle:
                    reader.cancel()
        self.divide()
