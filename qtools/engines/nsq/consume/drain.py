"""When a run ends by itself. In: a consumer, nsqd's statistics, the user's flags. Out: the call of `consumer.end()`.

    --until-empty     depth, in flight and deferred are 0 on every nsqd, and no message is in flight here
    --until-now       for each channel on each nsqd, as many messages are finished as the first answer counted, or the
                      channel is empty
    --idle-timeout    no message has arrived for that long, and none is in flight

The depths are asked for over HTTP before anything is subscribed to, so that a run that cannot start takes no message.
During the run a request that fails is repeated for RETRY_SECONDS.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence

from qtools.engines.contract import EndConditions
from qtools.engines.nsq.address import Address, Brokers
from qtools.engines.nsq.connect import connect
from qtools.engines.nsq.consume.consumer import Consumer
from qtools.engines.nsq.discovery import Discovery
from qtools.engines.nsq.http_client import Depth, HttpClient, ask_depths
from qtools.engines.nsq.settings import Settings
from qtools.errors import (
    ConnectFailed,
    NetworkError,
    PeerError,
    QtoolsError,
    SourceDeleted,
    SourcePaused,
    StartError,
)
from qtools.names import Subscription

logger = logging.getLogger("qtools.client")

# A run that waits only for messages that are in flight at other readers or deferred logs this after that time.
EXPLAIN_AFTER_SECONDS = 1.5
QUIET_SECONDS = 0.1  # between two checks while messages arrive or are in flight, and with --until-now
POLL_SECONDS = 0.5  # between two requests for depths while nothing arrives
# How long a request for depths is repeated during a run. An nsqd that is busy, or writes its metadata, does not answer
# for seconds. Without an answer for a minute the run ends with an error, as it cannot know when to end.
RETRY_SECONDS = 60.0
LOOKUPS_AT_ONCE = 16  # topics that nsqlookupd is asked about at the same time


class StatisticsClient:
    """Asks every nsqd that a consumer is connected to for its depths, over HTTP connections that are kept."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer
        self._http: dict[str, HttpClient] = {}

    async def depths(self, purpose: str) -> list[tuple[Subscription, str, Depth]]:
        """(source, address of the nsqd, the source's depth there) for each entry of the consumer's `askable()`.

        Each nsqd gets one request. `purpose`, a flag, is named in errors. StartError when the HTTP address of an nsqd
        is not known, NetworkError and PeerError when it does not answer properly.
        """
        places = self._consumer.askable()
        by_base: dict[str, list[int]] = {}
        for nth, (_, nsqd, base) in enumerate(places):
            if not base:
                raise StartError(_needed(purpose, nsqd) + ": give --nsqd-http-address")
            by_base.setdefault(base, []).append(nth)
        found: dict[int, Depth] = {}

        async def ask(base: str, nths: list[int]) -> None:
            depths = await self.ask(base, [places[nth][0] for nth in nths])
            found.update(zip(nths, depths, strict=True))

        await asyncio.gather(*(ask(base, nths) for base, nths in by_base.items()))
        return [(source, nsqd, found[nth]) for nth, (source, nsqd, _) in enumerate(places)]

    async def ask(self, base: str, sources: Sequence[Subscription]) -> list[Depth]:
        """The depth of each of `sources` on the nsqd whose HTTP API is at `base`. Errors as for `ask_depths`."""
        http = self._http.get(base)
        if http is None:
            http = self._http[base] = HttpClient(base, self._consumer.settings.http_tls_context())
        return await ask_depths(http, sources)

    async def close(self) -> None:
        for http in self._http.values():
            await http.close()


def _needed(purpose: str, nsqd: str) -> str:
    return f"{purpose} needs the HTTP API of {nsqd}"


# ── before the run ──────────────────────────────────────────────────────────────────────────────


