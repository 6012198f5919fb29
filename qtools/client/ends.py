"""When there is no more to come. In: a consumer, and nsqd's statistics. Out: a return when it is so.

Drained means: depth, in flight and deferred are all 0 on every nsqd, and nothing is unfinished here.
"""

from __future__ import annotations

import asyncio

from qtools.client.consumer import Consumer
from qtools.client.http import Depth, HttpAsker, ask_depth
from qtools.errors import NetworkError, PeerError, StartError
from qtools.names import Subscription

# Between two looks while messages come, and while none does.
QUIET_SECONDS = 0.1
POLL_SECONDS = 0.5


class Asker:
    """Asks every nsqd that a consumer is connected to."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer
        self._askers: dict[str, HttpAsker] = {}

    async def depths(self, purpose: str) -> list[tuple[Subscription, Depth]]:
        """What waits for each source on each nsqd; StartError where that cannot be asked."""
        return list(await asyncio.gather(*(self._depth(*each, purpose) for each in self._consumer.askable())))

    async def _depth(self, source: Subscription, nsqd: str, base: str, purpose: str) -> tuple[Subscription, Depth]:
        if not base:
            raise StartError(f"{purpose} needs the HTTP API of {nsqd}: give --nsqd-http-address")
        asker = self._askers.setdefault(base, HttpAsker(base, self._consumer.settings.http_tls_context()))
        try:
            return source, await ask_depth(asker, source)
        except (NetworkError, PeerError) as error:
            raise StartError(
                f"{purpose} needs the HTTP API of {nsqd}, and {error} (--nsqd-http-address says where it is)"
            ) from error

    async def close(self) -> None:
        for asker in self._askers.values():
            await asker.close()


async def wait_until_empty(consumer: Consumer) -> None:
    """Return when every source is drained. StartError when nobody can say."""
    asker = Asker(consumer)
    try:
        while True:
            before = consumer.received
            if not consumer.in_flight and consumer.is_complete:
                try:
                    depths = await asker.depths("--until-empty")
                except StartError:
                    if consumer.is_complete:
                        raise
                    continue  # the nsqd itself is away: its depth counts when it is back
                drained = all(depth.drained for _, depth in depths)
                if drained and consumer.received == before and not consumer.in_flight:
                    return
                await asyncio.sleep(POLL_SECONDS if consumer.received == before else QUIET_SECONDS)
            else:
                await asyncio.sleep(QUIET_SECONDS)
    finally:
        await asker.close()


async def wait_until_idle(consumer: Consumer, seconds: float) -> None:
    """Return when no message has come for `seconds`, and none is unfinished."""
    clock = asyncio.get_running_loop().time
    seen, since = consumer.received, clock()
    while (left := since + seconds - clock()) > 0:
        await asyncio.sleep(max(left, 0.001))
        if consumer.received != seen or consumer.in_flight:
            seen, since = consumer.received, clock()
