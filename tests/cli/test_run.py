"""A coroutine as a program: the first signal ends it in order, one that comes later than a second after it at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from qtools.cli.run import ONE_SIGNAL_SECONDS

TIMEOUT = 20

PROLOGUE = """
import asyncio, os, signal, sys
from qtools.cli.run import run_program

def say(word):
    print(word, flush=True)
"""


@contextmanager
def program(code: str, **environ: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", PROLOGUE + textwrap.dedent(code)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        env={**os.environ, **environ},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=TIMEOUT)


def wait_line(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == line + "\n"


STOPS = """
async def main(signals):
    stopped = asyncio.Event()
    signals.on_stop(stopped.set)
    say("ready")
    await stopped.wait()
    say("stopping")
    if len(sys.argv) == 1:
        say(signals.received.name)
        return 1
sys.exit(run_program(main))
"""

NEVER_STOPS = """
async def main(signals):
    signals.on_stop(lambda: say("stopping"))
    say("ready")
    try:
        await asyncio.sleep(1000)
    finally:
        say("in order")
sys.exit(run_program(main))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_stops_in_order(number: signal.Signals) -> None:
    with program(STOPS) as process:
        wait_line(process, "ready")
        process.send_signal(number)
        wait_line(process, "stopping")
        wait_line(process, number.name)
        assert process.wait(TIMEOUT) == 1  # how the process ends is up to Program
        assert process.stderr is not None
        assert process.stderr.read() == ""


@pytest.mark.parametrize(("first", "second"), [("SIGINT", "SIGINT"), ("SIGTERM", "SIGINT"), ("SIGINT", "SIGTERM")])
def test_the_second_signal_ends_at_once(first: str, second: str) -> None:
    with program(NEVER_STOPS) as process:
        wait_line(process, "ready")
        process.send_signal(signal.Signals[first])
        wait_line(process, "stopping")
        time.sleep(ONE_SIGNAL_SECONDS + 0.1)
        number = signal.Signals[second]
        process.send_signal(number)
        assert process.wait(TIMEOUT) == (-number if number == signal.SIGINT else 128 + number)
        assert process.stdout is not None
        assert process.stderr is not None
        assert (process.stdout.read(), process.stderr.read()) == ("", f"ended at once by a second {second}\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_two_signals_within_a_moment_are_one(number: signal.Signals) -> None:
    code = """
    async def main(signals):
        stopped = asyncio.Event()
        signals.on_stop(stopped.set)
        say("ready")
        await stopped.wait()
        say("stopping")
        await asyncio.sleep(0.5)
        say("in order")
        return 7
    sys.exit(run_program(main))
    """
    with program(code) as process:
        wait_line(process, "ready")
        process.send_signal(number)
        wait_line(process, "stopping")
        for _ in range(3):
            time.sleep(0.05)
            process.send_signal(number)
        wait_line(process, "in order")
        assert process.wait(TIMEOUT) == 7


def test_a_repeated_signal_after_the_run_does_not_change_the_status() -> None:
    code = """
    async def main(signals):
        os.kill(os.getpid(), signal.SIGTERM)
        while signals.received is None:
            await asyncio.sleep(0)
        return 7
    status = run_program(main)
    os.kill(os.getpid(), signal.SIGTERM)
    sys.exit(status)
    """
    with program(code) as process:
        assert process.wait(TIMEOUT) == 7


def test_a_signal_that_came_before_anybody_asked_is_told_when_somebody_does() -> None:
    code = """
    async def main(signals):
        os.kill(os.getpid(), signal.SIGTERM)
        while signals.received is None:
            await asyncio.sleep(0)
        signals.on_stop(lambda: say("stopping"))
        return 5
    sys.exit(run_program(main))
    """
    with program(code) as process:
        wait_line(process, "stopping")
        assert process.wait(TIMEOUT) == 5


def test_an_error_passes_through() -> None:
    code = """
    from qtools.errors import StartError
    async def main(signals):
        raise StartError("nobody is there")
    try:
        run_program(main)
    except StartError as error:
        say(error)
    """
    with program(code) as process:
        wait_line(process, "nobody is there")
        assert process.wait(TIMEOUT) == 0


DEFECT = """
async def main(signals):
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    loop.call_soon(lambda: 1 / 0)
    loop.call_soon(done.set_result, None)
    await done
    return 0
sys.exit(run_program(main))
"""


def test_a_defect_in_a_callback_is_one_line_and_its_traceback_where_it_is_asked_for() -> None:
    with program(DEFECT, QTOOLS_DEBUG="") as process:
        _, told = process.communicate(timeout=TIMEOUT)
        assert told.count("\n") == 1
        assert told.startswith("qtools: internal error: Exception in callback")
        assert "ZeroDivisionError" in told
        assert process.returncode == 0
    with program(DEFECT, QTOOLS_DEBUG="1") as process:
        _, told = process.communicate(timeout=TIMEOUT)
        assert "Traceback" in told
