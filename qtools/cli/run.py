"""A coroutine as a program: event loop, signals, exit status.

The first SIGINT or SIGTERM calls the function that the run has registered with `on_stop`, and the run stops in order.
A second signal that arrives later than ONE_SIGNAL_SECONDS after the first ends the process at once. One that arrives
sooner is the same request: `timeout` signals its child and then the whole process group, so that the child may receive
the signal twice within milliseconds. After SIGINT the process ends by that signal, whatever its exit status would be
(ending.py).
A server runs on uvloop if it is installed, which takes a third less time with many connections. For a command that
reads in batches it saves nothing measurable, and the import takes 8 ms.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, NoReturn

from qtools.cli import logs
from qtools.cli.ending import end_by_signal, note_interrupt
from qtools.errors import StartError

ONE_SIGNAL_SECONDS = 1.0  # the signals of `timeout` are milliseconds apart, and a user waits longer before the second


class Signals:
    """Calls the registered function at the first signal, and ends the process at the second.

    received: the first signal, or None. at_abrupt_end: a clause about messages in flight, which the log line about the
    second signal adds; or "".
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self.at_abrupt_end = ""
        self._received_at = 0.0
        self._on_stop: Callable[[], None] | None = None
        self._on_second: Callable[[], None] | None = None

    def on_stop(self, call: Callable[[], None]) -> None:
        """Register the function to call at the first signal. If the signal has arrived already, it is called at
        once."""
        self._on_stop = call
        if self.received is not None:
            call()

    def on_second(self, call: Callable[[], None]) -> None:
        """Register the function to call at the second signal, in place of ending the process; the third one ends it."""
        self._on_second = call

    def on_hangup(self, call: Callable[[], None]) -> None:
        """Register the function to call at each SIGHUP. Without a registration, SIGHUP ends the process."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, call)

    def handle(self, number: signal.Signals) -> None:
        if self.received is not None:
            if time.monotonic() - self._received_at < ONE_SIGNAL_SECONDS:
                return
            if self._on_second is None:
                self._end_now(number)
            self._received_at = time.monotonic()
            call, self._on_second = self._on_second, None
            call()
            return
        self.received = number
        self._received_at = time.monotonic()
        if number == signal.SIGINT:
            note_interrupt()
        if self._on_stop is not None:
            self._on_stop()

    def _end_now(self, number: signal.Signals) -> NoReturn:
        for each in STOPPING:  # if stderr is blocked, a third signal ends the process
            signal.signal(each, signal.SIG_DFL)
        logs.log(logging.ERROR, abrupt_end(number, self.at_abrupt_end))
        end_by_signal(number)


MESSAGES_COME_AGAIN = "messages that were in flight will be delivered again"


def abrupt_end(number: signal.Signals, about_messages: str) -> str:
    """The log line of an end by a second signal."""
    return f"ended at once by a second {number.name}" + (about_messages and f"; {about_messages}")


def status_of_run(fail_if_none: bool, count: int, verb: str, signals: Signals) -> int:
    """The exit status of a run that ended without an error: 1 if `fail_if_none`, `count` is 0, and no signal ended the
    run; else 0. verb: for the log line, such as "printed"."""
    if not fail_if_none or count or signals.received is not None:
        return 0
    logs.log(logging.ERROR, f"no message was {verb}")
    return 1


STOPPING = (signal.SIGINT, signal.SIGTERM)


def run_program(
    main: Callable[[Signals], Coroutine[Any, Any, int]],
    *,
    server: bool = False,
    stopping: Sequence[signal.Signals] = STOPPING,
) -> int:
    """Run `main` and return its exit status. QtoolsErrors propagate. stopping: the signals that stop the run."""
    _check_file_limit()
    # Batches are lists of small objects without cycles, so frequent garbage collection costs time and frees nothing.
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)

    signals = Signals()

    async def with_signals() -> int:
        loop = asyncio.get_running_loop()
        for number in stopping:
            loop.add_signal_handler(number, signals.handle, number)
        loop.set_exception_handler(_report)
        return await main(signals)

    try:
        with asyncio.Runner(loop_factory=_uvloop() if server else None) as runner:
            return runner.run(with_signals())
    finally:
        if signals.received is not None:  # the run is over, and a repeated signal must not change the exit status
            for number in stopping:
                signal.signal(number, signal.SIG_IGN)


# Three standard streams, three files of the event loop, a connection, a file, a directory, a module that is being
# imported; and six more.
LEAST_FILES = 16


def _check_file_limit() -> None:
    """StartError if the limit on open files (ulimit -n) is too low for any run."""
    import resource

    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= most < LEAST_FILES:
        raise StartError(f"this process may open only {most} files, and needs at least {LEAST_FILES}: see ulimit -n")


def _uvloop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def _report(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log an exception of a callback, which is a defect of qtools. The run goes on."""
    if not logs.is_set_up():
        logs.set_up("qtools")
    logs.log_defect(str(context.get("message")), context.get("exception"))
