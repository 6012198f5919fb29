"""Reads numbered messages in a process of its own, which may be killed. In: a source. Out: what arrived, to the process
that publishes, over a pipe.

    this program again, with --reader-of ─▶ stdout: a frame for each batch, and for each look at the state
                                         ◀─ stdin: a byte asks whether nothing is left; its end ends the reader

A batch is finished after the pipe has taken all of its frame: what a killed reader had finished is known.

    frame      header, then numbers, (latency in ns, count) …, probes as uint64
    header     counts of these three, foreign, corrupted, redelivered, reconnects; message timeout; is nothing left?
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import struct
import sys
import time
from array import array
from collections import Counter
from itertools import chain
from math import nan
from typing import NamedTuple

from qtools.backoff import next_delay
from qtools.cli import logs
from qtools.cli.run import Signals
from qtools.cli.worker import Worker
from qtools.descriptors import write_all
from qtools.engines.contract import Source
from qtools.errors import StartError
from qtools.soak.bodies import BodyChecker, CheckedBodies
from qtools.soak.options import SoakOptions
from qtools.soak.reading import ReadCounts, is_drained, prepare

STDOUT = 1
STATE_INTERVAL = 0.5  # s between two frames about the state
END_TIMEOUT = 10.0  # s that a reader has to end in order
_HEADER = struct.Struct("<7Qd?")
_ASK = b"?"


class ReaderIdentity(NamedTuple):
    """What a reader has to know besides the flags: the value of --reader-of."""

    run: str  # in hex
    topic: str
    channel: str

    def __str__(self) -> str:
        return json.dumps(self)

    @classmethod
    def of(cls, text: str) -> ReaderIdentity:
        return cls(*json.loads(text))


# ── the process that reads ──


async def read_for_parent(source: Source, options: SoakOptions, signals: Signals) -> int:
    """Read until stdin ends, or SIGTERM. StartError, UsageError."""
    reader = _PipedReader(source, BodyChecker(options.run, is_own_topic=options.is_own_topic))
    signals.on_stop(source.end)
    await prepare(source)
    await source.start()
    watching = asyncio.ensure_future(reader.watch())
    listening = asyncio.ensure_future(reader.listen())
    try:
        await reader.read()
    finally:
        for task in (watching, listening):
            task.cancel()
        await asyncio.wait((watching, listening))
        await source.close()
    return 0


class _PipedReader:
    def __init__(self, source: Source, checker: BodyChecker) -> None:
        self._source = source
        self._checker = checker
        self._worker = Worker("frames")
        self._is_asked = False  # whether nothing is left
        self._noted = 0  # batches

    async def read(self) -> None:
        while (batch := await self._source.read()) is not None:
            checked = self._checker.check(batch.bodies)
            now = time.monotonic_ns()
            self._noted += 1
            await self._write(checked, Counter(now - stamp for stamp in checked.stamps))
            batch.finish()

    async def watch(self) -> None:
        """Write a frame about the state from time to time."""
        while True:
            before = self._noted
            drained = self._is_asked and await is_drained(self._source)
            await self._write(CheckedBodies((), ()), Counter(), drained=drained and self._noted == before)
            await asyncio.sleep(STATE_INTERVAL)

    async def listen(self) -> None:
        """Read stdin; its end ends the source."""
        loop = asyncio.get_running_loop()
        stream = asyncio.StreamReader()
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stream), sys.stdin)
        try:
            while await stream.read(1):
                self._is_asked = True
            self._source.end()
        finally:
            transport.close()

    async def _write(self, checked: CheckedBodies, latencies: Counter[int], *, drained: bool = False) -> None:
        source = self._source
        header = _HEADER.pack(
            len(checked.numbers), len(latencies), len(checked.probes), checked.foreign, checked.corrupted,
            source.redelivered or 0, source.reconnects or 0,
            nan if source.acknowledgement_timeout is None else source.acknowledgement_timeout, drained,
        )  # fmt: skip
        values = array("Q", checked.numbers)
        values.extend(chain.from_iterable(latencies.items()))
        values.extend(checked.probes)
        try:
            await self._worker.call(write_all, STDOUT, header + values.tobytes())
        except BrokenPipeError:
            source.end()


# ── the process that publishes ──


class ReaderProcess:
    """Keeps a reader running: one that ends is started again. See reading.MessageReader."""

    def __init__(self, options: SoakOptions, words: list[str], counts: ReadCounts) -> None:
        self.restarts = 0
        self.message_timeout: float | None = None
        self.ended: asyncio.Future[None]
        identity = ReaderIdentity(options.run.hex(), *options.subscription)
        self._command = [sys.executable, "-m", "qtools.soak", *words, "--reader-of", str(identity)]
        self._counts = counts
        self._process: asyncio.subprocess.Process | None = None
        self._is_closing = False
        self._is_drained = self._has_asked = False
        self._redelivered = self._reconnects = 0  # of this reader
        self._redelivered_before = self._reconnects_before = 0
        self._is_reading = asyncio.Event()

    async def start(self) -> None:
        await self._launch()
        logs.log_result(f"the reader is process {self._pid}")
        self.ended = asyncio.ensure_future(self._keep_running())
        started = asyncio.ensure_future(self._is_reading.wait())
        await asyncio.wait((self.ended, started), return_when=asyncio.FIRST_COMPLETED)
        if self.ended.done():
            started.cancel()
            self.ended.result()

    @property
    def redelivered(self) -> int:
        return self._redelivered_before + self._redelivered

    @property
    def reconnects(self) -> int:
        return self._reconnects_before + self._reconnects

    async def is_drained(self) -> bool:
        """As of its last answer. The first call asks."""
        if not self._has_asked:
            self._has_asked = True
            self._ask()
        return self._is_drained

    async def close(self) -> None:
        self._is_closing = True
        process = self._process
        if process is not None and process.returncode is None:
            self._end_input()
            try:
                async with asyncio.timeout(END_TIMEOUT):
                    await process.wait()
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
        await asyncio.wait((self.ended,))

    @property
    def _pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def _launch(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            *self._command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            limit=1 << 22, start_new_session=True,  # Ctrl-C is for the process that publishes
        )  # fmt: skip
        if self._is_closing:  # `close` was called meanwhile, and has not seen this process
            self._end_input()
        elif self._has_asked:
            self._ask()

    def _end_input(self) -> None:
        """Let the reader end in order."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()

    def _ask(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.write(_ASK)

    async def _keep_running(self) -> None:
        failures = 0
        while True:
            assert self._process is not None
            assert self._process.stdout is not None
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                while True:
                    await self._take_frame(self._process.stdout)
                    failures = 0
            status = await self._process.wait()
            self._is_drained = False
            if self._is_closing:
                return
            if not self._is_reading.is_set():
                raise StartError("the reader could not start")
            self._redelivered_before, self._redelivered = self.redelivered, 0
            self._reconnects_before, self._reconnects = self.reconnects, 0
            failures += 1
            before, how = self._pid, f"by signal {-status}" if status < 0 else f"with status {status}"
            await asyncio.sleep(next_delay(failures))
            if self._is_closing:
                return
            await self._launch()
            self.restarts += 1
            logs.log(logging.WARNING, f"the reader, process {before}, was ended {how}; it is process {self._pid} now")

    async def _take_frame(self, stream: asyncio.StreamReader) -> None:
        header = _HEADER.unpack(await stream.readexactly(_HEADER.size))
        count, pairs, probes, foreign, corrupted, self._redelivered, self._reconnects, timeout, drained = header
        values = array("Q", await stream.readexactly(8 * (count + 2 * pairs + probes)))
        latencies = values[count : count + 2 * pairs]
        self._counts.add(
            values[:count], zip(latencies[::2], latencies[1::2], strict=True), values[count + 2 * pairs :],
            foreign, corrupted,
        )  # fmt: skip
        self.message_timeout = None if timeout != timeout else timeout
        self._is_drained = drained
        self._is_reading.set()
