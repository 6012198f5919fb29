"""One run of q-bridge: a consumer, publishers, the loop between them, reload. In: options. Out: the exit status."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from qtools.bridge.loop_guard import forbidden_topics
from qtools.bridge.lost_attributes import lost_attributes
from qtools.bridge.options import BridgeOptions
from qtools.bridge.routing import compiled, plan_for
from qtools.bridge.sink import BridgeSink
from qtools.cli import logs
from qtools.cli.consume_run import RunWatch, notes_of_source
from qtools.cli.metrics.histogram import Histogram
from qtools.cli.metrics.operations import Operations
from qtools.cli.progress_line import ProgressLine
from qtools.cli.run import MESSAGES_COME_AGAIN, Signals, status_of_run
from qtools.cli.trial import DECODING, EXPRESSION, NO_LETTERS, Trial
from qtools.cli.types import plural
from qtools.engines.contract import (
    Publisher,
    PublisherOptions,
    Source,
    SourceOptions,
)
from qtools.engines.requirements import require, require_for_end, require_for_publishing
from qtools.errors import QtoolsError, UsageError
from qtools.flow.contract import FlowSource, GroupPublisher
from qtools.flow.loop import Flow
from qtools.flow.throttle import Throttle
from qtools.message import Batch
from qtools.names import Subscription
from qtools.routing.dead_letter_sink import DeadLetterSink, dead_letter_topics

if TYPE_CHECKING:
    from qtools.bridge.dedupe import PlanDedupe
    from qtools.cli.metrics.metrics_format import Family
    from qtools.schemas.decoding import BatchDecoder

# Batches in progress at once: while one waits for its answer, the next is planned. More would only cost memory.
WINDOW = 4
# --max-attempts where an unfinished message holds up the acknowledgement of all that follow it.
MAX_ATTEMPTS = 10


async def bridge(options: BridgeOptions, signals: Signals) -> int:
    """Forward messages until the run ends; return the exit status. UsageError, StartError before anything is read."""
    require_for_end(options.engine, options.ends)
    if options.defer:
        require(options.to_engine or options.engine, "deferred_publishing", "--defer")
    if options.since is not None:
        require(options.engine, "since", "--since")
    if options.decoder is not None and options.decoder.decodes_keys:
        require(options.engine, "keys_and_headers", "--decode-key")
    require_for_publishing(options.to_engine or options.engine, options.keying, options.new_topics)
    forbidden = await forbidden_topics(options)
    return await _Bridge(options, forbidden).run(signals)


def max_attempts_of(options: BridgeOptions) -> int:
    """After how many deliveries a message counts as failed; 0 for never."""
    return options.max_attempts or (MAX_ATTEMPTS if options.engine.capabilities.cumulative else 0)


class _Bridge:
    def __init__(self, options: BridgeOptions, forbidden: frozenset[str]) -> None:
        self.options = options
        self.forbidden = forbidden
        planning = plan_for(options, forbidden)
        dead_topics: dict[str, str] = {}
        if options.on_error in ("dead-letter", "pass"):
            longest = options.engine.capabilities.longest_name
            dead_topics = dead_letter_topics(
                options.sources, options.dead_letter_topic, longest, instead=", or choose --on-error"
            )
        # Dead letters stay where their source is, and are not deferred.
        shared = not dead_topics or (options.to_engine is None and not options.defer)
        warned_topics = () if options.redrive else tuple(dict.fromkeys(dead_topics.values()))
        self.latency = Histogram()
        self.publisher: Publisher = (options.to_engine or options.engine).publisher(
            PublisherOptions(
                delay_ms=round(options.defer * 1000), balance=options.balance, on_published=self.latency.observe,
                new_topics=options.new_topics, new_topics_flag="--create-topics", topics=planning.fixed,
                later_topics=warned_topics if shared else (),
            )
        )  # fmt: skip
        keyed_publisher: GroupPublisher = self.publisher
        if options.decoder is not None:
            from qtools.schemas.stale_headers import FreshHeadersPublisher

            keyed_publisher = FreshHeadersPublisher(keyed_publisher)
        if options.keying is not None:
            from qtools.flow.keying import KeyedPublisher

            keyed_publisher = KeyedPublisher(keyed_publisher, options.keying, passes=options.on_error == "pass")
        self.dead_letters = self.publisher
        if not shared:
            of_dead_letters = PublisherOptions(
                new_topics=options.new_topics, new_topics_flag="--create-topics", later_topics=warned_topics,
            )  # fmt: skip
            self.dead_letters = options.engine.publisher(of_dead_letters)
        self.source = options.engine.source(
            options.sources,
            SourceOptions(
                max_in_flight=options.max_in_flight,
                limit=options.count,
                ends=options.ends,
                since=options.since,
                goes_on=True,
            ),
        )
        self.dedupe = self._make_dedupe() if options.dedupe is not None else None
        self.sink = BridgeSink(
            planning, keyed_publisher, DeadLetterSink(
                self.dead_letters, dead_topics, options.sources, instead=", --on-error drop leaves such messages out"
            ),
            on_error=options.on_error,
            max_attempts=max_attempts_of(options), dedupe=self.dedupe,
            lost=lost_attributes(options.engine.capabilities, (options.to_engine or options.engine).capabilities),
        )  # fmt: skip
        source: FlowSource = self.source
        if options.decoder is not None:
            source = options.decoder.read(source)
        self.trial: Trial | None = None
        if options.on_trial:
            what = NO_LETTERS if options.redrive else EXPRESSION if options.decoder is None else DECODING
            source = self.trial = Trial(
                source, self.sink.failures, most=options.max_in_flight, what=what, strict=options.redrive
            )
        self.flow = Flow(
            source, self.sink,
            window=WINDOW if self.dedupe is None else 1,  # two batches may have equal keys
            throttle=Throttle(options.rate) if options.rate else None,
            on_refused=self._refused,
            drain_timeout=options.operations.drain_timeout,
        )  # fmt: skip

    async def run(self, signals: Signals) -> int:
        operations = Operations(self.options.operations, "q-bridge", self._families, lambda: self._unready(signals))
        ends: list[Publisher | Source | PlanDedupe | BatchDecoder] = [
            *([self.options.decoder] if self.options.decoder is not None else []),
            *dict.fromkeys((self.publisher, self.dead_letters)),
            *([self.dedupe] if self.dedupe is not None else []),
            self.source,
        ]
        started: list[Publisher | Source | PlanDedupe | BatchDecoder] = []
        meter: ProgressLine | None = None
        options = self.options
        await self.source.prepare()
        if options.redrive:
            _warn_of_taken_letters(self.source.delivered_to_other_channels())
        await operations.start()
        try:
            for end in ends:
                await end.start()
                started.append(end)
            signals.at_abrupt_end = MESSAGES_COME_AGAIN
            signals.on_stop(self.flow.stop)
            if self.options.routes:
                signals.on_hangup(self._reload)
            meter = ProgressLine("routed", self._counts, show=self.options.show)
            await self._move()
        finally:
            await self.sink.close()
            for end in reversed(started):
                await end.close()
            if meter is not None:
                meter.close()
                self._summarize(meter)
            await operations.close()
        return status_of_run(options.fail_if_none, self.sink.counts.routed, "routed", signals)

    def _make_dedupe(self) -> PlanDedupe:
        from qtools.bridge.dedupe import PlanDedupe, default_path

        options = self.options
        assert options.dedupe is not None
        key = compiled("--dedupe", options.dedupe)
        path = Path(options.dedupe_file) if options.dedupe_file else default_path(options.sources)
        return PlanDedupe(key, path, options.dedupe_window, options.dedupe_keys)

    async def _move(self) -> None:
        watch = RunWatch(self.source, self.options.sources)
        try:
            await self.flow.run()
            await watch.settle()
        finally:
            await watch.stop()
        watch.check()

    def _reload(self) -> None:
        """Read the routes file again; if it is invalid, log that and keep the present routes."""
        path = self.options.routes
        try:
            self.sink.planning = plan_for(self.options, self.forbidden)
        except UsageError as error:
            logs.log(logging.ERROR, f"not reloaded, the old routes stay: {error}")
        else:
            logs.log_result(f"reloaded {path}")

    def _refused(self, batch: Batch, why: dict[int, QtoolsError]) -> bool:
        """With --on-error fail: end the run at the first message that cannot be routed."""
        origin, message = batch.parts[0][0], batch.messages[0]
        error = next(iter(why.values()))
        raise QtoolsError(f"message {message.id.decode('latin-1')} of {origin.topic} cannot be routed: {error}")

    def _families(self) -> list[Family]:
        from qtools.cli.metrics.metric_sets import consumer_families, messages_by_outcome, publisher_families
        from qtools.cli.metrics.metrics_format import Family, counter

        totals, counts = self.flow.totals, self.sink.counts
        routes = [({"route": name}, copies) for name, copies in sorted(counts.hits.items())]
        return [
            counter("qtools_bridge_read_total", "Messages read.", totals.read + self._failed_in_trial()),
            messages_by_outcome("q-bridge", self._outcomes()),
            counter("qtools_bridge_bytes_total", "Bytes of the bodies of finished messages.", totals.finished_bytes),
            Family(
                "qtools_bridge_route_copies_total", "counter", "Messages sent, by the route that sent them.", routes
            ),
            *consumer_families("q-bridge", self.source),
            *publisher_families("q-bridge", dict.fromkeys((self.publisher, self.dead_letters)), self.latency),
        ]

    def _outcomes(self) -> dict[str, int]:
        """How many of the messages read had each outcome; messages in progress have none yet."""
        counts = self.sink.counts
        return {
            "routed": counts.routed,
            "filtered": counts.filtered,
            "duplicate": counts.duplicates,
            "dead-lettered": counts.dead_lettered,
            "dropped": counts.dropped,
            "requeued": self.flow.totals.requeued + self._failed_in_trial(),
        }

    def _failed_in_trial(self) -> int:
        """Messages that were given back because the first messages have all failed; the flow did not read them."""
        return 0 if self.trial is None else self.trial.requeued

    def _unready(self, signals: Signals) -> str:
        if signals.received is not None:
            return f"stopping after {signals.received.name}"
        if not self.source.connected:
            return f"no {self.options.engine.capabilities.broker} is connected to read from"
        to = self.options.to_engine or self.options.engine
        return "" if self.publisher.connected else f"no {to.capabilities.broker} is connected to send to"

    def _counts(self) -> tuple[int, int]:
        return self.sink.counts.routed, self.flow.totals.finished_bytes

    def _summarize(self, meter: ProgressLine) -> None:
        totals = self.flow.totals
        outcomes = ", ".join(
            f"{count:,} {name}" for name, count in self._outcomes().items() if count or name == "routed"
        )
        notes = [f"{meter.summary(totals.read + self._failed_in_trial(), totals.finished_bytes)} read: {outcomes}"]
        resent = self.publisher.resent + (self.dead_letters.resent if self.dead_letters is not self.publisher else 0)
        if resent:
            notes.append(f"{plural(resent, 'message')} sent again after a lost connection")
        notes += notes_of_source(self.source)
        if self.options.show:
            logs.log_result("; ".join(notes))


def _warn_of_taken_letters(taken: Mapping[Subscription, int]) -> None:
    """Log, for each source of a redrive whose channel is new, how many dead letters other channels got before."""
    for source, count in taken.items():
        text = f"{source} is a new channel: other channels got the {plural(count, 'message')} published before"
        logs.log(logging.WARNING, f"{text}; --redrive {source.topic}/CHANNEL puts back what waits in one of them")
