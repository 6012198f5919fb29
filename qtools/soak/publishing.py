"""Publishes numbered messages at a rate, or as fast as they are confirmed and read. In: a publisher, a history. Out:
the history of what was sent and confirmed; latencies.

A publish is one call for a batch, and up to WINDOW of them run at once. One that fails is not repeated: its messages
are unconfirmed, and may have been published or not. The publisher itself repeats what it can, as in every command.
"""

from __future__ import annotations

import asyncio
import logging
import time
from array import array
from bisect import bisect_right
from math import ceil, inf

from qtools.attributes import Attributes
from qtools.backoff import next_delay
from qtools.cli import logs
from qtools.cli.types import plural
from qtools.engines.contract import Publisher
from qtools.errors import QtoolsError
from qtools.flow.contract import GroupAttributes
from qtools.flow.keying import FixedAttributes
from qtools.soak.bodies import BodyMaker
from qtools.soak.history import DeliveryHistory
from qtools.soak.latency import LatencyCounter
from qtools.soak.options import SoakOptions

WINDOW = 8  # publishes at once: while some wait for their confirmation, the next are made
BATCH_COUNT = 1000
BATCH_BYTES = 500_000
TICK = 0.01  # s: with a rate, what is due within this time is published together
CATCH_UP = 1.0  # s: after a pause at most what was due in this time is made up for
# Without a rate, publishing waits while so many messages are sent and later than the last one that was read.
AHEAD_COUNT = 100_000
AHEAD_BYTES = 64_000_000
NUDGE = 1.0  # s after which a batch is published even then: all of these messages may have been lost
LOG_AGAIN = 10.0  # s between two log lines about publishes that fail
TIME_INTERVAL = 1.0  # s between two entries of SentTimes
MOST_TIMES = 100_000


class SentTimes:
    """When messages were sent, to the second; less precise in runs of more than a day."""

    def __init__(self) -> None:
        self._numbers = array("Q")
        self._times = array("d")
        self._interval = TIME_INTERVAL

    def note(self, number: int, now: float) -> None:
        """The message `number`, and those before, were sent by `now` (s since 1970)."""
        times = self._times
        if times and 0 <= now - times[-1] < self._interval:
            return
        self._numbers.append(number)
        times.append(now)
        if len(times) >= MOST_TIMES:
            self._numbers, self._times = self._numbers[::2], times[::2]
            self._interval *= 2

    def of(self, number: int) -> float:
        """When about the message `number` was sent, s since 1970."""
        return self._times[max(0, bisect_right(self._numbers, number) - 1)]


