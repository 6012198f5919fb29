"""Ends a run by asking again and again what is left (contract.RunEnd). In: end conditions, and what an engine answers.
Out: the call of the source's `end()`.

    --until-empty     no message is left in any subscription, and none is in flight here
    --until-now       no message is left of those that were there at the start
    --idle-timeout    no message has arrived for that long, and none is in flight
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from qtools.backoff import Outage
from qtools.engines.contract import EndConditions
from qtools.errors import NetworkError
from qtools.names import Subscription

log = logging.getLogger("qtools.engines")

ASK_INTERVAL = 0.2  # s between two questions whether anything is left
AWAY = 60.0  # s without an answer after which a run that ends when nothing is left gives up


class PolledRunEnd:
    """A base class of the source of an engine. The engine provides `has_begun`, `is_finished`, and what a source has.

    ends: of the run. address: of the broker, as messages and `is_drained_on` name it.
    """

    subscriptions: list[Subscription]
    received: int

    def __init__(self, ends: EndConditions, address: str) -> None:
        self._ends = ends
        self._address = address
        self._outage = Outage()  # of the broker, when it is asked what is left

    # ── what the engine provides ──

    @property
    def in_flight(self) -> int:
        raise NotImplementedError

    def end(self) -> None:
        raise NotImplementedError

    def has_begun(self) -> bool:
        """Whether all that was there at the start could have arrived by now; --idle-timeout counts from then on."""
        return True

    async def is_finished(self, *, at_start: bool) -> bool:
        """Whether no message of any subscription is left, here or with another reader of its channel. NetworkError when
        no broker answers; it is asked again.

        at_start: of the messages that were there when the source was started.
        """
        raise NotImplementedError

    # ── what a source offers (contract.RunEnd) ──

    async def wait_for_end(self) -> bool:
        ends = self._ends
        if not ends.flag and ends.idle_timeout is None:
            return False
        try:
            seen, quiet_since = -1, time.monotonic()
            while True:
                now = time.monotonic()
                has_begun = self.has_begun()
                if self.received != seen or self.in_flight or not has_begun:
                    seen, quiet_since = self.received, now
                if ends.idle_timeout is not None and now - quiet_since >= ends.idle_timeout:
                    return True
                if ends.until_now and await self._is_finished(at_start=True):
                    return True
                if ends.until_empty and not self.in_flight and await self._is_finished():
                    return True
                await asyncio.sleep(ASK_INTERVAL)
        finally:
            self.end()

    async def wait_until_empty(self) -> None:
        while self.in_flight or not await self._is_finished():  # noqa: ASYNC110 - a broker sends no event
            await asyncio.sleep(ASK_INTERVAL)

    async def warn_later(self, named: Sequence[Subscription]) -> None:
        """Nothing: a channel gets every message, whatever other channels have read."""

    async def is_drained_on(self, before: Callable[[Subscription, str], bool], flag: str) -> bool:
        if not any(before(each, self._address) for each in self.subscriptions):
            return True
        return not self.in_flight and await self._is_finished()

    def delivered_to_other_channels(self) -> dict[Subscription, int]:
        return {}

    async def _is_finished(self, *, at_start: bool = False) -> bool:
        """As `is_finished`; NetworkError only when no broker has answered for AWAY seconds."""
        try:
            finished = await self.is_finished(at_start=at_start)
        except NetworkError as error:
            now = time.monotonic()
            self._outage.fail(str(error), now)
            if self._outage.lasted(now) > AWAY:
                raise
            log.info("%s; asked again", error)
            return False
        self._outage.end(time.monotonic())
        return finished
