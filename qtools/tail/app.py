"""One run of q-tail: a consumer, the output, the loop between them, and the end. In: options. Out: the exit status."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from qtools.cli import logs
from qtools.cli.metrics.metric_sets import consumer_families, filter_families, flow_families
from qtools.cli.metrics.metrics_format import Family, counter
from qtools.cli.metrics.operations import Operations
from qtools.cli.progress_line import ProgressLine
from qtools.cli.run import MESSAGES_COME_AGAIN, Signals, none_is_failure
from qtools.cli.trial import Trial
from qtools.cli.types import plural
from qtools.engines.nsq.consume.backlog_guard import refuse_to_take_backlog
from qtools.engines.nsq.consume.backlog_warnings import wait_for_warnings, warn_after, warn_of_backlog_elsewhere
from qtools.engines.nsq.consume.consumer import Consumer
from qtools.engines.nsq.consume.drain import ask_first, end_consumer
from qtools.engines.nsq.consume.history import begin_in_the_past
from qtools.engines.nsq.http_client import Depth
from qtools.flow.contract import Source
from qtools.flow.loop import Flow
from qtools.formats.encoders import Format
from qtools.message import Batch
from qtools.names import Subscription
from qtools.tail.options import TailOptions
from qtools.tail.output import Output, make_format
from qtools.tail.peek_source import AT_MOST, Look

if TYPE_CHECKING:
    from qtools.flow.filter import Filter, FilteredSink

STDOUT = 1


async def tail(options: TailOptions, signals: Signals) -> int:
    """Print messages until the run ends; return the exit status. StartError when no broker could be reached."""
    if options.peek:
        return await _look(options, signals)
    guarded = await refuse_to_take_backlog(options.guarded, options.brokers, options.settings)
    depths = await ask_first(options.sources, options.brokers, options.settings, options.ends)
    if options.since is None:
        warn_of_backlog_elsewhere({place: depth for place, depth in depths.items() if place[0] not in options.guarded})
        # A temporary channel is new in each run. A user may overlook that; a log need not repeat it for each run.
        warn_of_backlog_elsewhere(guarded, logging.WARNING if sys.stderr.isatty() else logging.INFO)
    else:
        await begin_in_the_past(options.sources, options.brokers, options.settings, options.since)
    choosing = options.sample < 1.0 or options.rules is not None
    consumer = Consumer(
        options.sources, options.brokers, options.settings,
        max_in_flight=options.max_in_flight,
        limit=None if choosing else options.count,  # messages that are left out do not count
        by_quota=options.ends.until_now, ends_when_empty=bool(options.ends.flag),
    )  # fmt: skip
    form = _form(options)
    output = Output(
        STDOUT, form, sample=options.sample, limit=options.count if choosing else None, on_closed=consumer.end
    )
    filtered = _filtered(output, options.rules) if options.rules is not None else None
    source: Source = consumer
    if options.rules is not None and not options.rules.chosen:
        source = Trial(consumer, options.rules.failures, most=options.max_in_flight)
    flow = Flow(source, filtered or output, drain_timeout=options.operations.drain_timeout)
    operations = Operations(
        options.operations,
        "q-tail",
        lambda: _families(consumer, output, filtered, flow),
        lambda: _unready(consumer, signals),
    )
    await operations.start()
    try:
        await consumer.start()
        signals.at_abrupt_end = MESSAGES_COME_AGAIN
        signals.on_stop(flow.stop)
        await _print(consumer, output, filtered, flow, options, depths)
        return none_is_failure(options.fail_if_none, output.printed, "printed", signals)
    finally:
        await output.close()
        await operations.close()


def _form(options: TailOptions) -> Format:
    return make_format(
        options.format, options.delimiter, print_topic=options.print_topic, on_terminal=os.isatty(STDOUT)
    )


async def _look(options: TailOptions, signals: Signals) -> int:
    """--peek: print waiting messages and leave them in their channels; return the exit status."""
    choosing = options.sample < 1.0 or options.rules is not None
    most = AT_MOST if options.count is None else options.count
    output = Output(STDOUT, _form(options), sample=options.sample, limit=most if choosing else None)
    sink = output if options.rules is None else _filtered(output, options.rules)
    flow = Flow(Look(options.sources, options.brokers, options.settings, options.count, choosing=choosing), sink)
    signals.on_stop(flow.stop)
    try:
        await flow.run()
    finally:
        await output.close()
    return none_is_failure(options.fail_if_none, output.printed, "printed", signals)


async def _print(
    consumer: Consumer,
    output: Output,
    filtered: FilteredSink | None,
    flow: Flow,
    options: TailOptions,
    depths: Mapping[tuple[Subscription, str], Depth],
) -> None:
    meter = ProgressLine(
        "printed", lambda: (output.printed, output.printed_bytes), show=options.show and not os.isatty(STDOUT)
    )
    ending = asyncio.create_task(end_consumer(consumer, options.ends, depths))
    warning = asyncio.create_task(warn_after(options.ends.settling_time, consumer, options.sources))
    if options.ends.flag or options.guarded or options.since:  # `tail` has warned already, or there is no need to
        warning.cancel()
    try:
        await flow.run()
        await wait_for_warnings(ending, warning, consumer)
    finally:
        ending.cancel()
        warning.cancel()
        await asyncio.wait((ending, warning))
        await consumer.close()
        meter.close()
        _summarize(consumer, output, flow, meter, options, filtered)
    if not ending.cancelled():
        ending.result()  # its error is the program's


def _filtered(output: Output, rules: Filter) -> FilteredSink:
    """A sink that filters and writes to `output`. It logs the first message on which an expression fails as a warning,
    and the others as information."""
    from qtools.flow.filter import FilteredSink

    def name(batch: Batch, place: int) -> str:
        topic = next(origin.topic for origin, start, stop in batch.parts if start <= place < stop)
        return f"{topic}: message {batch.ids[place].decode('latin-1')}"

    def warn(text: str) -> None:
        logs.say(logging.INFO if sink.left_out else logging.WARNING, text)

    sink = FilteredSink(output, rules, name=name, warn=warn)
    return sink


def _families(consumer: Consumer, output: Output, filtered: FilteredSink | None, flow: Flow) -> list[Family]:
    return [
        *flow_families("q-tail", flow.totals),
        *filter_families("q-tail", filtered),
        counter("qtools_tail_printed_total", "Messages that stdout took.", output.printed),
        *consumer_families("q-tail", consumer),
    ]


def _unready(consumer: Consumer, signals: Signals) -> str:
    if signals.received is not None:
        return f"stopping after {signals.received.name}"
    return "" if consumer.connected else "no nsqd is connected"


def _summarize(
    consumer: Consumer,
    output: Output,
    flow: Flow,
    meter: ProgressLine,
    options: TailOptions,
    filtered: FilteredSink | None,
) -> None:
    totals = flow.totals
    notes = []
    if filtered is not None:
        notes += filtered.notes("printed")
        if filtered.left_out > 1:  # the first was named in a warning
            notes[-1] += " (-v names each)"
    if consumer.acknowledgements_failed:
        late = plural(consumer.acknowledgements_failed, "message")
        notes.append(f"{late} had timed out before being finished and will come again")
    if totals.requeued:
        notes.append(f"{plural(totals.requeued, 'message')} given back unprinted")
    left_out = (totals.finished if filtered is None else filtered.passed) - output.printed
    if left_out > 0:
        notes.append(f"{left_out:,} left out by --sample")
    # The summary is shown when stdout is a pipe or file and the user watches stderr. On a terminal the messages
    # themselves show the result, and a reader that has closed stdout (head, less) needs no summary. Messages that were
    # finished without being printed are gone from the queue, so the summary is always shown then.
    unprinted = left_out > 0 or (filtered is not None and filtered.unmatched > 0)
    wanted = unprinted or (not totals.closed and not os.isatty(STDOUT) and sys.stderr.isatty())
    say = logs.say_result if options.show and wanted else partial(logs.say, logging.INFO)
    done = f"{meter.summary(output.printed, output.printed_bytes)} printed"
    if unprinted:
        notes.insert(0, f"{plural(totals.finished, 'message')} taken from the queue")
    say("; ".join([done, *notes]))