class NumberedPublisher:
    """Publishes for one run. published_bytes: of the bodies that were confirmed. refused: messages that the broker, or
    its publisher, did not take. seconds: from the first publish until the last confirmation."""

    def __init__(self, publisher: Publisher, maker: BodyMaker, history: DeliveryHistory, options: SoakOptions) -> None:
        self.latency = LatencyCounter()
        self.times = SentTimes()
        self.refused = self.failures = 0
        self.seconds = 0.0
        self._publisher = publisher
        self._maker = maker
        self._history = history
        self._options = options
        self._window = 1 if options.ordered else WINDOW
        self._batch = max(1, min(BATCH_COUNT, BATCH_BYTES // options.size))
        self._ahead = max(2 * self._batch, min(AHEAD_COUNT, AHEAD_BYTES // options.size))
        self._key_cycle: list[bytes | None] = []
        if options.engine.capabilities.keys_and_headers:
            keys: list[bytes | None] = [b"%d" % key for key in range(options.keys)]
            self._key_cycle = keys * (1 + ceil(self._batch / len(keys)))
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._is_stopping = False
        self._defect: BaseException | None = None
        self._failures_in_a_row = 0
        self._pauses_until = -inf
        self._logged_at = -inf
        self._sent_at = -inf
        self._began_at = 0.0
        self._due_since = 0.0  # with a rate: when the first message was due

    def stop(self) -> None:
        """Send nothing more; what was sent may still be confirmed."""
        self._is_stopping = True
        self._changed.set()

    def notify(self) -> None:
        """Look again whether to send: messages were read."""
        self._changed.set()

    @property
    def running(self) -> int:
        """Publishes that are not confirmed yet."""
        return len(self._tasks)

    async def run(self) -> None:
        """Publish until the run's duration or count is reached, or `stop`."""
        clock = asyncio.get_running_loop().time
        begun = self._began_at = self._due_since = clock()
        ends = inf if self._options.duration is None else begun + self._options.duration
        try:
            while not self._is_stopping and (now := clock()) < ends:
                if self._defect is not None:
                    raise self._defect
                count, pause = self._due(now)
                if self._options.count is not None:
                    if self._history.sent >= self._options.count:
                        break
                    count = min(count, self._options.count - self._history.sent)
                if count:
                    self._send(count, now)
                else:
                    await self._pause(min(pause, ends - now))
        finally:
            self.seconds = max(self.seconds, clock() - begun)

    async def close(self) -> None:
        """Cancel the publishes that still run."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        if self._defect is not None:
            raise self._defect

    # ── what is sent when ──

    def _due(self, now: float) -> tuple[int, float]:
        """How many messages to send now; if none, for how many s to wait, unless something changes."""
        if len(self._tasks) >= self._window:
            return 0, inf
        if now < self._pauses_until:
            return 0, self._pauses_until - now
        rate = self._options.rate
        if not rate:
            is_ahead = self._history.sent - self._history.highest_read > self._ahead
            if is_ahead and now < self._sent_at + NUDGE:
                return 0, self._sent_at + NUDGE - now
            return self._batch, 0.0
        self._due_since = max(self._due_since, now - CATCH_UP - self._history.sent / rate)
        due = 1 + (now - self._due_since) * rate - self._history.sent
        least = max(1.0, min(float(self._batch), rate * TICK))
        return (min(int(due), self._batch), 0.0) if due >= least else (0, (least - due) / rate)

    async def _pause(self, seconds: float) -> None:
        self._changed.clear()
        try:
            async with asyncio.timeout(None if seconds == inf else max(seconds, 0.0005)):
                await self._changed.wait()
        except TimeoutError:
            pass

    # ── one batch ──

    def _send(self, count: int, now: float) -> None:
        self._sent_at = now
        first = self._history.send(count)
        self.times.note(first, time.time())
        task = asyncio.create_task(self._publish(first, count))
        self._tasks.add(task)
        task.add_done_callback(self._on_done)

    async def _publish(self, first: int, count: int) -> None:
        stamp = time.monotonic_ns()
        bodies = self._maker.make(first, count, stamp)
        try:
            refused = await self._publisher.publish(
                [(self._options.topic, bodies)], attributes=self._attributes(first, count)
            )
        except QtoolsError as error:
            self._fail(error, count)
            return
        self.latency.observe(time.monotonic_ns() - stamp, count - len(refused))
        self.seconds = asyncio.get_running_loop().time() - self._began_at
        start = first
        for place in sorted(place for _, place in refused):
            self._history.confirm(start, first + place)
            start = first + place + 1
        self._history.confirm(start, first + count)
        if refused:
            self.refused += len(refused)
            self._fail(next(iter(refused.values())), len(refused))
        else:
            self._failures_in_a_row = 0

    def _attributes(self, first: int, count: int) -> GroupAttributes | None:
        if not self._key_cycle:
            return None
        start = first % self._options.keys
        return FixedAttributes([Attributes(keys=self._key_cycle[start : start + count])])

    def _fail(self, error: QtoolsError, count: int) -> None:
        """Log that `count` messages were not confirmed, unless that was logged just now, and pause."""
        now = asyncio.get_running_loop().time()
        self.failures += 1
        self._failures_in_a_row += 1
        self._pauses_until = now + next_delay(self._failures_in_a_row)
        if now >= self._logged_at + LOG_AGAIN:
            self._logged_at = now
            logs.log(logging.WARNING, f"{plural(count, 'message')} not confirmed: {error}")

    def _on_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._defect = self._defect or error
        self._changed.set()
