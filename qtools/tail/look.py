"""`q-tail --peek` as a Source: what waits in channels, and is left there. In: sources. Out: batches, and the end."""

from __future__ import annotations

from collections.abc import Sequence

from qtools.client.address import Brokers
from qtools.client.past import peek
from qtools.client.settings import Settings
from qtools.message import Batch
from qtools.names import Subscription

AT_MOST = 10  # messages, unless told how many


class Look:
    """A source of at most `count` messages, over all of `sources`."""

    def __init__(
        self, sources: Sequence[Subscription], brokers: Brokers, settings: Settings, count: int | None
    ) -> None:
        self._sources = list(sources)
        self._brokers = brokers
        self._settings = settings
        self._left = AT_MOST if count is None else count
        self._batches: list[Batch] = []

    async def read(self) -> Batch | None:
        """The next batch; None when all was seen."""
        while not self._batches:
            if not self._sources or self._left <= 0:
                return None
            self._batches = await peek(self._sources.pop(0), self._brokers, self._settings, self._left)
            self._left -= sum(map(len, self._batches))
        return self._batches.pop(0)

    async def close(self) -> None:
        pass
