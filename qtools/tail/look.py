"""`q-tail --peek` as a Source: what waits in channels, and is left there. In: sources. Out: batches, and the end."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from qtools.client.address import Brokers
from qtools.client.past import peek
from qtools.client.settings import Settings
from qtools.message import Batch
from qtools.names import Subscription

logger = logging.getLogger("qtools.tail")

AT_MOST = 10  # messages, unless told how many
FIRST_LOOK = 100  # messages asked for where only some of them may be printed; four times as many with each further look
MOST = 10_000  # messages that q-broker shows in one look


class Look:
    """A source of messages that wait in `sources`.

    count: how many; AT_MOST for None. choosing: not all of them may be printed, so `count` is not for this source to
    keep: it goes on to the last that waits, or the first MOST of each channel, until its reader has enough.
    """

    def __init__(
        self,
        sources: Sequence[Subscription],
        brokers: Brokers,
        settings: Settings,
        count: int | None,
        *,
        choosing: bool = False,
    ) -> None:
        self._sources = list(sources)
        self._brokers = brokers
        self._settings = settings
        self._left = AT_MOST if count is None else count
        self._choosing = choosing
        self._asking = FIRST_LOOK
        self._seen: set[bytes] = set()  # ids of the source that is looked at
        self._batches: list[Batch] = []

    async def read(self) -> Batch | None:
        """The next batch; None when all was seen."""
        while not self._batches:
            if not self._sources or self._left <= 0:
                return None
            if self._choosing:
                await self._look_further()
            else:
                self._batches = await peek(self._sources.pop(0), self._brokers, self._settings, self._left)
                self._left -= sum(map(len, self._batches))
        return self._batches.pop(0)

    async def _look_further(self) -> None:
        """Look at more of the first source than before; what was seen is not handed on again."""
        found = await peek(self._sources[0], self._brokers, self._settings, self._asking)
        for batch in found:
            fresh = [place for place, ident in enumerate(batch.ids) if ident not in self._seen]
            self._seen.update(batch.ids)
            if fresh:
                self._batches.append(batch.pick(fresh))
        if sum(map(len, found)) < self._asking or self._asking == MOST:
            if self._asking == MOST and sum(map(len, found)) >= MOST:
                logger.warning("%s: looked at the first %s messages only", self._sources[0], f"{MOST:,}")
            self._sources.pop(0)
            self._asking = FIRST_LOOK
            self._seen.clear()
        else:
            self._asking = min(MOST, self._asking * 4)

    async def close(self) -> None:
        pass
