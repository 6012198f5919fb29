"""Marks partitions that are complete. In: a source, a sink. Out: _SUCCESS in each partition that gets no more
messages.

When the time of a partition is over, each nsqd that has not delivered a later message yet is asked whether messages are
waiting there: these could still belong to the partition.
"""

from __future__ import annotations

import asyncio
import logging
import time

from qtools.engines.contract import Source
from qtools.errors import NetworkError, PeerError, StartError
from qtools.names import Subscription
from qtools.to_file.archive.partitions import Partitions
from qtools.to_file.sinks.sinks import CompletingSink

logger = logging.getLogger("qtools.to_file")

LOOK_SECONDS = 1.0
AGAIN_SECONDS = 2.0  # the pause when a partition could not be marked: a source or an upload is behind


class Completing:
    """Marks those of `partitions` that are complete."""

    def __init__(self, partitions: Partitions, source: Source, sink: CompletingSink) -> None:
        self._partitions = partitions
        self._source = source
        self._sink = sink
        self._said = ""

    async def run(self) -> None:
        """Mark partitions until cancelled."""
        while True:
            pause = LOOK_SECONDS if await self._look() else AGAIN_SECONDS
            await asyncio.sleep(pause)

    async def finish(self) -> None:
        """Mark partitions once more, at the end of a run: it may have been shorter than LOOK_SECONDS."""
        if not await self._look():
            await self._sink.wait_sent()
            await self._look()

    async def _look(self) -> bool:
        """Mark complete partitions. Returns whether every partition whose time is over is marked."""
        return all([await self._complete(*each) for each in self._partitions.over(time.time())])

    async def _complete(self, partition: str, past: float) -> bool:
        if not await self._all_past(past) or not await self._sink.complete(partition):
            return False
        try:
            await asyncio.to_thread(self._partitions.mark, partition)
        except OSError as error:
            logger.info("%s is complete, but that cannot be stored: %s", partition, error)
        logger.info("%s is complete", partition)
        return True

    async def _all_past(self, past: float) -> bool:
        """Whether no source has messages left that a broker accepted before `past`."""
        passed = self._partitions.passed

        def is_behind(subscription: Subscription, address: str) -> bool:
            return passed.get((subscription.topic, address), 0.0) < past

        try:
            return await self._source.is_drained_on(is_behind, "--complete-marker")
        except (StartError, NetworkError, PeerError) as error:
            if str(error) != self._said:
                self._said = str(error)
                logger.warning("%s", error)
            return False
