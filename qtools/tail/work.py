"""One run of q-tail: consumer, output, the loop between them, and when it ends."""

from __future__ import annotations

import asyncio
import logging
import os
import sys

from qtools.cli import logs
from qtools.cli.counts import consumer_families, flow_families
from qtools.cli.families import Family, counter
from qtools.cli.meter import Meter
from qtools.cli.metrics import Operations
from qtools.cli.run import Signals
from qtools.cli.types import plural
from qtools.client.consumer import Consumer
from qtools.client.guard import refuse_to_take_backlog
from qtools.flow.run import Flow
from qtools.tail.ends import wait_until_empty, wait_until_idle
from qtools.tail.options import TailOptions
from qtools.tail.output import Output, make_format

STDOUT = 1


async def tail(options: TailOptions, signals: Signals) -> int:
    """Print what comes; the exit status. Raises StartError when nothing could be reached."""
    if options.guarded:
        await refuse_to_take_backlog(options.guarded, options.brokers)
    sampling = options.sample < 1.0
    consumer = Consumer(
        options.sources, options.brokers, options.settings,
        max_in_flight=options.max_in_flight,
        limit=None if sampling else options.count,  # what is left out by sampling does not count
    )  # fmt: skip
    form = make_format(
        options.format, options.delimiter, print_topic=options.print_topic, on_terminal=os.isatty(STDOUT)
    )
    output = Output(
        STDOUT, form, sample=options.sample, limit=options.count if sampling else None, on_closed=consumer.end
    )
    flow = Flow(consumer, output, drain_timeout=options.operations.drain_timeout)
    operations = Operations(
        options.operations, "q-tail", lambda: _families(consumer, output, flow), lambda: _unready(consumer, signals)
    )
    await operations.start()
    try:
        await consumer.start()
        signals.on_stop(flow.stop)
        return await _print(consumer, output, flow, options)
    finally:
        await output.close()
        await operations.close()


async def _print(consumer: Consumer, output: Output, flow: Flow, options: TailOptions) -> int:
    meter = Meter(
        "printed", lambda: (output.printed, output.printed_bytes), show=options.show and not os.isatty(STDOUT)
    )
    watching = [asyncio.create_task(_end(consumer, options))]
    try:
        await flow.run()
    finally:
        for watch in watching:
            watch.cancel()
        await consumer.close()
        meter.close()
        _summarize(consumer, output, flow, meter, options)
    return _watched(watching)


async def _end(consumer: Consumer, options: TailOptions) -> None:
    """End the consumer when --until-empty or --idle-timeout says so."""
    waits = []
    if options.until_empty:
        waits.append(asyncio.create_task(wait_until_empty(consumer)))
    if options.idle_timeout is not None:
        waits.append(asyncio.create_task(wait_until_idle(consumer, options.idle_timeout)))
    if not waits:
        return
    try:
        done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in waits:
            task.cancel()
        consumer.end()


def _watched(watching: list[asyncio.Task[None]]) -> int:
    """What the watching ended with: its error is the program's."""
    for task in watching:
        if task.done() and not task.cancelled():
            error = task.exception()
            if error is not None:
                raise error
    return 0


def _families(consumer: Consumer, output: Output, flow: Flow) -> list[Family]:
    return [
        *flow_families("q-tail", flow.totals),
        counter("qtools_tail_printed_total", "Messages that stdout took.", output.printed),
        *consumer_families("q-tail", consumer),
    ]


def _unready(consumer: Consumer, signals: Signals) -> str:
    if signals.received is not None:
        return f"stopping after {signals.received.name}"
    return "" if consumer.connected else "no nsqd is connected"


def _summarize(consumer: Consumer, output: Output, flow: Flow, meter: Meter, options: TailOptions) -> None:
    totals = flow.totals
    notes = []
    if consumer.acknowledgements_failed:
        late = plural(consumer.acknowledgements_failed, "message")
        notes.append(f"{late} had timed out before being finished and will come again")
    if totals.requeued:
        notes.append(f"{plural(totals.requeued, 'message')} given back unprinted")
    # On a terminal the messages themselves are the news; into a pipe or a file this line is.
    # Whoever closed stdout (head, less) has seen enough.
    wanted = options.show and not totals.closed and not os.isatty(STDOUT) and sys.stderr.isatty()
    level = logging.WARNING if wanted else logging.INFO
    logs.say(level, "; ".join([meter.summary(output.printed, output.printed_bytes), *notes]))
