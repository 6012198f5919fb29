"""In-order confirmation: how far an input is confirmed, when its messages are finished in any order. No I/O, no clock.

    add(0, 5)   add(5, 9)      finish(range(2, 5))      finish(range(0, 2))      finish([8])      finish([5, 6, 7])
    confirmed   0              0                        5                        5                9

Each message has a number. `Ledger` works on numbers alone: they ascend, and may have gaps, as the offsets of a Kafka
partition do; there, `confirmed` is the offset to commit. `SpanLedger` numbers the messages itself, and knows for each
block of an input how many of its messages are confirmed.

Time: O(1) for each range that is added or finished, amortized. Memory: one entry for each range that was finished while
an earlier message was not, and one for each gap before such a range; so it is bounded by the messages in flight.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Generic, TypeVar

Span = TypeVar("Span")


class Ledger:
    """Numbers from `start` on. confirmed: all numbers below it are finished. end: all numbers below it were added."""

    __slots__ = ("_finished", "confirmed", "end")

    def __init__(self, start: int = 0) -> None:
        self.confirmed = start
        self.end = start
        self._finished: dict[int, int] = {}  # ranges above `confirmed`: start → stop

    def add(self, start: int, stop: int) -> None:
        """The messages `start` to `stop` - 1 were read. If `start` is above `end`, no message has a number in between:
        the gap counts as finished. ValueError if `start` is below `end`."""
        if start < self.end or stop < start:
            raise ValueError(f"{start} to {stop} cannot follow {self.end}")
        gap, self.end = self.end, stop
        if gap < start:
            self._finish(gap, start)

    def finish(self, numbers: Sequence[int]) -> bool:
        """The messages `numbers`, ascending, are finished. Returns whether `confirmed` has moved on.

        A range is one step, whatever its length. ValueError, for each range of consecutive numbers, if it begins below
        `confirmed` or where a finished range begins, or if it ends above `end`. A range that begins or ends within a
        finished range is not detected.
        """
        before = self.confirmed
        for start, stop in ranges_of(numbers):
            if start < self.confirmed or stop > self.end or start in self._finished:
                raise ValueError(f"{start} to {stop} are not all unfinished: {self!r}")
            self._finish(start, stop)
        return self.confirmed != before

    def _finish(self, start: int, stop: int) -> None:
        if start != self.confirmed:
            self._finished[start] = stop
            return
        finished = self._finished
        while finished and stop in finished:
            stop = finished.pop(stop)
        self.confirmed = stop

    def __len__(self) -> int:
        """How many numbers lie between the lowest unfinished one and the newest."""
        return self.end - self.confirmed

    def __repr__(self) -> str:
        return f"<Ledger confirmed={self.confirmed} end={self.end} finished_ranges={len(self._finished)}>"


class SpanLedger(Generic[Span]):
    """Spans, such as blocks of a file, in the order in which they were read; each has some messages, or none."""

    def __init__(self) -> None:
        self._ledger = Ledger()
        self._spans: deque[tuple[int, int, Span]] = deque()  # (first number, number behind the last, span)
        self._advanced = 0  # `confirmed` at the last advance()

    def add(self, count: int, span: Span) -> range:
        """A span with `count` messages was read; returns their numbers."""
        start = self._ledger.end
        self._ledger.add(start, start + count)
        self._spans.append((start, start + count, span))
        return range(start, start + count)

    def finish(self, numbers: Sequence[int]) -> bool:
        """As `Ledger.finish`."""
        return self._ledger.finish(numbers)

    def advance(self) -> Iterator[tuple[Span, int]]:
        """Each span of which more is confirmed than at the last call, in order, and how many of its messages are.

        A span is yielded for the last time when all of its messages are confirmed. A span without messages is yielded
        once, when all spans before it are confirmed.
        """
        spans, confirmed = self._spans, self._ledger.confirmed
        while spans and spans[0][1] <= confirmed:
            start, stop, span = spans.popleft()
            yield span, stop - start
        if spans and confirmed > max(self._advanced, spans[0][0]):
            yield spans[0][2], confirmed - spans[0][0]
        self._advanced = confirmed

    def __len__(self) -> int:
        """How many spans are not wholly confirmed."""
        return len(self._spans)


def ranges_of(numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Ascending numbers as (start, stop) of each run without a gap."""
    if isinstance(numbers, range) and numbers.step == 1:
        if numbers:
            yield numbers.start, numbers.stop
        return
    start = stop = None
    for number in numbers:
        if number == stop:
            stop += 1
            continue
        if start is not None and stop is not None:
            yield start, stop
        start, stop = number, number + 1
    if start is not None and stop is not None:
        yield start, stop
