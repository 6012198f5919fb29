"""One run of q-exec: the source, the commands, and what becomes of each message. In: options. Out: the exit status."""

from __future__ import annotations

import asyncio
import logging
import os
import stat
import sys
from functools import partial
from typing import TYPE_CHECKING

from qtools.cli import logs
from qtools.cli.consume_run import RunWatch, notes_of_source
from qtools.cli.metrics.histogram import Histogram
from qtools.cli.metrics.operations import Operations
from qtools.cli.progress_line import ProgressLine
from qtools.cli.run import MESSAGES_COME_AGAIN, Signals, status_of_run
from qtools.cli.types import plural
from qtools.engines.contract import PublisherOptions, SourceOptions
from qtools.engines.requirements import require, require_for_end, require_for_publishing
from qtools.errors import SinkClosed
from qtools.exec.arguments import CommandArguments
from qtools.exec.dead_letters import LazyPublisher
from qtools.exec.dispatcher import Dispatcher, Runner
from qtools.exec.jobs import Jobs
from qtools.exec.kept_worker import KeptWorkers
from qtools.exec.options import ExecOptions
from qtools.exec.outcomes import DEAD_LETTER, Exit
from qtools.exec.output import CommandOutput
from qtools.exec.process import find_program
from qtools.exec.settling import Settling
from qtools.message import Batch
from qtools.routing.dead_letter_sink import DeadLetterSink, channels_of, dead_letter_topics

if TYPE_CHECKING:
    from qtools.cli.metrics.metrics_format import Family
    from qtools.exec.selection import Selection

STDOUT = 1
# --max-attempts where an unfinished message holds up the acknowledgement of all that follow it.
MAX_ATTEMPTS = 10


async def execute(options: ExecOptions, signals: Signals) -> int:
    """Run a command for each message until the run ends; return the exit status. UsageError, StartError,
    CommandUnusable before anything is read."""
    find_program(options.command[0])
    require_for_end(options.engine, options.ends)
    if options.since is not None:
        require(options.engine, "since", "--since")
    require_for_publishing(options.engine, None, options.new_topics)
    return await _Run(options).run(signals)


