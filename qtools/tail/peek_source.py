"""The Source of `q-tail --peek`: messages that wait in channels and stay there. In: subscriptions. Out: batches."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from qtools.engines.contract import Engine
from qtools.message import Batch
from qtools.names import Subscription

logger = logging.getLogger("qtools.tail")

DEFAULT_COUNT = 10  # messages, without --count
# The number of messages in the first request, if not all of them may be printed; each further request is for four times
# as many.
FIRST_REQUEST = 100
MAX_MESSAGES = 10_000  # most messages that q-broker returns to one request


class PeekFlowSource:
    """A Source of the messages that wait in `sources`.

    count: how many messages it returns; DEFAULT_COUNT for None. selective: the output filters or samples, so that the
    number that has to be read is not known. The source then ignores `count` and returns all waiting messages, but at
    most MAX_MESSAGES of each channel.
    """

    def __init__(
        self,
        sources: Sequence[Subscription],
        engine: Engine,
        count: int | None,
        *,
        selective: bool = False,
    ) -> None:
        self._sources = list(sources)
        self._engine = engine
        self._left = DEFAULT_COUNT if count is None else count
        self._selective = selective
        self._requested = FIRST_REQUEST
        # The topics and ids of the messages that were returned from the first of `sources`; at most MAX_MESSAGES.
        self._seen: set[tuple[str, bytes]] = set()
        self._batches: list[Batch] = []

    async def read(self) -> Batch | None:
        """The next batch; None at the end. Errors as for `Engine.peek`."""
        while not self._batches:
            if not self._sources or self._left <= 0:
                return None
            if self._selective:
                await self._request_more()
            else:
                self._batches = await self._engine.peek(self._sources.pop(0), self._left)
                self._left -= sum(map(len, self._batches))
        return self._batches.pop(0)

    async def _request_more(self) -> None:
        """Request more messages of the first source than before. Messages that `read` has returned are not returned
        again."""
        found = await self._engine.peek(self._sources[0], self._requested)
        for batch in found:
            ids = batch.messages.ids  # not batch.ids, which on some engines are handles that repeat
            names = [(origin.topic, ident) for origin, start, stop in batch.parts for ident in ids[start:stop]]
            fresh = [place for place, name in enumerate(names) if name not in self._seen]
            self._seen.update(names)
            if fresh:
                self._batches.append(batch.pick(fresh))
        if sum(map(len, found)) < self._requested or self._requested == MAX_MESSAGES:
            if self._requested == MAX_MESSAGES and sum(map(len, found)) >= MAX_MESSAGES:
                logger.warning("%s: only the first %s messages were read", self._sources[0], f"{MAX_MESSAGES:,}")
            self._sources.pop(0)
            self._requested = FIRST_REQUEST
            self._seen.clear()
        else:
            self._requested = min(MAX_MESSAGES, self._requested * 4)

    async def close(self) -> None:
        pass
