"""When a run ends by itself. In: a consumer, nsqd's statistics, what the user asked for. Out: the consumer's end.

    --until-empty     depth, in flight and deferred are 0 on every nsqd, and nothing is unfinished here
    --until-now       of each channel on each nsqd as many messages are finished as it held when it was asked first,
                      or nothing is left in it
    --idle-timeout    no message came for so long, and none is unfinished

What has to be known for that is asked over HTTP before anything is subscribed to: a run that cannot start takes
nothing. Later an answer that does not come is asked for again, for RETRY_SECONDS.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from qtools.client.address import Address, Brokers
from qtools.client.connection import connect
from qtools.client.consumer import Consumer
from qtools.client.discovery import Discovery
from qtools.client.http import Depth, HttpAsker, ask_depths
from qtools.client.settings import Settings
from qtools.errors import ConnectFailed, NetworkError, PeerError, QtoolsError, SourcePaused, StartError
from qtools.names import Subscription

logger = logging.getLogger("qtools.client")

# Between two looks while messages come, and while none does.
QUIET_SECONDS = 0.1
POLL_SECONDS = 0.5
# How long an HTTP API that does not answer in mid-run is asked again. An nsqd that is busy, or writes its metadata, is
# silent for seconds; one that is silent for a minute will not tell, and the run cannot know when to end.
RETRY_SECONDS = 60.0
LOOKUPS_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Ends:
    """What ends a run by itself; idle_timeout in s."""

    until_empty: bool = False
    until_now: bool = False
    idle_timeout: float | None = None
    fail_if_paused: bool = False

    @property
    def soon(self) -> float:
        """When a run that may end by --idle-timeout has begun in earnest, s after its start."""
        return 1.0 if self.idle_timeout is None else min(1.0, self.idle_timeout / 2)

    @property
    def flag(self) -> str:
        """The flag that needs depths, or ""."""
        return "--until-empty" if self.until_empty else "--until-now" if self.until_now else ""


class Asker:
    """Asks every nsqd that a consumer is connected to."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer
        self._askers: dict[str, HttpAsker] = {}

    async def depths(self, purpose: str) -> list[tuple[Subscription, str, Depth]]:
        """(source, nsqd, what waits for it there), as the consumer's `askable` has them; one request an nsqd.

        StartError where an nsqd's HTTP API is not known, NetworkError and PeerError where it does not tell.
        """
        places = self._consumer.askable()
        by_base: dict[str, list[int]] = {}
        for nth, (_, nsqd, base) in enumerate(places):
            if not base:
                raise StartError(_needed(purpose, nsqd) + ": give --nsqd-http-address")
            by_base.setdefault(base, []).append(nth)
        found: dict[int, Depth] = {}

        async def ask(base: str, nths: list[int]) -> None:
            asker = self._askers.setdefault(base, HttpAsker(base, self._consumer.settings.http_tls_context()))
            depths = await ask_depths(asker, [places[nth][0] for nth in nths])
            found.update(zip(nths, depths, strict=True))

        await asyncio.gather(*(ask(base, nths) for base, nths in by_base.items()))
        return [(source, nsqd, found[nth]) for nth, (source, nsqd, _) in enumerate(places)]

    async def close(self) -> None:
        for asker in self._askers.values():
            await asker.close()


def _needed(purpose: str, nsqd: str) -> str:
    return f"{purpose} needs the HTTP API of {nsqd}"


# ── before the run ──────────────────────────────────────────────────────────────────────────────


async def ask_first(
    sources: Sequence[Subscription], brokers: Brokers, settings: Settings, ends: Ends
) -> dict[tuple[Subscription, str], Depth]:
    """What waits for each source on each nsqd, asked before anything is subscribed to; nothing where `ends` has no
    need to know.

    StartError where an nsqd that can be connected to does not tell; SourcePaused with `fail_if_paused`. An nsqd that
    is away altogether is left out: the consumer tells of it, and waits until it is back.
    """
    if not ends.flag:
        return {}
    reading: dict[Address, list[Subscription]] = {}
    for begin in range(0, len(sources), LOOKUPS_AT_ONCE):
        some = sources[begin : begin + LOOKUPS_AT_ONCE]
        for source, addresses in zip(
            some, await asyncio.gather(*(_look(each, brokers, settings) for each in some)), strict=True
        ):
            for address in addresses:
                reading.setdefault(address, []).append(source)
    asked = await asyncio.gather(*(_ask_first(*each, settings, ends.flag) for each in reading.items()))
    found = {
        (source, str(address)): depth
        for (address, theirs), depths in zip(reading.items(), asked, strict=True)
        for source, depth in zip(theirs, depths, strict=False)
    }
    for (source, nsqd), depth in found.items():
        if depth.paused and ends.fail_if_paused:
            raise SourcePaused(str(source), nsqd, depth.left)
    return found


async def _look(source: Subscription, brokers: Brokers, settings: Settings) -> set[Address]:
    discovery = Discovery(brokers, source.topic, settings)
    try:
        return await discovery.look()
    finally:
        await discovery.close()


async def _ask_first(address: Address, sources: list[Subscription], settings: Settings, flag: str) -> list[Depth]:
    """What waits for each of `sources` at `address`; nothing where no nsqd can be connected to there."""
    asker = HttpAsker(address.http, settings.http_tls_context())
    try:
        if not address.http:
            raise StartError(_needed(flag, str(address)) + ": give --nsqd-http-address")
        try:
            return await ask_depths(asker, sources)
        except ConnectFailed as error:
            # Whether it is only the HTTP API that is away, tells a connection. It starts the local broker, too.
            try:
                connection = await connect(address, settings)
            except (NetworkError, PeerError) as away:
                logger.debug("%s", away)
                return []
            await connection.close()
            if not address.local:
                raise error from None
            return await ask_depths(asker, sources)
    except (NetworkError, PeerError) as error:
        where = " (--nsqd-http-address says where it is)"
        raise StartError(f"{_needed(flag, str(address))}, and {error}{where}") from error
    finally:
        await asker.close()


