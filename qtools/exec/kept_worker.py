"""--keep: processes that run as long as q-exec, read messages on stdin, and answer each with a line on stdout.

    messages ─▶ stdin, in --format (lines, length32, envelope, msgpack)
    stdout ─▶ ok | requeue | requeue 5s | dead REASON | stop REASON      a line for each message, in their order

A worker that ends is started again. The message that it would have answered next is treated as one whose command has
failed, and those after it are given back. A worker that has ended MOST_ENDS times without any answer ends the run.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from asyncio.subprocess import PIPE
from collections import deque
from collections.abc import Callable, Sequence
from typing import cast

from qtools.cli import logs
from qtools.errors import CommandUnusable, QtoolsError, one_line
from qtools.exec.outcomes import DEAD_LETTER, FINISH, REQUEUE, Exit, Outcome, parse_answer
from qtools.exec.process import KILL_AFTER, find_program, signal_group
from qtools.exec.settling import Settling
from qtools.formats.encoders import make_format
from qtools.message import Batch

MOST_ENDS = 3  # in a row without an answer: a command that answers nothing would be started again for ever
READ_AFTER_END = 0.5  # s for which the pipe of a process that has ended is read
SILENCE = 10.0  # s without a first answer, after which the user is told what a worker has to do
LONGEST_ANSWER = 65_536  # bytes of a line on stdout


class KeptWorkers:
    """`count` workers, which share the messages.

    command: the program and its arguments. form, delimiter: of what they read. most: messages that may wait for an
    answer. timeout: s without an answer after which a worker is ended, 0 for never. settling: does with the messages
    what their answers say. bodies_for: a batch with the bodies that a worker gets. on_failure: called with the error
    that ends the run.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        count: int,
        form: str,
        delimiter: bytes,
        most: int,
        timeout: float,
        settling: Settling,
        bodies_for: Callable[[Batch], Batch],
        on_failure: Callable[[Exception], None],
    ) -> None:
        self.command = command
        self.path = find_program(command[0])
        self.timeout = timeout  # s
        self._join = make_format(form, delimiter).join
        self._bodies_for = bodies_for
        self._delimiter = delimiter if form == "raw" else b""
        self.settling = settling
        self.on_failure = on_failure
        self.started = 0
        self._most = most
        self._workers = [_Worker(self) for _ in range(count)]
        self._changed: asyncio.Future[None] | None = None
        self._is_closing = False

    @property
    def running(self) -> int:
        """Messages that wait for an answer."""
        return sum(worker.unanswered for worker in self._workers)

    @property
    def has_room(self) -> bool:
        return self.running < self._most and any(worker.takes_more for worker in self._workers)

    async def wait_for_change(self) -> None:
        """Return when an answer has come, a worker reads again, or `wake` was called."""
        self._changed = asyncio.get_running_loop().create_future()
        await self._changed

    def wake(self) -> None:
        """Let `wait_for_change` return."""
        if self._changed is not None and not self._changed.done():
            self._changed.set_result(None)

    async def send(self, batch: Batch) -> None:
        """Send `batch` to the workers, in as many parts. Messages whose body has the delimiter become dead letters.
        CommandUnusable."""
        takers = [worker for worker in self._workers if worker.takes_more]
        for worker in takers:
            if not worker.is_running:
                await worker.start()
                self.started += 1
        batch, shown = self._sendable(batch)
        share = -(-len(batch) // len(takers))
        for worker, start in zip(takers, range(0, len(batch), share or 1), strict=False):
            places = range(start, min(start + share, len(batch)))
            part = batch.pick(places)
            worker.send(part, self._join(part if shown is batch else shown.pick(places)))

    def _sendable(self, batch: Batch) -> tuple[Batch, Batch]:
        """The messages without the delimiter in their body, as they came, and as a worker reads them."""
        delimiter, shown = self._delimiter, self._bodies_for(batch)
        if not delimiter or not (bad := [place for place, body in enumerate(shown.bodies) if delimiter in body]):
            return batch, shown
        reason = "its body has the delimiter, which ends a message: use --format length32 or envelope"
        self.settling.settle(batch.pick(bad), Outcome(DEAD_LETTER, None, reason))
        return batch.without(bad), shown.without(bad)

    async def drain(self) -> None:
        """End the input of all workers, as nothing more will be sent, and return when all messages are answered."""
        for worker in self._workers:
            worker.end_input()
        while self.running:
            await self.wait_for_change()

    async def kill(self) -> list[Batch]:
        """End the workers; return the messages without an answer."""
        self._is_closing = True
        left = [batch for worker in self._workers for batch in worker.take_unanswered()]
        await self.close()
        return left

    async def close(self) -> None:
        """Close the workers' stdin, and end those that do not end by themselves then."""
        self._is_closing = True
        await asyncio.gather(*(worker.close() for worker in self._workers))

    def ended(self, worker: _Worker, end: Exit) -> None:
        """`worker` has ended: give back what it has not answered."""
        unanswered = worker.take_unanswered()
        if self._is_closing or not unanswered:
            pass
        elif worker.silent_ends >= MOST_ENDS:
            for batch in unanswered:
                self.settling.give_back(batch)
            text = f"{self.command[0]} has ended {MOST_ENDS} times without an answer (the last time: {end})"
            self.on_failure(
                QtoolsError(f"{text}; --keep needs a line on its stdout for each message: see q-exec --help")
            )
        else:
            first, rest = unanswered[0].split(1)
            self.settling.settle(first, Outcome(REQUEUE, None, f"the worker ended before it answered: {end}"))
            for batch in [rest, *unanswered[1:]]:
                if len(batch):
                    self.settling.give_back(batch)
        self.wake()


class _Worker(asyncio.SubprocessProtocol):
    """One process."""

    def __init__(self, workers: KeptWorkers) -> None:
        self.silent_ends = 0
        self._workers = workers
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.SubprocessTransport | None = None
        self._stdin: asyncio.WriteTransport | None = None
        self._sent: deque[Batch] = deque()  # without an answer, or with one for some of the first
        self._answered = 0  # of the first of them
        self._buffer = b""
        self._is_full = False  # it does not read what was written to it
        self._is_ending = False
        self._has_failed = False  # an answer was malformed, and the run ends
        self._has_answered = False
        self._open_pipes: set[int] = set()
        self._closed_pipe = ""  # "stdin" or "stdout", if the process has closed it and still runs
        self._silence: asyncio.TimerHandle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timed_out = False
        self._last_end = Exit(0)
        self._closed: asyncio.Future[None] | None = None

    # ── what KeptWorkers calls ──

    @property
    def is_running(self) -> bool:
        return self._transport is not None

    @property
    def takes_more(self) -> bool:
        return not self._is_full and not self._is_ending

    @property
    def unanswered(self) -> int:
        return sum(map(len, self._sent)) - self._answered

    async def start(self) -> None:
        """Start the process; CommandUnusable."""
        self._closed = self._loop.create_future()
        self._buffer = b""
        self._is_full = self._is_ending = self._has_answered = self._timed_out = False
        self._closed_pipe = ""
        self._open_pipes = {0, 1}
        try:
            await self._loop.subprocess_exec(
                lambda: self, self._workers.path, *self._workers.command[1:], stdin=PIPE, stdout=PIPE, stderr=None,
                process_group=0, restore_signals=True,
            )  # fmt: skip
        except OSError as error:
            raise CommandUnusable(self._workers.path, error.strerror or str(error), 126) from error

    def send(self, batch: Batch, data: bytes) -> None:
        """Write `data`, which is `batch` as the process reads it. One that ended while others were started has ended
        before it answered."""
        self._sent.append(batch)
        if self._stdin is None:
            self._workers.ended(self, self._last_end)
            return
        self._stdin.write(data)
        if self._timer is None:
            self._restart_timer()
        if self._silence is None and not self._has_answered:
            self._silence = self._loop.call_later(SILENCE, self._warn_of_silence)

    def take_unanswered(self) -> list[Batch]:
        """The messages without an answer, which are no longer this worker's."""
        sent, answered = list(self._sent), self._answered
        self._sent.clear()
        self._answered = 0
        if sent and answered:
            sent[0] = sent[0].split(answered)[1]
        return [batch for batch in sent if len(batch)]

    def end_input(self) -> None:
        """Let the process see the end of its input."""
        if self._stdin is not None:
            self._is_ending = True
            self._stdin.close()

    async def close(self) -> None:
        if self._transport is None or self._closed is None:
            return
        self._is_ending = True
        if self._stdin is not None:
            self._stdin.close()
        for number in (None, signal.SIGTERM, signal.SIGKILL):
            if number is not None and self._transport is not None:
                signal_group(self._transport.get_pid(), number)
            await asyncio.wait((self._closed,), timeout=KILL_AFTER)
            if self._closed.done():
                return

    # ── what asyncio calls ──

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.SubprocessTransport", transport)
        self._stdin = cast("asyncio.WriteTransport", self._transport.get_pipe_transport(0))

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        if lines and self._silence is not None:
            self._silence.cancel()
        self._has_answered = self._has_answered or bool(lines)
        count = 0  # of answers `ok` without another between them
        for line in lines:
            if line == b"ok":
                count += 1
                continue
            self._settle(count, None)
            count = 0
            if self._has_failed:
                return
            outcome = parse_answer(line)
            if outcome is None:
                self._fail(f"answered {one_line(line.decode('utf-8', 'replace'), 80)!r}")
                return
            self._settle(1, outcome)
        self._settle(count, None)
        if len(self._buffer) > LONGEST_ANSWER:
            self._fail(f"answered a line of more than {LONGEST_ANSWER:,} bytes")
        self._restart_timer()
        self._workers.wake()

    def pause_writing(self) -> None:
        self._is_full = True

    def resume_writing(self) -> None:
        self._is_full = False
        self._workers.wake()

    def process_exited(self) -> None:
        """The process has ended. What it has left in its pipe is read, and no more: a process that it has started may
        hold the pipe for ever."""
        self._is_ending = True
        self._loop.call_later(READ_AFTER_END, self._close_pipes, self._transport)

    def _close_pipes(self, transport: asyncio.SubprocessTransport | None) -> None:
        if transport is None or transport is not self._transport:
            return
        for number in list(self._open_pipes):
            pipe = transport.get_pipe_transport(number)
            if isinstance(pipe, asyncio.WriteTransport):
                pipe.abort()
            elif pipe is not None:
                pipe.close()

    def pipe_connection_lost(self, fd: int, error: Exception | None) -> None:
        """The process has closed its stdin or its stdout, or is about to end. If it stays, it is of no use."""
        self._open_pipes.discard(fd)
        if not self._is_ending:
            self._is_ending = True
            self._closed_pipe = "stdin" if fd == 0 else "stdout"
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_later(KILL_AFTER, self._time_out)

    def connection_lost(self, error: Exception | None) -> None:
        """The process has ended, and all that it has written was read."""
        transport, self._transport, self._stdin = self._transport, None, None
        status = transport.get_returncode() if transport is not None else None
        for timer in filter(None, (self._timer, self._silence)):
            timer.cancel()
        self._timer = self._silence = None
        self.silent_ends = 0 if self._has_answered else self.silent_ends + 1
        self._is_ending = False
        if self._closed is not None and not self._closed.done():
            self._closed.set_result(None)
        words = f"it had closed its {self._closed_pipe}" if self._closed_pipe and self._timed_out else ""
        self._last_end = Exit(status or 0, self._timed_out and not self._closed_pipe, words)
        self._workers.ended(self, self._last_end)

    # ── answers ──

    def _settle(self, count: int, outcome: Outcome | None) -> None:
        """The next `count` messages have the answer `outcome`; None is `ok`."""
        if not count:
            return
        if count > self.unanswered:
            self._fail("gave more answers than it was sent messages")
            return
        while count:
            batch = self._sent[0]
            stop = min(len(batch), self._answered + count)
            count -= stop - self._answered
            some = batch if stop - self._answered == len(batch) else batch.pick(range(self._answered, stop))
            self._answered = stop
            if stop == len(batch):
                self._sent.popleft()
                self._answered = 0
            self._workers.settling.settle(some, outcome or Outcome(FINISH))

    def _fail(self, what: str) -> None:
        """End the run: the worker does not answer as it should."""
        if not self._has_failed:
            self._is_ending = self._has_failed = True
            name = self._workers.command[0]
            self._workers.on_failure(
                QtoolsError(f"{name} {what}; answers are ok, requeue [DURATION], dead [REASON] and stop [REASON]")
            )
            for batch in self.take_unanswered():
                self._workers.settling.give_back(batch)
            if self._transport is not None:
                signal_group(self._transport.get_pid(), signal.SIGTERM)
            self._workers.wake()

    # ── --timeout ──

    def _restart_timer(self) -> None:
        if self._closed_pipe or self._timed_out:
            return  # what follows is its end
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._workers.timeout and self.unanswered:
            self._timer = self._loop.call_later(self._workers.timeout, self._time_out)

    def _warn_of_silence(self) -> None:
        if not self._has_answered and self.unanswered:
            logs.log(
                logging.WARNING,
                f"{self._workers.command[0]} has given no answer for {SILENCE:.0f} s: with --keep it has to write"
                " a line for each message to its stdout, and to flush it; --timeout ends a worker that stands still",
            )

    def _time_out(self) -> None:
        if self._transport is not None:
            self._is_ending = self._timed_out = True
            pid = self._transport.get_pid()
            signal_group(pid, signal.SIGTERM)
            self._timer = self._loop.call_later(KILL_AFTER, signal_group, pid, signal.SIGKILL)
