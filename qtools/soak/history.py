"""What became of each numbered message. In: the numbers that were sent, confirmed, and delivered. Out: which of them
were lost, delivered again, delivered out of order. No clock, no I/O; the memory is bounded.

Numbers ascend from 0, and number N belongs to the key N % keys. They are kept in pages of 65,536 numbers:

    dense      a byte for each number: CONFIRMED | READ               64 KiB; the pages in use
    runs       (start, stop, state) of numbers that are not done      a page that was not used for a while
    counted    how many are not done, but no longer which ones        once there are max_runs runs
    none       all of its numbers are done: confirmed and read

In a good run there are few dense pages and no others. If readers are behind by a billion messages, these are runs.
"""

from __future__ import annotations

import re
from array import array
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

PAGE_BITS = 16  # a page has 65,536 numbers
MAX_DENSE_PAGES = 512  # 32 MiB, which cover 33 million numbers
MAX_RUNS = 500_000  # in all pages together: 12 bytes each

_CONFIRMED, _READ, _DONE = 1, 2, 3
_ADD_CONFIRMED = bytes(state | _CONFIRMED for state in range(256))
_ADD_READ = bytes(state | _READ for state in range(256))
_RUN = re.compile(rb"\x00+|\x01+|\x02+")
_LOST = re.compile(rb"\x01+")


class NumberRun(NamedTuple):
    """Messages from number `start` to before `stop`, of which `messages` are meant: all of them, or, where it is not
    known any more which ones, fewer."""

    start: int
    stop: int
    messages: int


class _CountedPage:
    """A page of which only counts are known: how many of its messages are neither confirmed nor read, how many only
    confirmed, and how many only read."""

    __slots__ = ("confirmed_unread", "read_unconfirmed", "unknown")

    def __init__(self, page: bytearray) -> None:
        self.unknown = page.count(0)
        self.confirmed_unread = page.count(_CONFIRMED)
        self.read_unconfirmed = page.count(_READ)


