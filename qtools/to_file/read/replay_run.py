"""One run of q-to-file replay: an archive, a publisher, the loop between them, and the summary at the end."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from qtools.cli import logs
from qtools.cli.progress_line import ProgressLine
from qtools.cli.run import Signals
from qtools.cli.types import plural
from qtools.cli.upload_run import RefusalHandler, send_all, sent_totals
from qtools.engines.contract import Engine, NewTopics, PublisherOptions
from qtools.engines.requirements import require_for_publishing
from qtools.errors import QtoolsError
from qtools.flow.contract import FlowSource, GroupPublisher
from qtools.flow.loop import Flow
from qtools.flow.throttle import Throttle
from qtools.flow.topic_sink import TopicSink
from qtools.message import Batch
from qtools.to_file.read.replay_plan import ReplayCheckpoint, ReplayPosition, TimeSpan, make_plan
from qtools.to_file.read.replay_source import ArchiveSource, ReplayBlock
from qtools.to_file.read.verify import read_archive
from qtools.to_file.stores.opening import open_to_read

if TYPE_CHECKING:  # few runs filter, and its modules take time to import
    from qtools.flow.filter import Rules
    from qtools.flow.stepped_sink import SteppedSink
    from qtools.schemas.decoding import BatchDecoder


@dataclass(frozen=True, slots=True)
class ReplayOptions:
    """Times in s, span in ns since 1970, rate in messages/s (0: no limit). decode, decode_key: the formats that
    `decoder` decodes, or ""."""

    url: str
    topic: str
    engine: Engine
    endpoint: str = ""
    from_topic: str = ""
    span: TimeSpan = field(default_factory=TimeSpan)
    delimiter: bytes = b"\n"
    rules: Rules | None = None
    decoder: BatchDecoder | None = None
    decode: str = ""
    decode_key: str = ""
    new_topics: NewTopics | None = None
    rate: float = 0.0
    skip_oversize: bool = False
    batch_count: int = 5000
    batch_bytes: int = 1024 * 1024
    window: int = 8
    retry_timeout: float = 60.0
    checkpoint: str = ""
    show: bool = True


async def replay(options: ReplayOptions, signals: Signals) -> int:
    """Publish the archive; returns the exit status. StartError, UsageError or StoreError before anything is sent."""
    require_for_publishing(options.engine, None, options.new_topics)
    checkpoint = _checkpoint(options)
    if checkpoint:
        checkpoint.check()
    start = checkpoint.load() if checkpoint else ReplayPosition()
    store = await open_to_read(options.url, endpoint=options.endpoint)
    archive = await read_archive(store)
    plan = make_plan(archive, options.span, options.from_topic, start)
    for note in plan.notes:
        logs.log(logging.WARNING, note)
    if checkpoint:
        checkpoint.save(start)  # this locks the file
    keeps_records = options.engine.capabilities.keys_and_headers or options.rules is not None
    source = ArchiveSource(
        store, archive.entries, plan, options.span, delimiter=options.delimiter, keeps_records=keeps_records
    )
    return await _Replay(options, source, checkpoint).run(signals)


def _checkpoint(options: ReplayOptions) -> ReplayCheckpoint | None:
    if not options.checkpoint:
        return None
    rules = options.rules
    run = {
        "url": options.url, "endpoint": options.endpoint, "topic": options.topic, "from_topic": options.from_topic,
        "since": options.span.since, "until": options.span.until, "delimiter": options.delimiter.decode("latin-1"),
        "where": rules.where.text if rules and rules.where else "",
        "select": rules.select.text if rules and rules.select else "",
        "decode": options.decode, "decode_key": options.decode_key,
    }  # fmt: skip
    return ReplayCheckpoint(options.checkpoint, run)


def _name(batch: Batch, place: int) -> str:
    """`dt=2026-11-24/events.….jsonl.gz: message 4`"""
    block = next(origin for origin, start, stop in batch.parts if start <= place < stop)
    assert isinstance(block, ReplayBlock)
    return f"{block.name}: message {block.number_of(batch.ids[place])}"


class _Replay:
    def __init__(self, options: ReplayOptions, source: ArchiveSource, checkpoint: ReplayCheckpoint | None) -> None:
        self.options = options
        self.source = source
        self.checkpoint = checkpoint
        self.start = source.confirmed
        if checkpoint:
            source.on_confirm = lambda: checkpoint.save(source.confirmed)
        self.publisher = options.engine.publisher(
            PublisherOptions(
                batch_count=options.batch_count, batch_bytes=options.batch_bytes, retry_timeout=options.retry_timeout,
                new_topics=options.new_topics, new_topics_flag="--create-topics", topics=(options.topic,),
            )
        )  # fmt: skip
        outlet: GroupPublisher = self.publisher
        read: FlowSource = source
        if options.decoder is not None:
            from qtools.schemas.stale_headers import FreshHeadersPublisher

            outlet, read = FreshHeadersPublisher(outlet), options.decoder.read(source)
        self.sink = TopicSink(outlet, options.topic)
        self.filtered = self._filter(options.rules) if options.rules is not None else None
        self.refusals = RefusalHandler(_name, skip_oversize=options.skip_oversize)
        self.flow = Flow(
            read, self.filtered or self.sink,
            window=options.window,
            throttle=Throttle(options.rate) if options.rate else None,
            on_refused=self.refusals,
        )  # fmt: skip

    async def run(self, signals: Signals) -> int:
        decoder = self.options.decoder
        if decoder is not None:
            await decoder.start()
        try:
            return await self._send(signals)
        finally:
            if decoder is not None:
                await decoder.close()

    async def _send(self, signals: Signals) -> int:
        await self.publisher.start()
        signals.on_stop(self.flow.stop)
        if self.start.sent:
            logs.log_result(f"going on after the {plural(self.start.sent, 'message')} sent before")
        meter = ProgressLine("sent", self._counts, show=self.options.show)
        error = await send_all(self.flow, self.publisher, self.source, self.checkpoint, meter)
        if error is None and signals.received is None:
            self._summarize(meter)
            return self._status_of_counts()
        self._say_failed(error, signals)
        return 1

    def _filter(self, rules: Rules) -> SteppedSink:
        """The filter before the publisher."""
        from qtools.flow.stepped_sink import SteppedSink

        return SteppedSink(self.sink, rules, name=_name, warn=lambda text: logs.log(logging.WARNING, text))

    def _counts(self) -> tuple[int, int]:
        return sent_totals(self.flow.totals, self.filtered)

    def _summarize(self, meter: ProgressLine) -> None:
        totals = self.flow.totals
        notes = [plural(self.source.files, "file")]
        if self.source.left_out:
            notes.append(f"{plural(self.source.left_out, 'message')} outside of the time span")
        if self.filtered is not None:
            notes += self.filtered.notes("sent")
        notes += self.refusals.notes(totals.refused)
        if self.publisher.resent:
            notes.append(f"{plural(self.publisher.resent, 'message')} sent again after a lost connection")
        if self.options.show:
            done = meter.summary(*self._counts())
            logs.log_result("; ".join([f"{done} to {self.options.topic}", *notes]))

    def _status_of_counts(self) -> int:
        """The exit status of a run that has sent everything: 1 if a file had another number of messages than its
        manifest says."""
        miscounted = self.source.miscounted
        if not miscounted:
            return 0
        logs.log(
            logging.ERROR,
            f"{plural(miscounted, 'file')} had another number of messages than the manifest says: bodies that contain"
            " the delimiter were sent in pieces, or --delimiter is not the one of the archive",
        )
        return 1

    def _say_failed(self, error: QtoolsError | None, signals: Signals) -> None:
        """Log what ended the run, and how many messages are confirmed."""
        if error is not None:
            logs.log(logging.ERROR, str(error))
        else:
            assert signals.received is not None
            logs.log(logging.ERROR, f"stopped by {signals.received.name} before the end of the archive")
        count = plural(self.flow.totals.finished, "message")
        how = "the same command goes on there" if self.checkpoint else "with --checkpoint a next run would go on there"
        logs.log(logging.ERROR, f"confirmed: {count}; {how}")
