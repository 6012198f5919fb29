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
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LAUNCH = Path(__file__).with_name("launch.py")
PATIENCE = 180.0  # seconds for one command: the slowest run here takes under ten


class BenchError(Exception):
    """The comparison cannot be made; str() is the line for the user."""


@dataclass(slots=True)
class Took:
    """What one run of a command took: seconds of the clock, seconds of CPU (user and system), bytes at its peak."""

    seconds: float
    cpu: float
    peak: int


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
    with contextlib.ExitStack() as opened:
        source = opened.enter_context(open(stdin or os.devnull, "rb"))
        sink = opened.enter_context(open(stdout, "wb"))
        talk = opened.enter_context(open(errors, "wb"))
        told, tell = os.pipe()
        report = opened.enter_context(open(told, "rb"))
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
            ended, _, _ = select.select([report], [], [], PATIENCE)
            took = json.loads(report.read() or b"{}") if ended else {}
        finally:
            end_group(process)
    name = Path(argv[0]).name
    if not ended:
        raise BenchError(f"{name} did not end within {PATIENCE:.0f} s: {' '.join(argv)}{last_line(errors)}")
    if took.get("status") != 0:
        raise BenchError(f"{name} failed with status {took.get('status')}: {' '.join(argv)}{last_line(errors)}")
    return Took(took["seconds"], took["cpu"], took["peak"])


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
