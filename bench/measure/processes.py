"""Run a command and get its time, CPU and memory. In: argv and files. Out: what it took, or BenchError.

Every process is started by `start`, which knows them all until they have ended, so that a signal at any moment
leaves none behind: one that comes while a process is being started waits until it is known.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

LAUNCH = Path(__file__).with_name("launch.py")
PATIENCE = 180.0  # seconds for one command: the slowest run here takes under ten
POLL = 0.005  # seconds between two looks at whether a command has done its work


class BenchError(Exception):
    """The comparison cannot be made; str() is the line for the user."""


class NotHere(BenchError):
    """A section cannot be measured, because what it needs is not on this machine."""


@dataclass(slots=True)
class Took:
    """What one run of a command took: seconds of the clock, seconds of CPU (user and system), bytes at its peak.

    syncs: how often it made durable what it had, where it says so.
    """

    seconds: float
    cpu: float
    peak: int
    syncs: int | None = None


_running: set[subprocess.Popen[bytes]] = set()
_starting = False
_interrupted = False


def interrupt(*_: object) -> None:
    """The handler of SIGINT and its like: KeyboardInterrupt, but not between a process's start and its being known."""
    global _interrupted
    if _starting:
        _interrupted = True
    else:
        raise KeyboardInterrupt


def start(argv: Sequence[str], **how: Any) -> subprocess.Popen[bytes]:
    """Start `argv` in a process group of its own, so that it and what it starts can be ended together."""
    global _starting
    _starting = True
    try:
        process = subprocess.Popen(argv, start_new_session=True, **how)
        _running.add(process)
    finally:
        _starting = False
    if _interrupted:
        raise KeyboardInterrupt
    return process


def run(argv: Sequence[str], stdin: Path | None, stdout: Path, errors: Path) -> Took:
    """Run `argv` to its end; BenchError when it fails or does not end."""
    return _run(argv, stdin, stdout, errors, None)


def run_until(argv: Sequence[str], done: Callable[[], bool], errors: Path) -> Took:
    """Run `argv`, which does not end by itself, until `done`, and end it in order. Its seconds are those until then."""
    return _run(argv, None, Path(os.devnull), errors, done)


def _run(argv: Sequence[str], stdin: Path | None, stdout: Path, errors: Path, done: Callable[[], bool] | None) -> Took:
    with contextlib.ExitStack() as opened:
        source = opened.enter_context(open(stdin or os.devnull, "rb"))
        sink = opened.enter_context(open(stdout, "wb"))
        talk = opened.enter_context(open(errors, "wb"))
        told, tell = os.pipe()
        report = opened.enter_context(open(told, "rb"))
        begin = time.perf_counter()
        try:
            process = start(
                [sys.executable, "-I", "-S", str(LAUNCH), str(tell), *argv],
                stdin=source,
                stdout=sink,
                stderr=talk,
                pass_fds=[tell],
            )
        finally:
            os.close(tell)
        try:
            if done is not None:
                while not done() and time.perf_counter() - begin < PATIENCE and not _readable(report, POLL):
                    pass
                seconds = time.perf_counter() - begin
                os.killpg(process.pid, signal.SIGTERM)
            ended = _readable(report, PATIENCE)
            took = json.loads(report.read() or b"{}") if ended else {}
        finally:
            end_group(process)
    name = Path(argv[0]).name
    if not ended:
        raise BenchError(f"{name} did not end within {PATIENCE:.0f} s: {' '.join(argv)}{last_line(errors)}")
    if took.get("status") != 0:
        raise BenchError(f"{name} failed with status {took.get('status')}: {' '.join(argv)}{last_line(errors)}")
    return Took(took["seconds"] if done is None else seconds, took["cpu"], took["peak"])


def _readable(report: IO[bytes], seconds: float) -> bool:
    return bool(select.select([report], [], [], seconds)[0])


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End what `start` started, and all in its group, at once."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    _running.discard(process)


def end_all() -> None:
    """End every process that still runs."""
    for process in list(_running):
        end_group(process)


def last_line(talk: Path) -> str:
    """The last thing a command said, to be put behind a sentence."""
    lines = talk.read_text(errors="replace").strip().splitlines()
    return f"\n  {lines[-1]}" if lines else ""