async def ask_first(
    sources: Sequence[Subscription], brokers: Brokers, settings: Settings, ends: EndConditions
) -> dict[tuple[Subscription, str], Depth]:
    """The depth of each source on each nsqd, asked before anything is subscribed to; {} if no flag needs depths.

    StartError when an nsqd accepts connections but not a request for its depths; SourcePaused with `fail_if_paused`. An
    nsqd that cannot be reached at all is left out: the consumer logs it, and waits until it is back.
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
    """The depth of each of `sources` at `address`; [] if no nsqd accepts connections there."""
    http = HttpClient(address.http, settings.http_tls_context())
    try:
        if not address.http:
            raise StartError(_needed(flag, str(address)) + ": give --nsqd-http-address")
        try:
            return await ask_depths(http, sources)
        except ConnectFailed as error:
            # A TCP connection shows whether only the HTTP API is unreachable. It also starts the local broker.
            try:
                connection = await connect(address, settings)
            except (NetworkError, PeerError) as unreachable:
                logger.debug("%s", unreachable)
                return []
            await connection.close()
            if not address.local:
                raise error from None
            return await ask_depths(http, sources)
    except (NetworkError, PeerError) as error:
        advice = " (--nsqd-http-address says where it is)"
        raise StartError(f"{_needed(flag, str(address))}: {error}{advice}") from error
    finally:
        await http.close()


# ── during the run ──────────────────────────────────────────────────────────────────────────────


async def end_consumer(
    consumer: Consumer, ends: EndConditions, first: Mapping[tuple[Subscription, str], Depth] | None = None
) -> bool:
    """Wait for the first condition of `ends`, end `consumer`, and return True; False at once without a condition.

    first: what `ask_first` returned. SourceDeleted when a topic or channel that was there at first is deleted.
    Raises SourcePaused when --idle-timeout ends a run whose channels still hold messages because they are paused, or
    at once with `fail_if_paused`; NetworkError or PeerError when no request for depths was answered for RETRY_SECONDS.
    `consumer` is ended in these cases too.
    """
    waits: list[asyncio.Task[None]] = []
    drained = _Drained(consumer, ends, first)
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
    """Return when every source is empty. Raises what `end_consumer` does, and StartError when an nsqd's HTTP address is
    not known."""
    await _Drained(consumer, EndConditions(until_empty=True)).wait()


class _Drained:
    """Waits until every source is empty or, with --until-now, until as many messages are finished as were there.

    paused: (source, nsqd) → messages that are not delivered because of a pause, as of the last answer.
    """

    def __init__(
        self, consumer: Consumer, ends: EndConditions, first: Mapping[tuple[Subscription, str], Depth] | None = None
    ) -> None:
        self.paused: dict[tuple[str, str], int] = {}
        self._seen = dict(first or {})  # by source and nsqd, as of the last answer
        self._bases: dict[tuple[Subscription, str], str] = {}  # HTTP addresses of all that were read from
        self._received_before = -1
        self._waiting_since: float | None = None  # for nothing but what others hold, or what is deferred
        self._explained: set[Subscription] = set()  # sources of which this was logged
        self._consumer = consumer
        self._ends = ends
        self._asker = StatisticsClient(consumer)
        self._failing_since: float | None = None

    async def wait(self) -> None:
        """Return when the condition is met. Errors as for `end_consumer`."""
        reached = self._reached_now if self._ends.until_now else self._reached_empty
        try:
            while not await reached():
                pass
            await self._check_vanished()
        finally:
            await self._asker.close()

    async def _reached_empty(self) -> bool:
        """Whether every source is empty; pauses before it returns False."""
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
        """Whether every source has finished its quota, the messages that it had at first; pauses before it returns
        False.

        Sets the quota of each (source, nsqd) that has none yet, also of an nsqd that was connected later.
        """
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
        """The depths everywhere; None, after a pause, if an nsqd does not answer now."""
        clock = asyncio.get_running_loop().time
        try:
            depths = await self._asker.depths(self._ends.flag)
        except (NetworkError, PeerError) as error:
            await self._fail(error, clock())
            return None
        if self._failing_since is not None:
            logger.warning("%s: the HTTP API answers again", self._ends.flag)
            self._failing_since = None
        self._bases.update(((source, nsqd), base) for source, nsqd, base in self._consumer.askable())
        self._check_deleted(depths)
        self._note_paused(depths)
        self._note_waiting(depths, clock())
        return depths

    async def _fail(self, error: QtoolsError, now: float) -> None:
        """Pause before the next request; raise `error` if requests have failed for RETRY_SECONDS."""
        if not self._consumer.is_complete:  # the nsqd itself is unreachable: wait for it
            self._failing_since = None
        elif self._failing_since is None:
            self._failing_since = now
            logger.warning("%s cannot get the depths of channels: %s; trying again", self._ends.flag, error)
        elif now - self._failing_since >= RETRY_SECONDS:
            raise error
        await asyncio.sleep(POLL_SECONDS)

    def _check_deleted(self, depths: Iterable[tuple[Subscription, str, Depth]]) -> None:
        """Raise SourceDeleted when a topic or a channel of `depths` is not the one that the last answer was about: this
        client has created it again by subscribing, or it is gone.

        nsqd counts what it was given from its start on, so a smaller count from the same process means another topic.
        A temporary one is deleted whenever its last reader has lost its connection: that is not an operator's doing.
        """
        for source, nsqd, depth in depths:
            before = self._seen.get((source, nsqd))
            self._seen[source, nsqd] = depth
            if before is None or not depth.nsqd_since or before.nsqd_since != depth.nsqd_since:
                continue
            if before.new_topic or source.topic.endswith("#ephemeral"):
                continue
            if depth.new_topic or depth.topic_given < before.topic_given:
                raise SourceDeleted("topic", source.topic, nsqd)
            is_gone = before.exists and (not depth.exists or depth.given < before.given)
            if is_gone and not source.channel.endswith("#ephemeral"):
                raise SourceDeleted("channel", str(source), nsqd)

    async def _check_vanished(self) -> None:
        """Ask each nsqd that is not read from any more, as nsqlookupd no longer lists it, whether that is because its
        topic was deleted. An nsqd that is gone itself does not answer."""
        now = {(source, nsqd) for source, nsqd, _ in self._consumer.askable()}
        for (source, nsqd), base in self._bases.items():
            if (source, nsqd) not in now and base:
                try:
                    (depth,) = await self._asker.ask(base, [source])
                except (NetworkError, PeerError) as error:
                    logger.debug("%s", error)
                else:
                    self._check_deleted([(source, nsqd, depth)])

    def _note_waiting(self, depths: list[tuple[Subscription, str, Depth]], now: float) -> None:
        """Log once for each source what the run waits for, when for EXPLAIN_AFTER_SECONDS no message has come and all
        that is left is in flight at other readers, or deferred."""
        consumer = self._consumer
        in_flight: dict[Subscription, int] = {}
        deferred: dict[Subscription, int] = {}
        ready = 0
        for source, _, depth in depths:
            in_flight[source] = in_flight.get(source, 0) + depth.in_flight
            deferred[source] = deferred.get(source, 0) + depth.deferred
            ready += 0 if depth.paused else depth.depth
        if ready or consumer.in_flight or consumer.received != self._received_before:
            self._received_before = consumer.received
            self._waiting_since = None
            return
        if self._waiting_since is None:
            self._waiting_since = now
        if now - self._waiting_since < EXPLAIN_AFTER_SECONDS:
            return
        for source in in_flight:
            if source not in self._explained and in_flight[source] + deferred[source]:
                self._explained.add(source)
                parts = []
                if in_flight[source]:
                    parts.append(f"{_messages(in_flight[source])} in flight at other readers of {source}")
                if deferred[source]:
                    parts.append(f"{_messages(deferred[source])} of {source} deferred until later")
                logger.warning("waiting for %s", " and ".join(parts))

    def _note_paused(self, depths: list[tuple[Subscription, str, Depth]]) -> None:
        """Log each source once when it becomes paused; raise SourcePaused with `fail_if_paused`."""
        before = self.paused
        self.paused = {(str(source), nsqd): depth.left for source, nsqd, depth in depths if depth.paused}
        for (source, nsqd), left in self.paused.items():
            if (source, nsqd) in before:
                continue
            error = SourcePaused(source, nsqd, left)
            if self._ends.fail_if_paused:
                raise error
            logger.warning("%s; %s waits until it is unpaused (--fail-if-paused does not)", error, self._ends.flag)


def _messages(count: int) -> str:
    return f"{count:,} message{'' if count == 1 else 's'}"


async def wait_until_idle(consumer: Consumer, seconds: float) -> None:
    """Return when no message has arrived for `seconds`, and none is in flight."""
    clock = asyncio.get_running_loop().time
    seen, since = consumer.received, clock()
    while (left := since + seconds - clock()) > 0:
        await asyncio.sleep(max(left, 0.001))
        if consumer.received != seen or consumer.in_flight:
            seen, since = consumer.received, clock()
