"""The commands that run now, one for each batch: started, ended after --timeout, waited for. In: batches. Out: how each
command ended.

    start ─▶ spawn ─▶ runs ─▶ SIGCHLD ─▶ exit status ─▶ output passed on ─▶ on_end(batch, Exit)
                        └─▶ --timeout ─▶ SIGTERM to its group ─▶ KILL_AFTER ─▶ SIGKILL
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from functools import partial

from qtools.exec.arguments import CommandArguments
from qtools.exec.outcomes import Exit
from qtools.exec.output import CommandOutput, JobOutput
from qtools.exec.process import KILL_AFTER, find_program, input_file, not_prepared, signal_group, spawn, status_of
from qtools.message import Batch

OnEnd = Callable[[Batch, Exit], None]


class _Job:
    """A command that runs. is_given_up: `kill` has returned its batch, so that its end says nothing any more."""

    __slots__ = ("batch", "is_given_up", "output", "timed_out", "timer")

    def __init__(self, batch: Batch, output: JobOutput) -> None:
        self.batch = batch
        self.output = output
        self.is_given_up = False
        self.timed_out = False
        self.timer: asyncio.TimerHandle | None = None


class Jobs:
    """Runs `arguments.command` for batches, at most `most` at once.

    timeout: s that a command may run, 0 for no limit. on_end: called with each batch and how its command ended.
    """

    def __init__(
        self,
        arguments: CommandArguments,
        program: str,
        output: CommandOutput,
        *,
        most: int,
        timeout: float,
        on_end: OnEnd,
    ) -> None:
        self.started = 0
        self._arguments = arguments
        self._path = find_program(program)
        self._output = output
        self._most = most
        self._timeout = timeout
        self._on_end = on_end
        self._running: dict[int, _Job] = {}  # by process id
        self._waiting: dict[_Job, Exit] = {}  # commands that have ended, and whose output is not passed on yet
        self._changed: asyncio.Future[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._loop.add_signal_handler(signal.SIGCHLD, self._reap)

    @property
    def running(self) -> int:
        """Commands that run, or whose output is still to be passed on."""
        return len(self._running) + len(self._waiting)

    @property
    def has_room(self) -> bool:
        return self.running < self._most

    async def wait_for_change(self) -> None:
        """Return when a command has ended, or `wake` was called."""
        self._changed = self._loop.create_future()
        await self._changed

    def wake(self) -> None:
        """Let `wait_for_change` return."""
        if self._changed is not None and not self._changed.done():
            self._changed.set_result(None)

    async def send(self, batch: Batch) -> None:
        """Start a command for `batch`.

        CommandUnusable if it cannot be run, MessageRefused if this batch cannot be its argument, Postponed if the
        system has no room for a process, its pipes and its files now.
        """
        try:
            self._start(batch)
        except OSError as error:
            raise not_prepared(self._path, error) from error

    def _start(self, batch: Batch) -> None:
        words, environment = self._arguments.arguments(batch), self._arguments.environment(batch)
        output = self._output.of_job(b"%s\t" % environment[b"Q_ID"])
        try:
            stdin = input_file(self._arguments.input(batch))
            try:
                pid = spawn(self._path, words, environment, {0: stdin, **output.descriptors})
            finally:
                os.close(stdin)
                output.started()
        except BaseException:
            output.abandon()
            raise
        self.started += 1
        job = self._running[pid] = _Job(batch, output)
        if self._timeout:
            job.timer = self._loop.call_later(self._timeout, self._time_out, pid, job)

    async def drain(self) -> None:
        """Return when no command runs."""
        while self.running:
            await self.wait_for_change()

    async def kill(self) -> list[Batch]:
        """End all commands, with their groups; return the batches of those that did not end by themselves."""
        left = []
        for pid, job in self._running.items():
            job.is_given_up = True
            left.append(job.batch)
            signal_group(pid, signal.SIGTERM)
        try:
            async with asyncio.timeout(KILL_AFTER):
                while self._running:
                    await self.wait_for_change()
        except TimeoutError:
            for pid in self._running:
                signal_group(pid, signal.SIGKILL)
            while self._running:
                await self.wait_for_change()
        # A command that has ended has done its work, though a reader of our output may not take what it has written.
        for job, end in list(self._waiting.items()):
            self._ended(job, end)
        return left

    async def close(self) -> None:
        self._loop.remove_signal_handler(signal.SIGCHLD)

    def _time_out(self, pid: int, job: _Job) -> None:
        job.timed_out = True
        signal_group(pid, signal.SIGTERM)
        job.timer = self._loop.call_later(KILL_AFTER, signal_group, pid, signal.SIGKILL)

    def _reap(self) -> None:
        for pid, job in list(self._running.items()):
            status = status_of(pid, kill_group=job.timed_out)
            if status is None:
                continue
            del self._running[pid]
            if job.timer is not None:
                job.timer.cancel()
            self._waiting[job] = Exit(status, job.timed_out)
            job.output.end(partial(self._written, job))
            self.wake()

    def _written(self, job: _Job, words: str) -> None:
        if (end := self._waiting.get(job)) is not None:
            self._ended(job, end._replace(last_words=words))

    def _ended(self, job: _Job, end: Exit) -> None:
        del self._waiting[job]
        if not job.is_given_up:
            self._on_end(job.batch, end)
        self.wake()
