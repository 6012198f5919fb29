"""Reads numbered messages. In: a source. Out: the history of what was delivered; latencies, and counts of the rest.

A message is finished after it was noted here. If this process is killed, its messages come again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from qtools.engines.contract import Source
from qtools.errors import NetworkError, PeerError, StartError, TopicMissing
from qtools.soak.bodies import BodyChecker, CheckedBodies
from qtools.soak.history import DeliveryHistory
from qtools.soak.latency import LatencyCounter

TOPIC_TIMEOUT = 10.0  # s that a topic that was just made may take until it is known
END_TIMEOUT = 5.0  # s that the last batch may take at the end


class ReadCounts:
    """What was read in one run, but for the history. probes: by their numbers, how often each was read. foreign:
    messages that are not of this run. arrived_at: when a message of this run arrived last, by the event loop's clock.
    """

    def __init__(self, history: DeliveryHistory, on_read: Callable[[], None]) -> None:
        self.latency = LatencyCounter()
        self.probes: Counter[int] = Counter()
        self.foreign = self.corrupted = 0
        self.arrived_at = 0.0
        self._history = history
        self._on_read = on_read

    def note(self, checked: CheckedBodies, now: int) -> None:
        """Note a batch that was read at `now`, ns of the monotonic clock."""
        latencies = ((now - stamp, count) for stamp, count in Counter(checked.stamps).items())
        self.add(checked.numbers, latencies, checked.probes, checked.foreign, checked.corrupted)

    def add(
        self,
        numbers: Sequence[int],
        latencies: Iterable[tuple[int, int]],
        probes: Sequence[int],
        foreign: int,
        corrupted: int,
    ) -> None:
        """Note a batch. latencies: (ns, how many messages) each."""
        for latency, count in latencies:
            self.latency.observe(latency, count)
        self._history.deliver(numbers)
        self.probes.update(probes)
        self.foreign += foreign
        self.corrupted += corrupted
        if numbers or corrupted or probes:
            self.arrived_at = asyncio.get_running_loop().time()
            self._on_read()


class MessageReader(Protocol):
    """What reads the messages: `start`, then `close`. ended: done when nothing more is read; it has the error, if that
    is why. restarts: how often its process was started again."""

    ended: asyncio.Future[None]
    restarts: int

    async def start(self) -> None:
        """Connect and subscribe. UsageError, StartError."""

    @property
    def reconnects(self) -> int: ...
    @property
    def redelivered(self) -> int: ...
    @property
    def message_timeout(self) -> float | None:
        """s until an unfinished message is delivered again; infinity if it never is; None while it is not known."""

    async def is_drained(self) -> bool:
        """Whether nothing is left to read; False too where that cannot be known now."""

    async def close(self) -> None: ...


class LocalReader:
    """Reads in this process."""

    restarts = 0

    def __init__(self, source: Source, checker: BodyChecker, counts: ReadCounts) -> None:
        self._source = source
        self._checker = checker
        self._counts = counts
        self.ended: asyncio.Future[None]

    async def start(self) -> None:
        await prepare(self._source)
        await self._source.start()
        self.ended = asyncio.ensure_future(self._read())

    @property
    def reconnects(self) -> int:
        return self._source.reconnects or 0

    @property
    def redelivered(self) -> int:
        return self._source.redelivered or 0

    @property
    def message_timeout(self) -> float | None:
        return self._source.acknowledgement_timeout

    async def is_drained(self) -> bool:
        return await is_drained(self._source)

    async def close(self) -> None:
        self._source.end()
        await asyncio.wait((self.ended,), timeout=END_TIMEOUT)
        self.ended.cancel()
        await self._source.close()

    async def _read(self) -> None:
        source, checker, counts = self._source, self._checker, self._counts
        while (batch := await source.read()) is not None:
            counts.note(checker.check(batch.bodies), time.monotonic_ns())
            batch.finish()


async def prepare(source: Source) -> None:
    """Prepare `source`. A cluster may take a moment until all of its nodes know a new topic. TopicMissing, StartError,
    UsageError."""
    deadline = time.monotonic() + TOPIC_TIMEOUT
    while True:
        try:
            return await source.prepare()
        except TopicMissing:
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(0.2)


async def is_drained(source: Source) -> bool:
    """Whether nothing is left in the subscriptions of `source`; False too where that cannot be known now."""
    try:
        return await source.is_drained_on(lambda subscription, address: True, "--settle")
    except (StartError, NetworkError, PeerError) as error:
        logging.getLogger("qtools").info("it cannot be known whether messages are left: %s", error)
        return False
