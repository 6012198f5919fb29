"""The console scripts. In: the words of a command line. Out: the command's exit status.

A command's modules are imported here and not before, once Ctrl-C ends the process as the signal does: a command that
is interrupted while it is still being imported prints no traceback. A run installs its own handlers later.

Imports make many objects and no garbage. With Python's thresholds the garbage collector looks at all of them several
times during a start, which takes 7 ms of the 110 that a short command takes.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # signal itself makes enumerations, long enough to be interrupted
import gc
from importlib import import_module


def _run(module: str) -> None:
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    gc.set_threshold(50_000, 20, 100)  # as in a run, see cli/run.py
    import_module(module).main()


def admin() -> None:
    """q-admin."""
    _run("qtools.admin.command")


def bridge() -> None:
    """q-bridge."""
    _run("qtools.bridge.command")


def broker() -> None:
    """q-broker."""
    _run("qtools.broker.command")


def exec_() -> None:
    """q-exec."""
    _run("qtools.exec.command")


def pipe() -> None:
    """q-pipe."""
    _run("qtools.pipe.command")


def pubsub_http() -> None:
    """q-pubsub-http."""
    _run("qtools.pubsub_http.command")


def tail() -> None:
    """q-tail."""
    _run("qtools.tail.command")


def to_file() -> None:
    """q-to-file."""
    _run("qtools.to_file.command")


def qtools() -> None:
    """qtools."""
    _run("qtools.__main__")
