"""A coroutine as a program: event loop, signals, exit status.

The first SIGINT or SIGTERM calls `stop` of what runs, which ends in order; the second ends the process at once. After
SIGINT the process ends by that signal, whatever its exit status would be (ending.py).
A server runs on uvloop where it is installed: many connections, a third less time. For a command with a batch a
read it saves nothing that can be measured, and takes 8 ms to import.
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
    """Turns the first signal into a call of `on_stop`, and the second into the end."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._on_stop: Callable[[], None] | None = None

    def on_stop(self, call: Callable[[], None]) -> None:
        """What to call at the first signal; at once, if it was here already."""
        self._on_stop = call
        if self.received is not None:
            call()

    def on_hangup(self, call: Callable[[], None]) -> None:
        """What to call at each SIGHUP from now on, which ends the process otherwise."""
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
    """The exit status of a run that ended in order; `asked`: by --fail-if-none. `done` is the verb, as "printed"."""
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
    """Run `main` until it returns its exit status. QtoolsErrors pass through. `stopping`: the signals that stop it."""
    _check_file_limit()
    # Batches are lists of small objects without cycles; collecting them by generation is all cost and no gain.
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


# Three streams, the event loop's three, a connection, a file and a directory, and the module that is imported next.
LEAST_FILES = 16


def _check_file_limit() -> None:
    """StartError where the system lets this process open too few files to do anything at all."""
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
    """A defect of ours in a callback: said, and the work goes on."""
    if not logs.is_set_up():
        logs.set_up("qtools")
    logs.defect(str(context.get("message")), context.get("exception"))
