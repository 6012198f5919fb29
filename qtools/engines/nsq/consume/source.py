"""NSQ's Source: a consumer, and what is asked and warned about around it. In: subscriptions. Out: batches, an end."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from qtools.engines.contract import SourceOptions
from qtools.engines.nsq.address import Brokers
from qtools.engines.nsq.consume import backlog_guard, backlog_warnings, drain
from qtools.engines.nsq.consume.consumer import Consumer
from qtools.engines.nsq.http_client import Depth
from qtools.engines.nsq.settings import Settings
from qtools.names import Subscription


class NsqSource(Consumer):
    """Reads `subscriptions` from `brokers`; see engines/contract.py."""

    def __init__(
        self, subscriptions: Sequence[Subscription], brokers: Brokers, settings: Settings, options: SourceOptions
    ) -> None:
        super().__init__(
            subscriptions, brokers, settings,
            max_in_flight=options.max_in_flight, limit=options.limit, by_quota=options.ends.until_now,
            ends_when_empty=bool(options.ends.flag),
        )  # fmt: skip
        self._options = options
        self._depths: dict[tuple[Subscription, str], Depth] = {}  # by (subscription, nsqd), before anything was read
        self._statistics = drain.StatisticsClient(self)

    @property
    def acknowledgement_timeout(self) -> float | None:
        return self.msg_timeout or self.settings.msg_timeout / 1000 or None

    async def prepare(self) -> None:
        options, brokers, settings = self._options, self._brokers, self.settings
        guarded: dict[tuple[Subscription, str], Depth] = {}
        if options.guarded:
            advice = options.advice or backlog_guard.name_a_channel
            guarded = await backlog_guard.refuse_to_take_backlog(options.guarded, brokers, settings, advice)
        self._depths = await drain.ask_first(self.subscriptions, brokers, settings, options.ends)
        if options.since is not None:
            from qtools.engines.nsq.consume.history import begin_in_the_past

            await begin_in_the_past(self.subscriptions, brokers, settings, options.since, options.goes_on)
        elif options.warns:
            backlog_warnings.warn_of_backlog_elsewhere(
                {place: depth for place, depth in self._depths.items() if place[0] not in options.guarded}
            )
            backlog_warnings.warn_of_backlog_elsewhere(guarded, options.guarded_level)

    async def wait_for_end(self) -> bool:
        return await drain.end_consumer(self, self._options.ends, self._depths)

    async def wait_until_empty(self) -> None:
        await drain.wait_until_empty(self)

    async def warn_later(self, named: Sequence[Subscription]) -> None:
        options = self._options
        if options.ends.flag or options.guarded or options.since is not None:
            return  # `prepare` has warned already, or there is no need to
        await backlog_warnings.warn_after(options.ends.settling_time, self, named)

    async def is_drained_on(self, before: Callable[[Subscription, str], bool], flag: str) -> bool:
        if not self.is_complete:
            return False
        lagging = {(source, nsqd) for source, nsqd, _ in self.askable() if before(source, nsqd)}
        if not lagging:
            return True
        depths = await self._statistics.depths(flag)
        return all(depth.drained for source, nsqd, depth in depths if (source, nsqd) in lagging)

    def delivered_to_other_channels(self) -> dict[Subscription, int]:
        found: dict[Subscription, int] = {}
        for subscription in dict.fromkeys(subscription for subscription, _ in self._depths):
            own = [depth for (each, _), depth in self._depths.items() if each == subscription]
            taken = sum(depth.topic_given for depth in own if depth.channels)
            if taken and not any(depth.exists for depth in own):
                found[subscription] = taken
        return found

    async def close(self) -> None:
        await self._statistics.close()
        await super().close()
