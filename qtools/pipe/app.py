"""One run of q-pipe: an input, a publisher, the loop between them, and the summary at the end.

What only some runs use is imported there: logs and checkpoints, a filter, routes, metrics.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from qtools.cli import logs
from qtools.cli.checkpoint import CheckpointInUse
from qtools.cli.metrics.histogram import Histogram
from qtools.cli.metrics.operations import Operations
from qtools.cli.progress_line import ProgressLine
from qtools.cli.run import Signals
from qtools.cli.types import format_size, plural
from qtools.cli.upload_run import RefusalHandler, send_all, sent_totals
from qtools.engines.contract import PublisherOptions
from qtools.engines.requirements import require, require_for_publishing
from qtools.errors import QtoolsError
from qtools.flow.contract import GroupPublisher
from qtools.flow.gather import Gather
from qtools.flow.loop import Flow
from qtools.flow.throttle import Throttle
from qtools.flow.topic_sink import TopicSink
from qtools.formats.lines import DelimiterSplitter, LengthSplitter, Splitter, WholeSplitter
from qtools.message import Batch
from qtools.pipe.blocks import InputBlock, Position
from qtools.pipe.input import InputSource
from qtools.pipe.options import PipeOptions

if TYPE_CHECKING:
    from qtools.cli.metrics.metrics_format import Family
    from qtools.flow.filter import Rules
    from qtools.flow.keying import KeyedPublisher
    from qtools.flow.stepped_sink import SteppedSink
    from qtools.pipe.checkpoint import Checkpoint, LogCheckpoint
    from qtools.pipe.log_source import LogSource
    from qtools.pipe.logs.log_reader import LogReader
    from qtools.pipe.routed_sink import RoutedSink


def splitter_for(options: PipeOptions) -> Callable[[int], Splitter]:
    """A function that makes the splitter of a file, given the byte at which reading begins."""
    if options.is_whole:
        return lambda base: WholeSplitter(base=base)
    if options.format == "raw":
        return lambda base: DelimiterSplitter(options.delimiter, base=base)
    if options.format == "length32":
        return lambda base: LengthSplitter(base=base)
    from qtools.formats.envelope import EnvelopeSplitter, MsgpackSplitter

    made = EnvelopeSplitter if options.format == "envelope" else MsgpackSplitter
    engine = options.engine.capabilities
    warn = None
    if not engine.keys_and_headers:
        warn = _once(f"{engine.engine} has no keys and no headers: those of the envelopes are left out")
        if options.rules is None and not options.routes:
            return lambda base: made(base=base, on_attributes=warn)
    from qtools.formats.envelope_records import RECORD_OF

    keep_empty = engine.empty_messages and not options.fail_on_empty
    return lambda base: made(base=base, record_of=RECORD_OF[options.format], keep_empty=keep_empty, on_attributes=warn)


def _fixed_topics(options: PipeOptions) -> tuple[str, ...]:
    """The topics that do not depend on a message."""
    if not options.routes:
        return (options.topic,)
    from qtools.routing.routes_file import read_routes

    return tuple(read_routes(options.routes, options.engine.capabilities.longest_name).make().fixed_topics)


def _once(text: str) -> Callable[[], None]:
    """A function that logs `text` as a warning when it is called for the first time."""
    left = [text]
    return lambda: logs.log(logging.WARNING, left.pop()) if left else None


def _name(batch: Batch, place: int) -> str:
    """`events.jsonl: message 4`"""
    block = next(origin for origin, start, stop in batch.parts if start <= place < stop)
    assert isinstance(block, InputBlock)
    return f"{block.name}: message {block.line_of(batch.ids[place])}"


async def pipe(options: PipeOptions, signals: Signals) -> int:
    """Publish the input; returns the exit status. StartError or UsageError before anything is sent."""
    if options.defer:
        require(options.engine, "deferred_publishing", "--defer")
    if options.replicate:
        require(options.engine, "replication", "--replicate")
    require_for_publishing(options.engine, options.keying, options.new_topics)
    if options.partition is not None:
        require(options.engine, "exclusive_partitions", "--partition")
    try:
        made = _Pipe(options)
    except CheckpointInUse as error:
        if not options.skip_if_running:
            raise
        logs.log(logging.INFO, f"{error}; nothing is done here")
        return 0
    if options.rules is not None:
        await options.rules.start()
    if options.key_encoder is not None:
        await options.key_encoder.start()
    return await made.run(signals)


class _Pipe:
    def __init__(self, options: PipeOptions) -> None:
        self.options = options
        self.reader: LogReader | None = None
        self.log_source: LogSource | None = None
        self.checkpoint: Checkpoint | LogCheckpoint | None = None
        self.save: Callable[[], None] = lambda: None  # saves what is confirmed in the checkpoint
        self.source = self._read_logs() if options.reads_logs else self._read_input()
        start = self.source.confirmed
        self.start = Position(start.file, start.offset, start.total, start.messages)
        self.latency = Histogram()
        self.publisher = options.engine.publisher(
            PublisherOptions(
                batch_count=options.batch_count, batch_bytes=options.batch_bytes,
                delay_ms=round(options.defer * 1000), replicate=options.replicate, retry_timeout=options.retry_timeout,
                on_published=self.latency.observe, new_topics=options.new_topics, new_topics_flag="--create-topics",
                topics=_fixed_topics(options), partition=options.partition,
            )
        )  # fmt: skip
        self.outlet: GroupPublisher = self.publisher
        self.keyed: KeyedPublisher | None = None
        advice = ""
        if options.keying is not None:
            from qtools.flow.keying import KeyedPublisher
            from qtools.flow.steps import ADVICE

            advice = ADVICE
            passes = options.on_error == "pass"
            self.outlet = self.keyed = KeyedPublisher(self.publisher, options.keying, passes=passes)
        self.sink = TopicSink(self.outlet, options.topic)
        self.filtered = self._route() if options.routes else self._filter(options.rules) if options.rules else None
        self.refusals = RefusalHandler(
            _name, skip_oversize=options.skip_oversize, skip_failed=options.on_error == "skip", advice=advice
        )
        self.flow = Flow(
            self.source, self.filtered or self.sink,
            window=options.window,
            gather=Gather(options.batch_count, options.batch_bytes, options.linger) if options.linger else None,
            throttle=Throttle(options.rate) if options.rate else None,
            on_refused=self.refusals,
            drain_timeout=options.operations.drain_timeout,
        )  # fmt: skip

    async def run(self, signals: Signals) -> int:
        operations = Operations(self.options.operations, "q-pipe", self._families, lambda: self._unready(signals))
        await operations.start()
        try:
            return await self._publish(signals)
        finally:
            await operations.close()

    async def _publish(self, signals: Signals) -> int:
        await self.publisher.start()
        signals.on_stop(self.flow.stop)
        if self.checkpoint and self.start.total:
            logs.log_result(f"going on after the {plural(self.start.messages, 'message')} sent before")
        typing = "-" in self.options.files and os.isatty(0)  # a progress line would be drawn over what is typed
        meter = ProgressLine("sent", self._counts, show=self.options.show and not typing)
        error = await send_all(self.flow, self.publisher, self.source, self.checkpoint, meter)
        if error is None and (signals.received is None or self.options.follow):
            self._summarize(meter)
            return 1 if self.reader is not None and self.reader.missing else 0
        self._say_failed(error, signals)
        return 1

    def _source_options(self) -> dict[str, Any]:
        """The arguments of both kinds of sources."""
        options = self.options
        return {
            "batch_count": options.batch_count,
            "batch_bytes": options.batch_bytes,
            "fail_on_empty": options.fail_on_empty,
            "on_confirm": lambda: self.save(),
        }

    def _read_input(self) -> InputSource:
        """A source for stdin and files, each read to its end."""
        options = self.options
        if not options.checkpoint:
            return self._open_input(Position(total=options.skip_bytes))
        from qtools.pipe.checkpoint import Checkpoint

        self.checkpoint = checkpoint = Checkpoint(options.checkpoint, options.goal, options.files)
        checkpoint.check()
        source = self._open_input(checkpoint.load())
        if not source.confirmed.total:
            checkpoint.save(source.confirmed)  # from now on the file is locked
        self.save = lambda: checkpoint.save(source.confirmed)
        return source

    def _open_input(self, start: Position) -> InputSource:
        options = self.options
        source = InputSource(
            options.files, splitter_for(options), start, decompress=not options.is_whole, **self._source_options()
        )
        source.check()
        return source

    def _read_logs(self) -> LogSource:
        """A source for logs, which may be rotated and written to while they are read."""
        from qtools.pipe.checkpoint import LogCheckpoint
        from qtools.pipe.log_source import LogSource
        from qtools.pipe.logs.log_reader import LogReader
        from qtools.pipe.logs.open_files import LogOptions

        options = self.options
        checkpoint = LogCheckpoint(options.checkpoint, options.goal, options.files) if options.checkpoint else None
        if checkpoint is not None:
            checkpoint.check()
        start, known = checkpoint.load() if checkpoint is not None else (Position(), {})
        if checkpoint is not None and checkpoint.note:
            logs.log(logging.WARNING, checkpoint.note)
        log_options = LogOptions(options.follow, options.rotated, options.skip_missing)
        self.reader = LogReader(options.files, known, log_options)
        self.log_source = source = LogSource(self.reader, splitter_for(options), start, **self._source_options())
        source.check()
        if checkpoint is not None:
            checkpoint.logs = self.reader.logs
            checkpoint.save(start)  # from now on the file is locked
            self.save = lambda: checkpoint.save(source.confirmed, source.take_changed())
        self.checkpoint = checkpoint
        return source

    def _filter(self, rules: Rules) -> SteppedSink:
        """The filter before the publisher."""
        from qtools.flow.stepped_sink import SteppedSink

        return SteppedSink(self.sink, rules, name=_name, warn=lambda text: logs.log(logging.WARNING, text))

    def _route(self) -> RoutedSink:
        """The routes before the publisher."""
        from qtools.pipe.routed_sink import RoutedSink

        options = self.options
        where, on_error = (options.rules.where, options.rules.on_error) if options.rules else (None, options.on_error)
        warn = partial(logs.log, logging.WARNING)
        longest = options.engine.capabilities.longest_name
        return RoutedSink(self.outlet, options.routes, where, on_error, name=_name, warn=warn, longest_topic=longest)

    def _counts(self) -> tuple[int, int]:
        return sent_totals(self.flow.totals, self.filtered)

    def _families(self) -> list[Family]:
        from qtools.cli.metrics.metric_sets import filter_families, flow_families, publisher_families

        return [
            *flow_families("q-pipe", self.flow.totals, empty=self.source.empty),
            *filter_families("q-pipe", self.filtered),
            *publisher_families("q-pipe", [self.publisher], self.latency),
            *self._lag(),
        ]

    def _lag(self) -> list[Family]:
        """The metrics of the bytes in logs that are not confirmed yet."""
        if self.reader is None:
            return []
        from qtools.cli.metrics.metrics_format import Family

        lag: list[tuple[dict[str, str], float]] = [({"file": name}, size) for name, size in self.reader.lag.items()]
        return [Family("qtools_pipe_lag_bytes", "gauge", "Bytes of each log that are not confirmed yet.", lag)]

    def _unready(self, signals: Signals) -> str:
        if signals.received is not None:
            return f"stopping after {signals.received.name}"
        broker = self.options.engine.capabilities.broker
        return "" if self.publisher.connected else f"no {broker} is connected"

    def _summarize(self, meter: ProgressLine) -> None:
        totals = self.flow.totals
        notes = []
        if self.source.empty:
            notes.append(f"{plural(self.source.empty, 'empty message')} skipped")
        if self.filtered is not None:
            notes += self.filtered.notes("sent")
        notes += self.refusals.notes(totals.refused)
        if self.keyed is not None and self.keyed.let_through:
            notes.append(f"{plural(self.keyed.let_through, 'message')} without a key or header sent")
        if self.publisher.resent:
            notes.append(f"{plural(self.publisher.resent, 'message')} sent again after a lost connection")
        if self.log_source is not None and self.log_source.held_back:
            notes.append(
                f"{plural(self.log_source.held_back, 'byte')} of a last message without its end left for later"
            )
        if self.options.show:
            done = meter.summary(*self._counts())
            where = f"by {self.options.routes}" if self.options.routes else f"to {self.options.topic}"
            logs.log_result("; ".join([f"{done} {where}", *notes]))

    def _say_failed(self, error: QtoolsError | None, signals: Signals) -> None:
        """Log what ended the run, how much is confirmed, and how to continue from there."""
        confirmed = self.source.confirmed
        if error is not None:
            logs.log(logging.ERROR, str(error))
        else:
            assert signals.received is not None
            logs.log(logging.ERROR, f"stopped by {signals.received.name} before the end of the input")
        count = plural(confirmed.messages - self.start.messages, "message")
        size = confirmed.total - self.start.total
        if self.reader is not None and not size:
            from qtools.pipe.logs.log_reader import FileMissing

            if isinstance(error, FileMissing):
                return  # the same command would end here again
        if self.options.follow and not self.checkpoint:
            how = "with --checkpoint a next run"
        else:
            how = "the same command" if self.checkpoint else f"--skip-bytes {confirmed.total}"
        amount = (
            plural(size, "byte").replace(",", "") + " of input" + (f" ({format_size(size)})" if size >= 1000 else "")
        )
        logs.log(logging.ERROR, f"confirmed: {count}, {amount}; {how} goes on there")
