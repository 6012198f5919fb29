"""Partitions are marked when they are complete. In: a consumer, a sink. Out: _SUCCESS where nothing more comes.

Looked at now and then, and only where a partition's time is over: then every nsqd is asked whether anything waits that
could still belong there, unless it has delivered something later already.
"""

from __future__ import annotations

import asyncio
import logging
import time

from qtools.client.consumer import Consumer
from qtools.client.ends import Asker
from qtools.errors import StartError
from qtools.to_file.complete import Partitions
from qtools.to_file.sinks import CompletingSink

logger = logging.getLogger("qtools.to_file")

LOOK_SECONDS = 1.0
AGAIN_SECONDS = 2.0  # where a source is not past it, or a file is not where it belongs


class Completing:
    """Marks what is complete of `partitions`."""

    def __init__(self, partitions: Partitions, consumer: Consumer, sink: CompletingSink) -> None:
        self._partitions = partitions
        self._consumer = consumer
        self._sink = sink
        self._asker = Asker(consumer)
        self._said = ""

    async def run(self) -> None:
        """Until cancelled."""
        try:
            while True:
                await asyncio.sleep(LOOK_SECONDS)
                over = self._partitions.over(time.time())
                if over and not all([await self._complete(*each) for each in over]):
                    await asyncio.sleep(AGAIN_SECONDS)
        finally:
            await self._asker.close()

    async def _complete(self, partition: str, past: float) -> bool:
        if not await self._all_past(past) or not await self._sink.complete(partition):
            return False
        try:
            await asyncio.to_thread(self._partitions.mark, partition)
        except OSError as error:
            logger.info("%s is complete, and cannot be forgotten: %s", partition, error)
        logger.info("%s is complete", partition)
        return True

    async def _all_past(self, past: float) -> bool:
        """Whether no source has anything left that was accepted before `past`."""
        consumer = self._consumer
        if not consumer.is_complete:
            return False
        passed = self._partitions.passed
        behind = [passed.get((source.topic, nsqd), 0.0) < past for source, nsqd, _ in consumer.askable()]
        if not any(behind):
            return True
        try:
            depths = await self._asker.depths("--complete-marker")
        except StartError as error:
            if str(error) != self._said:
                self._said = str(error)
                logger.warning("%s", error)
            return False
        return all(depth.drained for (_, depth), late in zip(depths, behind, strict=True) if late)
