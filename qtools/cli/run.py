"""A coroutine as a program: event loop, signals, exit status.

The first SIGINT or SIGTERM calls the function that the run has registered with `on_stop`, and the run stops in order.
The second signal ends the process at once. After SIGINT the process ends by that signal, whatever its exit status would
be (ending.py).
A server runs on uvloop if it is installed, which takes a third less time with many connections. For a command that
reads in batches it saves nothing measurable, and the import takes 8 ms.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from qtools.cli import logs
from qtools.cli.ending import end_by, note_interrupt
from qtools.errors import StartError


class Signals:
    """Calls the registered function at the first signal, and ends the process at the second."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._on_stop: Callable[[], None] | None = None

    def on_stop(self, call: Callable[[], None]) -> None:
        """Register what to call at the first signal; it is called at once if the signal has arrived already."""
        self._on_stop = call
        if self.received is not None:
            call()

    def on_hangup(self, call: Callable[[], None]) -> None:
        """Register what to call at each SIGHUP. Without a registration SIGHUP ends the process."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, call)

    def handle(self, number: signal.Signals) -> None:
        if self.received is not None:
            end_by(number)
        self.received = number
        if number == signal.SIGINT:
            note_interrupt()
        if self._on_stop is not None:
            self._on_stop()


def none_is_failure(asked: bool, count: int, done: str, signals: Signals) -> int:
    """The exit status of a run that ended in order: 1 if `count` is 0, no signal ended the run, and `asked` says that
    --fail-if-none was given. done: the verb for the log line, such as "printed"."""
    if not asked or count or signals.received is not None:
        return 0
    logs.say(logging.ERROR, f"no message was {done}")
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

    async def with_signals() -> int:
        signals = Signals()
        loop = asyncio.get_running_loop()
        for number in stopping:
            loop.add_signal_handler(number, signals.handle, number)
        loop.set_exception_handler(_report)
        return await main(signals)

    with asyncio.Runner(loop_factory=_uvloop() if server else None) as runner:
        return runner.run(with_signals())


# Three streams, three of the event loop, a connection, a file, a directory, a module that is imported; and some spare.
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
    """Log an exception that a callback raised, which is a defect of ours; the run goes on."""
    if not logs.is_set_up():
        logs.set_up("qtools")
    logs.defect(str(context.get("message")), context.get("exception"))