# ── during the run ──────────────────────────────────────────────────────────────────────────────


async def end_consumer(consumer: Consumer, ends: Ends) -> bool:
    """End `consumer` when `ends` says so, and return True; False at once, and without an end, where nothing says so.

    Raises SourcePaused where a pause keeps the run from ending as it should, NetworkError or PeerError where an nsqd
    has not told its depths for RETRY_SECONDS; `consumer` is ended then, too.
    """
    waits: list[asyncio.Task[None]] = []
    drained = _Drained(consumer, ends)
    if ends.flag:
        waits.append(asyncio.create_task(drained.wait()))
    if ends.idle_timeout is not None:
        waits.append(asyncio.create_task(wait_until_idle(consumer, ends.idle_timeout)))
    if not waits:
        return False
    try:
        done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
        if drained.paused and waits[0] not in done:
            raise SourcePaused(*next(iter(drained.paused.items()))[0], sum(drained.paused.values()))
    finally:
        for task in waits:
            task.cancel()
        await asyncio.wait(waits)
        consumer.end()
    return True


async def wait_until_empty(consumer: Consumer) -> None:
    """Return when every source is drained. Raises as `end_consumer` does, and StartError where none can be asked."""
    await _Drained(consumer, Ends(until_empty=True)).wait()


class _Drained:
    """Waits until every source is drained, or, with --until-now, until as much is finished as was there.

    paused: (source, nsqd) → messages that wait there and are not handed out, as of the last look.
    """

    def __init__(self, consumer: Consumer, ends: Ends) -> None:
        self.paused: dict[tuple[str, str], int] = {}
        self._consumer = consumer
        self._ends = ends
        self._asker = Asker(consumer)
        self._failing_since: float | None = None

    async def wait(self) -> None:
        """Return when it is so."""
        reached = self._reached_now if self._ends.until_now else self._reached_empty
        try:
            while not await reached():
                pass
        finally:
            await self._asker.close()

    async def _reached_empty(self) -> bool:
        """One look, and the pause after it."""
        consumer = self._consumer
        if consumer.in_flight or not consumer.is_complete:
            await asyncio.sleep(QUIET_SECONDS)
            return False
        before = consumer.received
        depths = await self._depths()
        if depths is None:
            return False
        if all(depth.drained for _, _, depth in depths) and consumer.received == before and not consumer.in_flight:
            return True
        await asyncio.sleep(POLL_SECONDS if consumer.received == before else QUIET_SECONDS)
        return False

    async def _reached_now(self) -> bool:
        consumer = self._consumer
        places = [(source, nsqd) for source, nsqd, _ in consumer.askable()]
        fresh = [place for place in places if consumer.quota_of(*place) is None]
        open_ = [place for place in places if consumer.quota_of(*place)]
        if not fresh and not open_ and consumer.is_complete:
            return True
        if fresh or not consumer.in_flight:
            before = consumer.received
            depths = await self._depths()
            for source, nsqd, depth in depths or ():
                if consumer.quota_of(source, nsqd) is None:
                    consumer.set_quota(source, nsqd, depth.left)
                elif depth.drained and consumer.received == before and not consumer.in_flight:
                    consumer.set_quota(source, nsqd, 0)
        await asyncio.sleep(QUIET_SECONDS)
        return False

    async def _depths(self) -> list[tuple[Subscription, str, Depth]] | None:
        """What waits everywhere; None where it cannot be told now, after a pause."""
        clock = asyncio.get_running_loop().time
        try:
            depths = await self._asker.depths(self._ends.flag)
        except (NetworkError, PeerError) as error:
            await self._fail(error, clock())
            return None
        if self._failing_since is not None:
            logger.warning("%s: the HTTP API answers again", self._ends.flag)
            self._failing_since = None
        self._note_paused(depths)
        return depths

    async def _fail(self, error: QtoolsError, now: float) -> None:
        """Pause before the next try; raise `error` when there were tries enough."""
        if not self._consumer.is_complete:  # the nsqd itself is away: its depth counts when it is back
            self._failing_since = None
        elif self._failing_since is None:
            self._failing_since = now
            logger.warning("%s has to ask the depth: %s; trying again", self._ends.flag, error)
        elif now - self._failing_since >= RETRY_SECONDS:
            raise error
        await asyncio.sleep(POLL_SECONDS)

    def _note_paused(self, depths: list[tuple[Subscription, str, Depth]]) -> None:
        """Say once of each source that it is paused."""
        before = self.paused
        self.paused = {(str(source), nsqd): depth.left for source, nsqd, depth in depths if depth.paused}
        for (source, nsqd), left in self.paused.items():
            if (source, nsqd) in before:
                continue
            error = SourcePaused(source, nsqd, left)
            if self._ends.fail_if_paused:
                raise error
            logger.warning("%s; %s waits until it is unpaused (--fail-if-paused does not)", error, self._ends.flag)


async def wait_until_idle(consumer: Consumer, seconds: float) -> None:
    """Return when no message has come for `seconds`, and none is unfinished."""
    clock = asyncio.get_running_loop().time
    seen, since = consumer.received, clock()
    while (left := since + seconds - clock()) > 0:
        await asyncio.sleep(max(left, 0.001))
        if consumer.received != seen or consumer.in_flight:
            seen, since = consumer.received, clock()
