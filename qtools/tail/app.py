"""One run of q-tail: the source, the output, and the loop between them. In: options. Out: the exit status.

Modules that only some runs need (for a filter, metrics, --peek) are imported in those runs.
"""

from __future__ import annotations

import logging
import os
import sys
from functools import partial
from typing import TYPE_CHECKING

from qtools.cli import logs
from qtools.cli.consume_run import RunWatch, notes_of_source, sink_after
from qtools.cli.metrics.operations import Operations
from qtools.cli.progress_line import ProgressLine
from qtools.cli.run import MESSAGES_COME_AGAIN, Signals, status_of_run
from qtools.cli.types import plural
from qtools.engines.contract import Source, SourceOptions
from qtools.engines.requirements import require, require_for_end
from qtools.errors import EvaluationError
from qtools.flow.contract import FlowSource
from qtools.flow.loop import Flow
from qtools.formats.encoders import Format
from qtools.tail.options import TailOptions
from qtools.tail.output import Output, make_format, visible_on_terminal

if TYPE_CHECKING:
    from qtools.cli.metrics.metrics_format import Family
    from qtools.flow.stepped_sink import SteppedSink
    from qtools.tail.waiting_line import WaitingLine

STDOUT = 1


async def tail(options: TailOptions, signals: Signals) -> int:
    """Print messages until the run ends; return the exit status. StartError when no broker could be reached."""
    for capability, flag, is_given in (
        ("peek", "--peek", options.peek),
        ("since", "--since", options.since is not None),
        ("exclusive_partitions", "--partition", options.partition is not None),
        ("exclusive_partitions", "--offset", options.offset is not None),
        ("temporary_channels", "TOPIC without /CHANNEL", bool(options.guarded)),
        ("keys_and_headers", "--decode-key", options.decoder is not None and options.decoder.decodes_keys),
    ):
        if is_given:
            require(options.engine, capability, flag)
    require_for_end(options.engine, options.ends)
    if options.peek:
        return await _peek(options, signals)
    selective = options.sample < 1.0 or options.rules is not None
    source = options.engine.source(
        options.sources,
        SourceOptions(
            max_in_flight=options.max_in_flight,
            limit=None if selective else options.count,  # messages that are not printed do not count
            ends=options.ends,
            since=options.since,
            partition=options.partition,
            offset=options.offset,
            guarded=options.guarded,
            # That a temporary channel gets only new messages is a warning on a terminal only: in a log of many runs it
            # would be repeated in each.
            guarded_level=logging.WARNING if sys.stderr.isatty() else logging.INFO,
        ),
    )
    await source.prepare()
    form = _form(options)
    output = Output(
        STDOUT, form, sample=options.sample, limit=options.count if selective else None, on_closed=source.end
    )
    filtered = sink_after(options.rules, output) if options.rules is not None else None
    tried: FlowSource = source
    if options.decoder is not None:
        await options.decoder.start()
        tried = options.decoder.read(source)
    if options.rules is not None and not options.rules.chosen:
        from qtools.cli.trial import DECODING, EXPRESSION, Trial

        what = EXPRESSION if options.decoder is None else DECODING
        tried = Trial(tried, options.rules.failures, most=options.max_in_flight, what=what)
    flow = Flow(tried, filtered or output, drain_timeout=options.operations.drain_timeout)
    operations = Operations(
        options.operations,
        "q-tail",
        lambda: _families(source, output, filtered, flow),
        lambda: _unready(source, options, signals),
    )
    await operations.start()
    try:
        await source.start()
        signals.at_abrupt_end = MESSAGES_COME_AGAIN
        signals.on_stop(flow.stop)
        await _print(source, output, filtered, flow, options)
        return status_of_run(options.fail_if_none, output.printed, "printed", signals)
    finally:
        await output.close()
        await operations.close()
        if options.decoder is not None:
            await options.decoder.close()


def _form(options: TailOptions) -> Format:
    on_terminal = os.isatty(STDOUT)
    if options.template is not None or options.fields is not None:
        return _chosen_form(options, on_terminal)
    is_plain = options.format == "raw" and options.delimiter == b"\n" and not options.print_topic
    if options.pretty or (options.pretty is None and on_terminal and is_plain):
        from qtools.tail.pretty import pretty_format, wants_colours

        topics = {source.topic for source in options.sources}
        return pretty_format(shows_topic=len(topics) > 1, colours=on_terminal and wants_colours())
    return make_format(options.format, options.delimiter, print_topic=options.print_topic, on_terminal=on_terminal)


