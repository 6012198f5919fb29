"""The Source of `q-tail --peek`: waiting messages, which stay in their channels. In: sources. Out: batches."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from qtools.engines.contract import Engine
from qtools.message import Batch
from qtools.names import Subscription

logger = logging.getLogger("qtools.tail")

AT_MOST = 10  # messages, without --count
FIRST_LOOK = (
    100  # messages in the first request, if some may not be printed; each further request asks for four times more
)
MOST = 10_000  # messages that q-broker returns to one request


class Look:
    """A Source of messages that wait in `sources`.

    count: how many; AT_MOST for None. choosing: the reader filters or samples, so the number is not known here; the
    source then returns all waiting messages, but no more than the first MOST of each channel, and ignores `count`.
    """

    def __init__(
        self,
        sources: Sequence[Subscription],
        engine: Engine,
        count: int | None,
        *,
        choosing: bool = False,
    ) -> None:
        self._sources = list(sources)
        self._engine = engine
        self._left = AT_MOST if count is None else count
        self._choosing = choosing
        self._asking = FIRST_LOOK
        self._seen: set[bytes] = set()  # ids that were returned from the first of `sources`; at most MOST
        self._batches: list[Batch] = []

    async def read(self) -> Batch | None:
        """The next batch; None at the end. Errors as for `Engine.peek`."""
        while not self._batches:
            if not self._sources or self._left <= 0:
                return None
            if self._choosing:
                await self._look_further()
            else:
                self._batches = await self._engine.peek(self._sources.pop(0), self._left)
                self._left -= sum(map(len, self._batches))
        return self._batches.pop(0)

    async def _look_further(self) -> None:
        """Ask for more messages of the first source than before; those that were returned are not returned again."""
        found = await self._engine.peek(self._sources[0], self._asking)
        for batch in found:
            fresh = [place for place, ident in enumerate(batch.ids) if ident not in self._seen]
            self._seen.update(batch.ids)
            if fresh:
                self._batches.append(batch.pick(fresh))
        if sum(map(len, found)) < self._asking or self._asking == MOST:
            if self._asking == MOST and sum(map(len, found)) >= MOST:
                logger.warning("%s: only the first %s messages were read", self._sources[0], f"{MOST:,}")
            self._sources.pop(0)
            self._asking = FIRST_LOOK
            self._seen.clear()
        else:
            self._asking = min(MOST, self._asking * 4)

    async def close(self) -> None:
        pass
