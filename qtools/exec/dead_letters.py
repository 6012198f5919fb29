"""The publisher of dead letters, which most runs never need. In: groups of bodies. Out: calls of a publisher."""

from __future__ import annotations

from collections.abc import Sequence

from qtools.engines.contract import Publisher
from qtools.flow.contract import GroupAttributes, Refused


class LazyPublisher:
    """Starts `publisher` when it is first used, or, if `starts_at_once`, with the run: a topic for dead letters that
    does not exist is named then."""

    def __init__(self, publisher: Publisher, *, starts_at_once: bool) -> None:
        self.publisher = publisher
        self._starts_at_once = starts_at_once
        self._is_started = False

    async def start(self) -> None:
        """StartError when no broker could be reached."""
        if self._starts_at_once:
            await self._start()

    async def publish(
        self, groups: Sequence[tuple[str, Sequence[bytes]]], *, attributes: GroupAttributes | None = None
    ) -> Refused:
        """As Publisher.publish; StartError."""
        await self._start()
        return await self.publisher.publish(groups, attributes=attributes)

    async def close(self) -> None:
        if self._is_started:
            await self.publisher.close()

    async def _start(self) -> None:
        if not self._is_started:
            await self.publisher.start()
            self._is_started = True
