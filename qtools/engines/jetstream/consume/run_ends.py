"""When a run ends by itself. In: what consumers have left. Out: whether nothing is left.

The server is asked (CONSUMER.INFO) after each LOOK_INTERVAL, as it sends no event for what is looked for here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from qtools.engines.contract import EndConditions
from qtools.engines.jetstream.api import JetStreamApi
from qtools.engines.jetstream.consume.pull_consumer import PullConsumer
from qtools.errors import BrokerError, NetworkError, SourceDeleted

log = logging.getLogger("qtools.nats")

LOOK_INTERVAL = 0.1  # s between two looks whether anything is left
AWAY = 60.0  # s without an answer after which a run that ends when nothing is left gives up


class RunEnds:
    """Watches `consumers` for the conditions `ends`. received, in_flight: of the source."""

    def __init__(
        self,
        api: JetStreamApi,
        consumers: Sequence[PullConsumer],
        ends: EndConditions,
        received: Callable[[], int],
        in_flight: Callable[[], int],
    ) -> None:
        self._api = api
        self._consumers = consumers
        self._ends = ends
        self._received = received
        self._in_flight = in_flight
        self._targets: dict[PullConsumer, int] = {}  # the sequence of the newest message of the topic, at the start
        self._away_since = 0.0

    async def note_now(self) -> None:
        """Where the topics end now, for --until-now."""
        for consumer in self._consumers:
            self._targets[consumer] = await self._api.last_sequence(consumer.stream, consumer.topic)

    async def wait(self) -> bool:
        """Return True when a condition is met, False at once if there is none."""
        ends = self._ends
        if not ends.flag and ends.idle_timeout is None:
            return False
        clock = asyncio.get_running_loop().time
        seen, quiet_since = -1, clock()
        while True:
            now = clock()
            if self._received() != seen or self._in_flight():
                seen, quiet_since = self._received(), now
            if ends.idle_timeout is not None and now - quiet_since >= ends.idle_timeout:
                return True
            if ends.until_now and await self.is_drained(to_targets=True):
                return True
            if ends.until_empty and not self._in_flight() and await self.is_drained():
                return True
            await asyncio.sleep(LOOK_INTERVAL)

    async def is_drained(self, *, to_targets: bool = False) -> bool:
        """Whether nothing is left in any consumer, here or with other readers. NetworkError when no server has answered
        for AWAY seconds, SourceDeleted."""
        clock = asyncio.get_running_loop().time
        try:
            for consumer in self._consumers:
                state = await self._api.consumer(consumer.stream, consumer.name)
                if state is None:
                    raise SourceDeleted("channel", str(consumer.subscription), consumer.address)
                is_done = to_targets and state.ack_floor >= self._targets.get(consumer, 0)
                if state.left and not is_done:
                    return False
        except (NetworkError, BrokerError) as error:
            now = clock()
            self._away_since = self._away_since or now
            if now - self._away_since > AWAY:
                raise
            log.info("%s; asked again", error)
            return False
        self._away_since = 0.0
        return True
