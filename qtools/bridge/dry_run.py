"""--dry-run and --explain: print where messages would go. In: live messages, or lines of stdin. Out: lines on stdout.

Nothing is published. Live messages are read from a temporary channel, which gets a copy of each message from now on and
takes none from other channels. Where a topic keeps its messages (retention), it begins with the oldest one.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from qtools.bridge.explain import explain, outcome, shown
from qtools.bridge.loop_guard import forbidden_topics
from qtools.bridge.options import BridgeOptions
from qtools.bridge.routing import plan_for
from qtools.cli.run import Signals, status_of_run
from qtools.cli.worker import Worker
from qtools.descriptors import STDOUT, write_until_error
from qtools.engines.contract import SourceOptions
from qtools.engines.requirements import require
from qtools.errors import InputError, NetworkError, PeerError, SinkClosed, SinkError, StartError
from qtools.expressions.expression import NO_VARIABLES, VARIABLES
from qtools.flow.contract import FlowSource
from qtools.flow.loop import Flow
from qtools.flow.variables import Row, rows_of
from qtools.message import Batch
from qtools.names import EPHEMERAL, Subscription
from qtools.routing.routes import Routes

logger = logging.getLogger("qtools.bridge")

PATIENCE = 2.0  # s after a signal for which a stalled reader of stdout is waited for


async def look(options: BridgeOptions, signals: Signals) -> int:
    """Print the destinations of arriving messages until the run ends; return the exit status."""
    channel = f"q-bridge-{os.getpid()}-{os.urandom(3).hex()}{EPHEMERAL}"
    mode = "--explain" if options.explain else "--dry-run"
    advice = partial(_use_another_way, mode, {source.topic: source.channel for source in options.sources})
    sources = tuple(dict.fromkeys(Subscription(source.topic, channel) for source in options.sources))
    options = replace(options, sources=sources)
    planner = plan_for(options, await forbidden_topics(options)).planner
    assert isinstance(planner, Routes)
    require(options.engine, "temporary_channels", mode)
    if options.since is not None:
        require(options.engine, "since", "--since")
    source = options.engine.source(
        sources,
        SourceOptions(
            max_in_flight=options.max_in_flight, limit=options.count, ends=options.ends,
            since=_since(options), guarded=sources, advice=advice, warns=False,
        ),
    )  # fmt: skip
    await source.prepare()
    await _warn_of_first_channels(options, mode)
    if options.decoder is not None:
        await options.decoder.start()
    await source.start()
    read: FlowSource = source
    if options.decoder is not None:
        read = options.decoder.read(source)
    flow = Flow(read, _Print(planner, options.explain), drain_timeout=PATIENCE)
    signals.on_stop(flow.stop)
    ending = asyncio.create_task(source.wait_for_end())
    try:
        await flow.run()
    finally:
        ending.cancel()
        await asyncio.wait((ending,))
        await source.close()
        if options.decoder is not None:
            await options.decoder.close()
    if not ending.cancelled():
        ending.result()  # raises the error of an end condition
    return status_of_run(options.fail_if_none, flow.totals.finished, "printed", signals)


def _since(options: BridgeOptions) -> float | None:
    """Where the temporary channel begins: with the oldest message, if the topic keeps its messages."""
    has = options.engine.capabilities
    return 0.0 if options.since is None and has.retention and has.since else options.since


async def _warn_of_first_channels(options: BridgeOptions, mode: str) -> None:
    """Log the topics that have no channel: the temporary channel is their first one, and gets their messages alone."""
    if options.engine.capabilities.retention or not options.engine.capabilities.depths:
        return  # the messages stay in the topic
    statistics = options.engine.statistics()
    try:
        has_channel = {row["topic"] for row in await statistics.topics() if row["channels"]}
    except (StartError, NetworkError, PeerError) as error:
        logger.info("cannot tell which topics have channels: %s", error)
        return
    finally:
        await statistics.close()
    for topic in dict.fromkeys(source.topic for source in options.sources):
        if topic not in has_channel:
            text = "%s has no channel: what is published while %s reads is printed, and no channel gets it later"
            logger.warning(text, topic, mode)


def _use_another_way(mode: str, channels: dict[str, str], topic: str, waiting: int) -> str:
    """What to do where the temporary channel would take the messages that wait in `topic`.

    mode: "--dry-run" or "--explain". channels: topic → the channel that the bridge itself reads.
    """
    channel = channels[topic]
    return (
        f"{mode} reads through a temporary channel, which would take {'it' if waiting == 1 else 'them all'};"
        f" start the bridge once, so that {topic}/{channel} exists;"
        f" then q-tail {topic}/{channel} --peek | q-bridge --explain … shows what waits"
    )


def explain_stdin(options: BridgeOptions) -> int:
    """Print an explanation for each line of stdin; return the exit status. SinkError when stdout cannot be written."""
    planner = plan_for(options, frozenset(source.topic for source in options.sources)).planner
    assert isinstance(planner, Routes)
    for number, line in enumerate(_lines(), 1):
        body, row = _from_envelope(line, number) if options.reads_envelopes else (line, NO_VARIABLES)
        text = describe(planner, body, True, row)
        _, error = write_until_error(STDOUT, text.encode("utf-8", "backslashreplace"))
        if isinstance(error, BrokenPipeError):
            return 0
        if error is not None:
            raise SinkError(f"cannot write to stdout: {error.strerror or error}")
    return 0


def _from_envelope(line: bytes, number: int) -> tuple[bytes, Row]:
    """The body and the variables in an envelope; InputError names the line."""
    from qtools.formats.envelope import EnvelopeSplitter
    from qtools.formats.envelope_records import RECORD_OF, EnvelopeOrigin

    splitter = EnvelopeSplitter(record_of=RECORD_OF["envelope"], keep_empty=True)
    try:
        bodies = splitter.feed(line + b"\n")
    except InputError as error:
        raise InputError(f"stdin: line {number}{str(error).removeprefix('line 1 (at byte 0)')}") from error
    batch = Batch([(EnvelopeOrigin(), 0, 1)], None, bodies, range(1), splitter.records)
    return bodies[0], rows_of(batch, VARIABLES)[0]


def describe(routes: Routes, body: bytes, why: bool, row: Row = NO_VARIABLES) -> str:
    """The lines that are printed for one message, with control characters escaped. why: list routes and conditions.
    row: the message's variables."""
    lines = explain(routes, body, row) if why else [f"{outcome(routes, body, row)}\t{shown(body)}"]
    return "".join(f"{_harmless(line)}\n" for line in lines)


def _harmless(line: str) -> str:
    return "".join(char if char.isprintable() or char == "\t" else repr(char)[1:-1] for char in line)


def _lines() -> Iterator[bytes]:
    while line := sys.stdin.buffer.readline():
        line = line.removesuffix(b"\n")
        if line:
            yield line


class _Print:
    """A Sink that prints a text for each message."""

    def __init__(self, routes: Routes, why: bool) -> None:
        self._routes = routes
        self._why = why
        self._worker = Worker("output")

    async def write(self, batch: Batch) -> None:
        rows = rows_of(batch, self._routes.variables)
        texts = [describe(self._routes, body, self._why, row) for body, row in zip(batch.bodies, rows, strict=True)]
        data = "".join(texts).encode("utf-8", "backslashreplace")
        _, error = await self._worker.call(write_until_error, STDOUT, data)
        if isinstance(error, BrokenPipeError):
            raise SinkClosed("the reader of stdout has closed it")
        if error is not None:
            raise SinkError(f"cannot write to stdout: {error.strerror or error}")

    async def close(self) -> None: ...