def _chosen_form(options: TailOptions, on_terminal: bool) -> Format:
    """The form of --output, or of --fields. What has no result is empty, which is logged."""
    from qtools.cli.failure_log import FailureLog

    failures = FailureLog("qtools.tail")

    def on_failure(error: EvaluationError) -> None:
        failures.log("printed with an empty value", (str(error),))

    if options.template is not None:
        from qtools.tail.template import template_format

        form = template_format(options.template, options.delimiter, on_failure)
    else:
        from qtools.tail.columns import columns_format

        form = columns_format(list(options.fields or ()), options.format, on_failure)
    return visible_on_terminal(form, options.delimiter) if on_terminal else form


async def _peek(options: TailOptions, signals: Signals) -> int:
    """--peek: print messages that wait in channels, without taking them; return the exit status."""
    from qtools.tail.peek_source import DEFAULT_COUNT, PeekFlowSource

    selective = options.sample < 1.0 or options.rules is not None
    most = DEFAULT_COUNT if options.count is None else options.count
    output = Output(STDOUT, _form(options), sample=options.sample, limit=most if selective else None)
    sink = output if options.rules is None else sink_after(options.rules, output)
    source: FlowSource = PeekFlowSource(options.sources, options.engine, options.count, selective=selective)
    if options.decoder is not None:
        await options.decoder.start()
        source = options.decoder.read(source)
    flow = Flow(source, sink)
    signals.on_stop(flow.stop)
    try:
        await flow.run()
    finally:
        await output.close()
        if options.decoder is not None:
            await options.decoder.close()
    return status_of_run(options.fail_if_none, output.printed, "printed", signals)


async def _print(
    source: Source, output: Output, filtered: SteppedSink | None, flow: Flow, options: TailOptions
) -> None:
    meter = ProgressLine(
        "printed", lambda: (output.printed, output.printed_bytes), show=options.show and not os.isatty(STDOUT)
    )
    waiting: WaitingLine | None = None
    if options.show and os.isatty(STDOUT) and sys.stderr.isatty() and not logs.is_json():
        from qtools.tail.waiting_line import WaitingLine

        names = ", ".join(map(str, options.named_sources))
        waiting = WaitingLine(source, output, f"{names} at {options.engine}")
    watch = RunWatch(source, options.sources)
    try:
        await flow.run()
        await watch.settle()
    finally:
        await watch.stop()
        await source.close()
        if waiting is not None:
            waiting.close()
        meter.close()
        _summarize(source, output, flow, meter, options, filtered)
    watch.check()


def _families(source: Source, output: Output, filtered: SteppedSink | None, flow: Flow) -> list[Family]:
    from qtools.cli.metrics.metric_sets import consumer_families, filter_families, flow_families
    from qtools.cli.metrics.metrics_format import counter

    return [
        *flow_families("q-tail", flow.totals),
        *filter_families("q-tail", filtered),
        counter("qtools_tail_printed_total", "Messages that stdout took.", output.printed),
        *consumer_families("q-tail", source),
    ]


def _unready(source: Source, options: TailOptions, signals: Signals) -> str:
    if signals.received is not None:
        return f"stopping after {signals.received.name}"
    return "" if source.connected else f"no {options.engine.capabilities.broker} is connected"


def _summarize(
    source: Source,
    output: Output,
    flow: Flow,
    meter: ProgressLine,
    options: TailOptions,
    filtered: SteppedSink | None,
) -> None:
    totals = flow.totals
    notes = []
    if filtered is not None:
        notes += filtered.notes("printed")
        if filtered.left_out > 1:  # the first was named in a warning
            notes[-1] += " (-v names each)"
    notes += notes_of_source(source)
    if totals.requeued:
        notes.append(f"{plural(totals.requeued, 'message')} given back unprinted")
    left_out = (totals.finished if filtered is None else filtered.passed) - output.printed
    if left_out > 0:
        notes.append(f"{left_out:,} left out by --sample")
    # The summary is shown when stdout is a pipe or file and the user watches stderr. On a terminal the messages
    # themselves show the result, and a reader that has closed stdout (head, less) needs no summary. Messages that were
    # finished without being printed are gone from the queue, so the summary is always shown then.
    unprinted = left_out > 0 or (filtered is not None and filtered.unmatched > 0)
    show_summary = unprinted or (not totals.closed and not os.isatty(STDOUT) and sys.stderr.isatty())
    say = logs.log_result if options.show and show_summary else partial(logs.log, logging.INFO)
    done = f"{meter.summary(output.printed, output.printed_bytes)} printed"
    if unprinted:
        notes.insert(0, f"{plural(totals.finished, 'message')} taken from the queue")
    say("; ".join([done, *notes]))
