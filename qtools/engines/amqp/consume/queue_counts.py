"""Whether anything is left in queues. In: readers. Out: yes or no, for the end of a run (engines/run_end.py).

AMQP tells how many messages of a queue are ready, and neither how many other consumers have in flight nor how many wait
in a queue of delayed messages. A quorum queue counts a message that is given back to it only a moment later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from qtools.engines.amqp.consume.queue_reader import QueueReader
from qtools.errors import NetworkError, PeerError

TIMEOUT = 10.0  # s that the broker has for the count of a queue
SETTLING = 0.3  # s until a queue counts a message again that was given back to it, or came back from a delay


class QueueCounts:
    """Counts what is left for one source. quotas: how many messages of each queue were ready at the start."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._quotas: dict[QueueReader, int] = {}

    async def begin(self, readers: Sequence[QueueReader]) -> None:
        """Count what is ready before anything is read. NetworkError."""
        for reader, count in zip(readers, await self._counts(readers), strict=True):
            self._quotas[reader] = count

    async def is_empty(self, readers: Sequence[QueueReader]) -> bool:
        """Whether no message is ready in any queue, now and a moment later. NetworkError."""
        if any(await self._counts(readers)):
            return False
        await asyncio.sleep(SETTLING)
        return not any(await self._counts(readers))

    def short_of_quota(self, readers: Sequence[QueueReader]) -> list[QueueReader]:
        """Those of which fewer messages are finished than were ready at the start."""
        return [reader for reader in readers if reader.finished < self._quotas.get(reader, 0)]

    async def _counts(self, readers: Sequence[QueueReader]) -> list[int]:
        try:
            async with asyncio.timeout(TIMEOUT):
                counts = [await reader.count_ready() for reader in readers]
        except TimeoutError:
            raise NetworkError(self._address, f"a queue was not counted within {TIMEOUT:.0f} s") from None
        except PeerError as error:
            raise NetworkError(self._address, str(error)) from error
        if None in counts:
            raise NetworkError(self._address, "a queue cannot be counted now: it is not connected")
        return [count for count in counts if count is not None]
