"""One run of q-to-file: a consumer, an archive, and the loop between them. In: options. Out: an exit status."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from qtools.cli import logs
from qtools.cli.consume_run import RunWatch, notes_of_source, sink_after
from qtools.cli.metrics.metric_sets import consumer_families, flow_families
from qtools.cli.metrics.metrics_format import Family, counter
from qtools.cli.metrics.operations import Operations
from qtools.cli.progress_line import ProgressLine
from qtools.cli.run import MESSAGES_COME_AGAIN, Signals, status_of_run
from qtools.cli.trial import DECODING, EXPRESSION, Trial
from qtools.cli.types import format_duration, plural
from qtools.engines.contract import SourceOptions
from qtools.engines.requirements import require, require_for_end
from qtools.flow.contract import FlowSource, Sink
from qtools.flow.gather import Gather
from qtools.flow.loop import Flow
from qtools.flow.steps import Steps
from qtools.to_file.archive.compression import SUFFIXES
from qtools.to_file.archive.layout import Layout
from qtools.to_file.archive.partitioner import Partitioner
from qtools.to_file.archive.partitions import Partitions, refuse_recurring
from qtools.to_file.archive.workdir import InUse
from qtools.to_file.options import ArchiveOptions
from qtools.to_file.sinks.completing import Completing
from qtools.to_file.sinks.sinks import ArchivingSink, CompletingSink, make_sink
from qtools.to_file.topic_watcher import TopicWatcher

if TYPE_CHECKING:
    from qtools.to_file.sinks.dedupe_step import DedupeStep

logger = logging.getLogger("qtools.to_file")

RELEASE = 1.0  # s that a write in progress has left after --drain-timeout
BODIES_ONLY = (
    "the format raw stores bodies only: keys and headers are left out, a missing body becomes an empty one, and a body"
    " with the delimiter in it is read as two messages; --format envelope or msgpack keeps all, and --format raw says"
    " that bodies are enough"
)
MSG_TIMEOUT = 60.0  # s: nsqd's default, for when no nsqd is connected yet


async def archive(options: ArchiveOptions, signals: Signals) -> int:
    """Archive messages until the run ends; return the exit status. StartError when it cannot start."""
    require_for_end(options.engine, options.ends)
    if options.decoder is not None and options.decoder.decodes_keys:
        require(options.engine, "keys_and_headers", "--decode-key")
    if options.lateness is not None:
        require(options.engine, "depths", "--complete-marker")
    if options.since is not None:
        require(options.engine, "since", "--since")
    layout = Layout(
        options.name,
        suffix=SUFFIXES[options.compression],
        datetime_format=options.datetime_format,
        partition=options.partition,
        host=options.host,
        pid=os.getpid(),
        local=options.local_time,
        has_offsets=options.by_offsets,
    )
    partitioner = Partitioner(layout, partitioned=bool(options.partition), when=options.partition_by)
    partitions = None
    if options.lateness is not None:
        refuse_recurring(layout, time.time())
        partitions = Partitions(layout, options.lateness, options.work_dir / "partitions.json")
    try:
        sink = make_sink(options, layout, partitioner, partitions)
    except InUse as error:
        if not options.skip_if_running:
            raise
        logs.log(logging.INFO, f"{error}; there is nothing to do here")
        return 0
    if options.is_default_format and options.engine.capabilities.keys_and_headers:
        logger.warning("%s", BODIES_ONLY)
    try:
        if partitions is not None:
            partitions.load()
        return await _Run(options, signals, sink, partitioner, partitions).run()
    finally:
        await sink.release()


class _Run:
    def __init__(
        self,
        options: ArchiveOptions,
        signals: Signals,
        sink: ArchivingSink,
        partitioner: Partitioner,
        partitions: Partitions | None,
    ) -> None:
        self._options = options
        self._partitions = partitions
        self._signals = signals
        self._sink = sink
        self._partitioner = partitioner
        self._stopped = asyncio.Event()
        self._source = options.engine.source(
            options.sources,
            SourceOptions(max_in_flight=options.max_in_flight, ends=options.ends, since=options.since, goes_on=True),
        )
        # Half of the messages in flight are synced together, so that the other half can arrive in the meantime.
        count = min(options.sync.count, max(1, options.max_in_flight // 2))
        self._gather = Gather(count, options.sync.size, options.sync.age)
        self._deduped: DedupeStep | None = None
        first: Sink = sink
        if options.dedupe is not None:
            from qtools.to_file.sinks.dedupe_step import DedupeStep

            self._deduped = DedupeStep(options.dedupe)
            first = sink_after(Steps((self._deduped,)), sink)
        self._filtered = sink_after(options.rules, first) if options.rules else None
        source: FlowSource = self._source
        if options.decoder is not None:
            source = options.decoder.read(source)
        if options.rules is not None and not options.rules.chosen:
            what = EXPRESSION if options.decoder is None else DECODING
            source = Trial(source, options.rules.failures, most=options.max_in_flight, what=what)
        self._flow = Flow(source, self._filtered or first, gather=self._gather, drain_timeout=RELEASE)

    async def run(self) -> int:
        options, sink = self._options, self._sink
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, sink.hang_up)
        followed = None
        if options.pattern is not None:
            topics = options.engine.topics()
            followed = TopicWatcher(topics, options.pattern, options.channel, options.topic_refresh)
        operations = Operations(options.operations, "q-to-file", self._families, self._unready)
        await operations.start()
        try:
            if options.decoder is not None:
                await options.decoder.start()
            if self._deduped is not None:
                await self._deduped.start()
            await sink.start()  # files of the last run are finished before any message is read
            if followed is not None:
                await followed.begin(self._source, waits=not options.ends.flag)
            await self._source.prepare()
            await self._source.start()
            await self._archive(followed)
        finally:
            await self._source.close()
            await sink.close()
            if self._deduped is not None:
                await self._deduped.close()
            if options.decoder is not None:
                await options.decoder.close()
            if followed is not None:
                await followed.close()
            await operations.close()
        none = status_of_run(options.fail_if_none, sink.written, "archived", self._signals)
        return 1 if sink.failed else none

    async def _archive(self, followed: TopicWatcher | None) -> None:
        options, source, sink, flow = self._options, self._source, self._sink, self._flow
        self._limit_age()
        self._signals.at_abrupt_end = MESSAGES_COME_AGAIN
        self._signals.on_stop(self._stop)
        if options.max_runtime is not None:
            asyncio.get_running_loop().call_later(options.max_runtime, self._stop)
        meter = ProgressLine("archived", lambda: (sink.written, sink.written_bytes), show=options.show)
        watch = RunWatch(source, options.sources)
        if followed is not None and not options.ends.until_now:  # a later topic held no messages at the start
            watch.add(followed.follow(source))
        completing = None
        if self._partitions is not None:
            completing = Completing(self._partitions, source, cast(CompletingSink, sink))
            watch.add(completing.run())
        try:
            await flow.run()
            await watch.settle()
            if completing is not None:
                await self._unless_stopped(completing.finish())
        finally:
            await watch.stop()
            if not options.by_offsets:
                await source.close()
            await sink.close()
            await self._unless_stopped(sink.wait_sent())
            if options.by_offsets:  # what is archived now can be committed
                await self._wait_sent_at_the_end()
                await source.close()
            meter.close()
            self._summarize(meter)
        watch.check()

    def _stop(self) -> None:
        """Read no more, and write the messages that were read. If nothing can be written now, requeue them at once."""
        self._stopped.set()
        self._source.end()
        asyncio.get_running_loop().call_later(
            0.0 if self._sink.trouble else self._options.operations.drain_timeout, self._flow.stop
        )

    async def _unless_stopped(self, rest: Coroutine[Any, Any, None]) -> None:
        """Run `rest` to its end, or until a signal stops the run."""
        doing = asyncio.create_task(rest)
        stopped = asyncio.create_task(self._stopped.wait())
        try:
            if not self._stopped.is_set():
                await asyncio.wait((doing, stopped), return_when=asyncio.FIRST_COMPLETED)
        finally:
            doing.cancel()
            stopped.cancel()
            await asyncio.wait((doing, stopped))
        if not doing.cancelled():
            doing.result()

    async def _wait_sent_at_the_end(self) -> None:
        """After a signal too, give files that are finished a while to be uploaded: others are read again."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._options.operations.drain_timeout):
                await self._sink.wait_sent()

    def _limit_age(self) -> None:
        """Sync at least twice within the message timeout of the broker, whatever --sync-interval says."""
        timeout = self._source.acknowledgement_timeout or MSG_TIMEOUT
        if timeout / 2 < self._options.sync.age:
            every = format_duration(timeout / 2)
            logger.warning("the message timeout of the broker is %s: syncing every %s", format_duration(timeout), every)
        self._gather.limit_age(timeout / 2)

    def _families(self) -> list[Family]:
        families = [
            *flow_families("q-to-file", self._flow.totals),
            *consumer_families("q-to-file", self._source),
            *self._sink.families(),
        ]
        if self._filtered is not None:
            left_out = "Messages that --where and --select left out."
            families.append(counter("qtools_to_file_filtered_total", left_out, self._filtered.filtered))
        if self._deduped is not None:
            repeated = "Messages that had been archived before."
            families.append(counter("qtools_to_file_duplicates_total", repeated, self._deduped.duplicates))
        return families

    def _unready(self) -> str:
        if self._signals.received is not None:
            return f"stopping after {self._signals.received.name}"
        if self._sink.unready:
            return self._sink.unready
        return "" if self._source.connected else f"no {self._options.engine.capabilities.broker} is connected"

    def _summarize(self, meter: ProgressLine) -> None:
        sink, totals = self._sink, self._flow.totals
        notes = sink.notes()
        if self._filtered is not None:
            notes += self._filtered.notes("archived")
        if self._deduped is not None:
            notes.append(plural(self._deduped.duplicates, "duplicate"))
            if self._deduped.keyless:
                notes.append(f"{plural(self._deduped.keyless, 'message')} without a key")
        if self._partitioner.timeless:
            notes.append(f"{plural(self._partitioner.timeless, 'message')} without a time of its own")
        notes += notes_of_source(self._source)
        if totals.requeued:
            notes.append(f"{plural(totals.requeued, 'message')} given back")
        say = logs.log_result if self._options.show else partial(logs.log, logging.INFO)
        say("archived " + "; ".join([meter.summary(sink.written, sink.written_bytes), *notes]))
