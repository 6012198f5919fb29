"""One run of qtools soak. In: options. Out: the result on stdout, and the exit status.

    connect ─▶ probe: publish until something arrives ─▶ publish and read ─▶ settle: read the rest ─▶ report ─▶ remove

A run whose probes do not arrive could not start: its losses would not say anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import time
from math import inf

from qtools.cli import logs
from qtools.cli.progress_line import ProgressLine
from qtools.cli.run import Signals
from qtools.engines.contract import NewTopics, Publisher, PublisherOptions, Source, SourceOptions
from qtools.errors import QtoolsError, StartError
from qtools.soak.bodies import PROBE, BodyChecker, BodyMaker
from qtools.soak.history import DeliveryHistory
from qtools.soak.options import SoakOptions
from qtools.soak.publishing import NumberedPublisher
from qtools.soak.reading import LocalReader, MessageReader, ReadCounts
from qtools.soak.removal import remove
from qtools.soak.report import SoakResult, as_json, as_text

PROBE_INTERVAL = 0.5  # s between two probes
START_TIMEOUT = 30.0  # s until the first probe has to arrive
LOOK_INTERVAL = 0.2  # s between two looks whether the end has been reached
UNKNOWN_TIMEOUT = 60.0  # s, the message timeout where the engine does not tell it
# s without an arrival while a program of the user's moves the messages: what was in flight to one that was killed is
# delivered again after its message timeout, of 60 s with nsqd.
MOVING_TIMEOUT = 90.0
NO_TIMEOUT = 10.0  # s without an arrival, where messages never time out
LONGEST_QUIET = 300.0  # s without an arrival after which the rest counts as lost, whatever the broker says


async def soak(options: SoakOptions, signals: Signals) -> int:
    """Run the test; return the exit status. UsageError, StartError before anything was published."""
    return await _Soak(options).run(signals)


async def read_separately(options: SoakOptions, signals: Signals) -> int:
    """Be the reader of a run with --separate-reader."""
    from qtools.soak.reader_process import read_for_parent

    return await read_for_parent(source_of(options), options, signals)


def source_of(options: SoakOptions) -> Source:
    """What the messages are read from."""
    keeps_old = options.to_engine.capabilities.retention and options.is_own_channel and not options.is_own_topic
    since = time.time() - START_TIMEOUT if keeps_old else None
    return options.to_engine.source(
        [options.subscription],
        SourceOptions(max_in_flight=options.max_in_flight, since=since, goes_on=True, warns=False),
    )


class _Soak:
    def __init__(self, options: SoakOptions) -> None:
        self.options = options
        self.history = DeliveryHistory(options.keys)
        self.maker = BodyMaker(options.run, options.size)
        # A topic that does not exist is made if it is this run's, or if that was asked for.
        new_topics = options.new_topics or (NewTopics() if options.is_own_topic else None)
        self.makes_topic = new_topics is not None
        self.publisher: Publisher = options.engine.publisher(
            PublisherOptions(new_topics=new_topics, new_topics_flag="--create-topics", topics=(options.topic,))
        )
        self.publishing = NumberedPublisher(self.publisher, self.maker, self.history, options)
        self.counts = ReadCounts(self.history, self._note_change)
        self.reader = self._make_reader()
        self.phase = "connecting"
        self.failure = ""
        self.stopped = asyncio.Event()  # by a signal
        self.waits_no_longer = asyncio.Event()  # by a signal after publishing has ended
        self.changed = asyncio.Event()  # something was read, or a signal has arrived

    def _make_reader(self) -> MessageReader:
        options = self.options
        if options.separate_reader:
            from qtools.soak.reader_process import ReaderProcess

            return ReaderProcess(options, sys.argv[1:], self.counts)
        checker = BodyChecker(options.run, is_own_topic=options.is_own_topic)
        return LocalReader(source_of(options), checker, self.counts)

    async def run(self, signals: Signals) -> int:
        options = self.options
        signals.on_stop(self._stop)
        signals.on_second(self._stop_waiting)
        meter = ProgressLine("confirmed", self._progress, show=options.show, more=self._more)
        result: SoakResult | None = None
        is_started = False
        try:
            await self.publisher.start()
            is_started = True
            result = await self._test()
        finally:
            meter.close()
            if result is not None:  # before anything else: a third signal ends the process
                sys.stdout.write(as_json(result) + "\n" if options.as_json else as_text(result))
                sys.stdout.flush()
            if is_started:
                await self.publisher.close()
                await remove(options, has_failed=result is not None and bool(result.faults()))
        if result is None:
            logs.log_result("ended before the test had begun")
            return 0
        return result.exit_status

    async def _test(self) -> SoakResult | None:
        """The phases; None if a signal has ended the run before the test began."""
        if self.makes_topic:  # some engines make a topic when it gets its first message
            await self._publish_probe(self.publisher, 0, may_be_refused=True)
            if self.stopped.is_set():
                return None
        await self.reader.start()
        self.reader.ended.add_done_callback(lambda _: self.changed.set())
        try:
            await self._probe()
            if self.stopped.is_set():
                return None
            begun = time.monotonic()
            await self._publish_and_read()
            await self._settle()
            await self.publishing.close()
        finally:
            await self.reader.close()
        return self._result(max(0.0, self.counts.arrived_at - begun))

    # ── signals ──

    def _stop(self) -> None:
        """The first signal: publish nothing more. While the rest is read, and before it begins, end."""
        if self.phase == "settling":
            self.waits_no_longer.set()
        self.stopped.set()
        self.publishing.stop()
        self.changed.set()

    def _stop_waiting(self) -> None:
        """The second signal: do not wait for the rest."""
        self.waits_no_longer.set()
        self.changed.set()

    # ── the phases ──

    async def _probe(self) -> None:
        """Publish probes until one has arrived from each broker that is published to. StartError if none arrives."""
        self.phase = "waiting for the first message"
        options, counts = self.options, self.counts
        publisher = self.publisher
        needed = 1
        if options.engine.capabilities.replication and publisher.connected > 1:
            publisher = options.engine.publisher(PublisherOptions(replicate=True))
            await publisher.start()
            needed = publisher.connected
        deadline = time.monotonic() + START_TIMEOUT
        number = 1
        try:
            while max(counts.probes.values(), default=0) < needed and not self.stopped.is_set():
                if self.reader.ended.done():
                    self.reader.ended.result()
                if time.monotonic() > deadline:
                    break
                await self._publish_probe(publisher, number)
                number += 1
                await self._wait_for_probe(needed)
        finally:
            if publisher is not self.publisher:
                await publisher.close()
        arrived = max(counts.probes.values(), default=0)
        if self.stopped.is_set() or arrived >= needed:
            return
        where = f"{options.subscription} of {options.to_engine}"
        if not arrived:
            mover = "; is the program running that moves the messages?" if options.moves else ""
            raise StartError(
                f"nothing that was published to {options.topic} of {options.engine} has arrived at {where} within"
                f" {START_TIMEOUT:.0f} s{mover}"
            )
        logs.log(
            logging.WARNING,
            f"a message to each of {needed} brokers has arrived {arrived} times at {where}: messages through the other"
            " brokers may count as lost",
        )

    async def _publish_probe(self, publisher: Publisher, number: int, *, may_be_refused: bool = False) -> None:
        """Publish the probe `number`; StartError. may_be_refused: as by engines that refuse what no channel takes."""
        body = self.maker.make(PROBE + number, 1, time.monotonic_ns())
        publishing = asyncio.ensure_future(publisher.publish([(self.options.topic, body)]))
        stopped = asyncio.ensure_future(self.stopped.wait())
        await asyncio.wait((publishing, stopped), timeout=START_TIMEOUT, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not publishing.done():
            publishing.cancel()
            if self.stopped.is_set():
                return
            where = f"{self.options.topic} of {self.options.engine}"
            raise StartError(f"{where}: a message was not confirmed within {START_TIMEOUT:.0f} s")
        try:
            refused = publishing.result()
        except QtoolsError as error:
            raise StartError(str(error)) from error
        if refused and not may_be_refused:
            raise StartError(f"a message of {self.options.size:,} bytes was refused: {next(iter(refused.values()))}")

    async def _wait_for_probe(self, needed: int) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PROBE_INTERVAL):
                while (
                    max(self.counts.probes.values(), default=0) < needed
                    and not self.stopped.is_set()
                    and not self.reader.ended.done()
                ):
                    await self._wait_for_change()

    async def _wait_for_change(self) -> None:
        self.changed.clear()
        await self.changed.wait()

    def _note_change(self) -> None:
        self.changed.set()
        self.publishing.notify()

    async def _publish_and_read(self) -> None:
        self.phase = "publishing"
        self.reader.ended.add_done_callback(lambda _: self.publishing.stop())
        await self.publishing.run()

    async def _settle(self) -> None:
        """Wait until every confirmed message was read, or the others count as lost."""
        self.phase = "settling"
        clock = asyncio.get_running_loop().time
        ended_at = clock()
        while not self.waits_no_longer.is_set() and not self.reader.ended.done():
            if not self.publishing.running and not self.history.unread and await self._has_no_more_duplicates():
                break
            quiet = clock() - max(ended_at, self.counts.arrived_at)
            if await self._is_over(quiet):
                break
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_INTERVAL):
                    await self._wait_for_change()
        if self.reader.ended.done() and (error := self.reader.ended.exception()) is not None:
            if not isinstance(error, QtoolsError):
                raise error
            self.failure = f"reading has ended: {error}"

    async def _has_no_more_duplicates(self) -> bool:
        """Whether all messages were delivered as often as they will be, if that is asked."""
        return not self.options.no_duplicates or await self.reader.is_drained()

    async def _is_over(self, quiet: float) -> bool:
        """Whether nothing more is expected, as no message has arrived for `quiet` s."""
        options = self.options
        if options.settle is not None:
            return quiet >= options.settle
        if quiet >= LONGEST_QUIET:
            return True
        timeout = self.reader.message_timeout or UNKNOWN_TIMEOUT
        if timeout == inf:
            timeout = NO_TIMEOUT
        if options.moves:  # what is left on the way cannot be known
            return quiet >= max(timeout, MOVING_TIMEOUT)
        return quiet >= timeout and not self.publishing.running and await self.reader.is_drained()

    # ── what is shown ──

    def _progress(self) -> tuple[int, int]:
        return self.history.confirmed, self.history.confirmed * self.options.size

    def _more(self) -> str:
        history = self.history
        parts = [f"{history.read:,} read", f"{history.unread:,} unread"]
        for count, what in (
            (history.doubled, "doubled"),
            (self.counts.corrupted, "corrupted"),
            ((self.publisher.reconnects or 0) + self.reader.reconnects, "reconnects"),
        ):
            if count:
                parts.append(f"{count:,} {what}")
        if self.phase == "settling":
            parts.append("waiting for the rest (Ctrl-C does not)")
        elif self.phase != "publishing":
            parts = [self.phase]
        return ", ".join(parts)

    def _result(self, seconds: float) -> SoakResult:
        publishing, reader = self.publishing, self.reader
        return SoakResult(
            self.options, self.history, publishing.latency, self.counts.latency, publishing.times.of,
            publish_seconds=publishing.seconds, seconds=seconds,
            foreign=self.counts.foreign, corrupted=self.counts.corrupted, refused=publishing.refused,
            resent=self.publisher.resent, redelivered=reader.redelivered,
            publisher_reconnects=self.publisher.reconnects or 0, reader_reconnects=reader.reconnects,
            reader_restarts=reader.restarts, failure=self.failure,
        )  # fmt: skip