class _Run:
    def __init__(self, options: ExecOptions) -> None:
        self.options = options
        able = options.engine.capabilities
        max_attempts = options.max_attempts or (MAX_ATTEMPTS if able.cumulative else 0)
        topics = dead_letter_topics(options.sources, options.dead_letter_topic, able.longest_name)
        expects_letters = bool(max_attempts) or options.keeps or DEAD_LETTER in options.rules.actions
        self.latency = Histogram()
        publisher = options.engine.publisher(
            PublisherOptions(
                on_published=self.latency.observe,
                new_topics=options.new_topics,
                new_topics_flag="--create-topics",
                later_topics=tuple(dict.fromkeys(topics.values())) if expects_letters else (),
            )
        )
        self.publisher = LazyPublisher(publisher, starts_at_once=expects_letters)
        self.source = options.engine.source(
            options.sources,
            SourceOptions(
                max_in_flight=self._max_in_flight(),
                limit=options.count if options.where_rules is None else None,  # those that do not match do not count
                ends=options.ends,
                since=options.since,
                goes_on=True,
            ),
        )
        self.settling = Settling(
            DeadLetterSink(self.publisher, topics, options.sources),
            backoff=options.backoff,
            longest_backoff=options.longest_backoff,
            max_attempts=max_attempts,
            on_failure=self._fail,
        )
        self.selection: Selection | None = None
        if options.where_rules is not None:
            from qtools.exec.selection import Selection

            self.selection = Selection(
                options.where_rules, self.settling, on_error=options.on_error, limit=options.count
            )
        self.output: CommandOutput | None = None
        self.runner = self._workers() if options.keeps else self._jobs()
        self.dispatcher = Dispatcher(
            self.source,
            self.runner,
            self.settling,
            batch=0 if options.keeps else options.batch,
            batch_wait=options.batch_wait,
            drain_timeout=options.operations.drain_timeout,
            selection=self.selection,
        )

    def _max_in_flight(self) -> int:
        options = self.options
        if options.max_in_flight:
            return options.max_in_flight
        # Beside the messages that are worked on, as many wait here, so that a command does not wait for the network;
        # more would be kept from other consumers of the channel.
        return options.engine.capabilities.default_max_in_flight if options.keeps else 2 * options.jobs * options.batch

    def _jobs(self) -> Runner:
        options = self.options
        self.output = CommandOutput(tag=options.tag, group=options.group, on_closed=self._output_closed)
        arguments = CommandArguments(
            options.command,
            replace=options.replace,
            form=options.format,
            delimiter=options.delimiter,
            channels=channels_of(options.sources),
            bodies_for=self._bodies_for,
        )
        return Jobs(
            arguments,
            options.command[0],
            self.output,
            most=options.jobs,
            timeout=options.timeout,
            on_end=self._command_ended,
        )

    def _workers(self) -> Runner:
        options = self.options
        return KeptWorkers(
            options.command,
            count=options.jobs,
            form=options.format,
            delimiter=options.delimiter,
            most=self._max_in_flight(),
            timeout=options.timeout,
            settling=self.settling,
            bodies_for=self._bodies_for,
            on_failure=self._fail,
        )

    async def run(self, signals: Signals) -> int:
        options = self.options
        operations = Operations(options.operations, "q-exec", self._families, lambda: self._unready(signals))
        await self.source.prepare()
        await operations.start()
        meter: ProgressLine | None = None
        try:
            await self.publisher.start()
            await self.source.start()
            signals.at_abrupt_end = MESSAGES_COME_AGAIN
            signals.on_stop(self.dispatcher.stop)
            show = options.show and not os.isatty(STDOUT)
            meter = ProgressLine("done", lambda: (self.settling.counts.done, 0), show=show)
            await self._work()
        finally:
            await self.runner.close()
            if self.output is not None:
                await self.output.close()
            await self.settling.close()
            await self.source.close()
            await self.publisher.close()
            if meter is not None:
                meter.close()
                self._summarize(meter)
            await operations.close()
        return status_of_run(options.fail_if_none, self.settling.counts.done, "done", signals)

    async def _work(self) -> None:
        watch = RunWatch(self.source, self.options.sources)
        self._watch_stdout()
        try:
            await self.dispatcher.run()
            await watch.settle()
        except SinkClosed:
            pass  # the reader of stdout has gone, as `head` does
        finally:
            await watch.stop()
        watch.check()

    def _watch_stdout(self) -> None:
        """End the run when the reader of a pipe on stdout has closed it: each command would end by SIGPIPE."""
        if not self.options.keeps and stat.S_ISFIFO(os.fstat(STDOUT).st_mode):
            loop = asyncio.get_running_loop()

            def closed() -> None:
                loop.remove_reader(STDOUT)
                self._fail(SinkClosed("the reader of stdout has closed it"))

            loop.add_reader(STDOUT, closed)

    # ── what happens ──

    def _bodies_for(self, batch: Batch) -> Batch:
        """`batch` with the bodies that its command gets."""
        return batch if self.selection is None else self.selection.bodies_for(batch)

    def _command_ended(self, batch: Batch, end: Exit) -> None:
        self.settling.settle(batch, self.options.rules.outcome(end))

    def _fail(self, error: Exception) -> None:
        self.dispatcher.fail(error)

    def _output_closed(self, error: OSError) -> None:
        if isinstance(error, BrokenPipeError):
            self._fail(SinkClosed("the reader of stdout has closed it"))
        else:
            self._fail(error)

    # ── what is shown ──

    def _families(self) -> list[Family]:
        from qtools.cli.metrics.metric_sets import consumer_families, messages_by_outcome, publisher_families
        from qtools.cli.metrics.metrics_format import counter, gauge

        return [
            messages_by_outcome("q-exec", self._outcomes()),
            counter("qtools_exec_started_total", "Commands, or workers, that were started.", self.runner.started),
            gauge("qtools_exec_running", "Commands that run, or unanswered messages.", self.runner.running),
            *consumer_families("q-exec", self.source),
            *publisher_families("q-exec", [self.publisher.publisher], self.latency),
        ]

    def _outcomes(self) -> dict[str, int]:
        counts = self.settling.counts
        return {
            "done": counts.done,
            "requeued": counts.requeued,
            "dead-lettered": counts.dead_lettered,
            "filtered": counts.filtered,
            "left out": counts.dropped,
            "given back": counts.returned,
        }

    def _unready(self, signals: Signals) -> str:
        if signals.received is not None:
            return f"stopping after {signals.received.name}"
        return "" if self.source.connected else f"no {self.options.engine.capabilities.broker} is connected"

    def _summarize(self, meter: ProgressLine) -> None:
        outcomes = self._outcomes()
        count = sum(outcomes.values())
        shown = ", ".join(f"{number:,} {name}" for name, number in outcomes.items() if number or name == "done")
        notes = [f"{plural(count, 'message')} in {meter.seconds:.1f} s: {shown}"]
        notes += notes_of_source(self.source)
        # As with q-tail: a terminal that shows the commands' output needs no summary, unless something failed.
        is_shown = self.options.show and (count > outcomes["done"] or (sys.stderr.isatty() and not os.isatty(STDOUT)))
        say = logs.log_result if is_shown else partial(logs.log, logging.INFO)
        say("; ".join(notes))