class DeliveryHistory:
    """The history of one run.

    sent: numbers below it were given to the publisher. confirmed, read: how many of them were, each counted once.
    doubled: deliveries of messages that had been delivered before. out_of_order: messages whose first delivery came
    after that of a later message of their key. never_sent: deliveries of numbers that were not sent.
    is_exact: False once it is not known any more, of all numbers, which ones are not done.
    """

    def __init__(
        self,
        keys: int = 1,
        *,
        max_dense_pages: int = MAX_DENSE_PAGES,
        max_runs: int = MAX_RUNS,
        page_bits: int = PAGE_BITS,
    ) -> None:
        self.sent = self.confirmed = self.read = 0
        self.doubled = self.out_of_order = self.never_sent = 0
        self.is_exact = True
        self.highest_read = -1
        self._read_confirmed = 0  # numbers that are both
        self._keys = keys
        self._newest = [-1] * keys  # by key: the highest number that was read
        self._bits = page_bits
        self._page_size = 1 << page_bits
        self._mask = (1 << page_bits) - 1
        self._max_dense_pages = max_dense_pages
        self._max_runs = max_runs
        self._made = 0  # pages below it were made
        self._dense: OrderedDict[int, bytearray] = OrderedDict()  # by index, the one that was used last at the end
        self._runs: dict[int, array[int]] = {}  # by index: start, stop, state, start, stop, …
        self._counted: dict[int, _CountedPage] = {}
        self._run_count = 0

    @property
    def unread(self) -> int:
        """Messages that were confirmed and not read: at the end, those that were lost."""
        return self.confirmed - self._read_confirmed

    @property
    def unconfirmed(self) -> int:
        """Messages that were sent and not confirmed: they may have been published, or not."""
        return self.sent - self.confirmed

    @property
    def unconfirmed_read(self) -> int:
        """Of these: messages that were read."""
        return self.read - self._read_confirmed

    def send(self, count: int) -> int:
        """Note that `count` more messages are given to the publisher; return the number of the first."""
        first = self.sent
        self.sent += count
        return first

    def confirm(self, start: int, stop: int) -> None:
        """Note that the messages from number `start` to before `stop` were confirmed, for the first time."""
        self.confirmed += stop - start
        while start < stop:
            index = start >> self._bits
            end = min(stop, (index + 1) << self._bits)
            page = self._page(index)
            if page is None:
                self._confirm_counted(index, end - start)
            else:
                low, high = start & self._mask, end - (index << self._bits)
                self._read_confirmed += page.count(_READ, low, high)
                page[low:high] = page[low:high].translate(_ADD_CONFIRMED)
                self._drop_if_done(index, page)
            start = end

    def deliver(self, numbers: Sequence[int]) -> None:
        """Note that the messages with `numbers` were delivered, in this order."""
        if not numbers:
            return
        if max(numbers) >= self.sent:
            known = [number for number in numbers if number < self.sent]
            self.never_sent += len(numbers) - len(known)
            return self.deliver(known)
        first, last = numbers[0], numbers[-1]
        if (
            first > self.highest_read
            and last - first == len(numbers) - 1
            and (len(numbers) == 1 or list(numbers) == list(range(first, last + 1)))
        ):
            self._deliver_next(first, last + 1)
        else:
            self._deliver_any(numbers)
            self.highest_read = max(self.highest_read, max(numbers))

    def lost(self) -> Iterator[NumberRun]:
        """The messages that were confirmed and not read, in ascending order."""
        for index in sorted({*self._dense, *self._runs, *self._counted}):
            base = index << self._bits
            if (page := self._dense.get(index)) is not None:
                for found in _LOST.finditer(page):
                    yield NumberRun(base + found.start(), base + found.end(), found.end() - found.start())
            elif (runs := self._runs.get(index)) is not None:
                for start, stop, state in _triples(runs):
                    if state == _CONFIRMED:
                        yield NumberRun(base + start, base + stop, stop - start)
            elif count := self._counted[index].confirmed_unread:
                yield NumberRun(base, base + self._page_size, count)

    # ── deliveries ──

    def _deliver_next(self, start: int, stop: int) -> None:
        """Deliver messages in ascending order of which none, and none later, was delivered before."""
        self.highest_read = stop - 1
        newest, keys = self._newest, self._keys
        for number in range(max(start, stop - keys), stop):
            newest[number % keys] = number
        while start < stop:
            index = start >> self._bits
            end = min(stop, (index + 1) << self._bits)
            page = self._page(index)
            if page is None:
                first = self._read_counted(index, end - start)
                self.read += first
                self.doubled += end - start - first
            else:
                self.read += end - start
                low, high = start & self._mask, end - (index << self._bits)
                self._read_confirmed += page.count(_CONFIRMED, low, high)
                page[low:high] = page[low:high].translate(_ADD_READ)
                self._drop_if_done(index, page)
            start = end

    def _deliver_any(self, numbers: Sequence[int]) -> None:
        newest, keys, bits, mask = self._newest, self._keys, self._bits, self._mask
        current = -1
        page: bytearray | None = None
        doubled = read = read_confirmed = out_of_order = 0
        for number in numbers:
            index = number >> bits
            if index != current:
                if page is not None:
                    self._drop_if_done(current, page)
                current, page = index, self._page(index)
            if page is None:
                if not self._read_counted(index, 1):
                    doubled += 1
                    continue
            else:
                place = number & mask
                state = page[place]
                if state & _READ:
                    doubled += 1
                    continue
                page[place] = state | _READ
                read_confirmed += state  # 1 or 0
            read += 1
            key = number % keys
            if number < newest[key]:
                out_of_order += 1
            else:
                newest[key] = number
        if page is not None:
            self._drop_if_done(current, page)
        self.doubled += doubled
        self.read += read
        self._read_confirmed += read_confirmed
        self.out_of_order += out_of_order

    # ── pages ──

    def _page(self, index: int) -> bytearray | None:
        """The page `index` as a dense one; None if all of its numbers are done, or only counted."""
        page = self._dense.get(index)
        if page is not None:
            self._dense.move_to_end(index)
            return page
        if (runs := self._runs.pop(index, None)) is not None:
            self._run_count -= len(runs) // 3
            page = bytearray([_DONE]) * self._page_size
            for start, stop, state in _triples(runs):
                page[start:stop] = bytes([state]) * (stop - start)
        elif index >= self._made:
            for skipped in range(self._made, index):  # of numbers that were sent, and not confirmed or read yet
                self._keep(skipped, bytearray(self._page_size))
            self._made = index + 1
            page = bytearray(self._page_size)
        else:
            return None
        self._keep(index, page)
        return page

    def _keep(self, index: int, page: bytearray) -> None:
        self._dense[index] = page
        while len(self._dense) > self._max_dense_pages:
            self._shrink(*self._dense.popitem(last=False))

    def _shrink(self, index: int, page: bytearray) -> None:
        """Keep what a dense page says as runs, or, if there are too many, as counts."""
        runs = array("I")
        for found in _RUN.finditer(page):
            runs.extend((found.start(), found.end(), page[found.start()]))
        if self._run_count + len(runs) // 3 > self._max_runs:
            self.is_exact = False
            self._counted[index] = _CountedPage(page)
        else:
            self._run_count += len(runs) // 3
            self._runs[index] = runs

    def _drop_if_done(self, index: int, page: bytearray) -> None:
        # The last number is done late, mostly: to look at one byte is enough for almost all calls.
        if page[-1] == _DONE and page[0] == _DONE and page.count(_DONE) == self._page_size:
            self._dense.pop(index, None)

    # Of a counted page, deliveries may have been taken for those of other messages. So fewer messages than there are
    # may be in a state; the others are in none of the three, as if they were done.

    def _confirm_counted(self, index: int, count: int) -> None:
        """Confirm `count` messages of a page that only counts: those that were read, first."""
        page = self._counted[index]
        unread = min(page.unknown, max(0, count - page.read_unconfirmed))
        self._read_confirmed += count - unread
        page.read_unconfirmed -= min(count, page.read_unconfirmed)
        page.unknown -= unread
        page.confirmed_unread += unread

    def _read_counted(self, index: int, count: int) -> int:
        """Read `count` messages of a page that only counts, or is done: those that were confirmed, first. Returns how
        many there were to read; the others were delivered again."""
        page = self._counted.get(index)
        if page is None:
            return 0
        confirmed = min(count, page.confirmed_unread)
        page.confirmed_unread -= confirmed
        self._read_confirmed += confirmed
        unconfirmed = min(count - confirmed, page.unknown)
        page.unknown -= unconfirmed
        page.read_unconfirmed += unconfirmed
        return confirmed + unconfirmed


def _triples(runs: array[int]) -> Iterator[tuple[int, int, int]]:
    return zip(runs[::3], runs[1::3], runs[2::3], strict=True)
