"""The progress line, on a real terminal and only there."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import io
import logging
import os
import pty
import struct
import sys
import termios
from collections.abc import Iterator
from typing import TextIO

import pytest

from qtools.cli import logs
from qtools.cli.progress_line import ProgressLine


class Screen:
    """A terminal 40 columns wide, and what was drawn on it."""

    def __init__(self) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 10, 40, 0, 0))
        os.set_blocking(self._master, False)
        self.stream: TextIO = os.fdopen(slave, "w", buffering=1)
        self.drawn = ""

    def look(self) -> str:
        with contextlib.suppress(BlockingIOError):
            self.drawn += os.read(self._master, 65536).decode()
        return self.drawn

    async def wait(self, text: str) -> None:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(5):
            while text not in self.look():
                readable = loop.create_future()
                loop.add_reader(self._master, lambda: readable.done() or readable.set_result(None))  # noqa: B023
                await readable
                loop.remove_reader(self._master)

    def close(self) -> None:
        self.stream.close()
        os.close(self._master)


@contextlib.contextmanager
def screen() -> Iterator[Screen]:
    """stderr is a terminal."""
    made, before = Screen(), sys.stderr
    sys.stderr = made.stream
    try:
        yield made
    finally:
        sys.stderr = before
        made.close()


async def test_the_line_shows_what_was_done_and_goes_away() -> None:
    with screen() as shown:
        meter = ProgressLine("sent", lambda: (1204, 2_345_678), show=True)
        await shown.wait("1,204 messages sent  2.3 MB")
        meter.close()
        assert shown.look().endswith("\r\x1b[K")


async def test_the_line_is_no_longer_than_the_terminal_is_wide() -> None:
    with screen() as shown:
        meter = ProgressLine("sent with a long story behind it that goes on", lambda: (1, 1), show=True)
        await shown.wait("1 message sent")
        meter.close()
        lines = [line for line in shown.look().split("\r\x1b[K") if line]
        assert {len(line) for line in lines} == {39}


async def test_talk_goes_where_the_line_was() -> None:
    with screen() as shown:
        logs.set_up("q-test")
        meter = ProgressLine("sent", lambda: (1, 1), show=True)
        await shown.wait("1 message sent")
        logs.log(logging.WARNING, "hello")
        meter.close()
        await shown.wait("\r\x1b[Kq-test: hello")


@pytest.fixture
def redrawn_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qtools.cli.progress_line.REDRAW_SECONDS", 0.0)


async def a_redraw_later() -> None:
    """After a line that began earlier and is redrawn at once would have been drawn: timers run in their order."""
    later = asyncio.Event()
    asyncio.get_running_loop().call_later(0.001, later.set)
    await later.wait()


@pytest.mark.usefixtures("redrawn_at_once")
async def test_a_line_is_drawn_by_then() -> None:
    with screen() as shown:
        meter = ProgressLine("sent", lambda: (1, 1), show=True)
        await a_redraw_later()
        assert "1 message sent" in shown.look()
        meter.close()


@pytest.mark.usefixtures("redrawn_at_once")
async def test_nothing_is_drawn_where_it_is_not_wanted() -> None:
    with screen() as shown:
        meter = ProgressLine("sent", lambda: (1, 1), show=False)
        await a_redraw_later()
        meter.close()
        assert shown.look() == ""


@pytest.mark.usefixtures("redrawn_at_once")
async def test_nothing_is_drawn_where_every_line_is_json() -> None:
    with screen() as shown:
        logs.set_up("q-test", as_json=True)
        meter = ProgressLine("sent", lambda: (1, 1), show=True)
        await a_redraw_later()
        meter.close()
        logs.set_up("q-test")
        assert shown.look() == ""


@pytest.mark.usefixtures("redrawn_at_once")
async def test_nothing_is_drawn_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    meter = ProgressLine("sent", lambda: (1, 1), show=True)
    await a_redraw_later()
    meter.close()
    assert stream.getvalue() == ""


async def test_the_summary_has_a_rate_where_it_means_something(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    meter = ProgressLine("sent", lambda: (0, 0), show=False)
    assert meter.summary(1, 5) == "1 message (5 B) in 0.0 s"
    now[0] = 100.5
    assert meter.summary(1204, 2_345_678) == "1,204 messages (2.3 MB) in 0.5 s, 2,408/s"
    assert meter.summary(1, 5) == "1 message (5 B) in 0.5 s"
