"""The progress line on a terminal, and the summary at the end. In: a function that returns counts. Out: text on stderr.

A timer draws the line, five times a second at most, so that the work is not slowed down. It is drawn only if stderr is
a terminal.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable

from qtools.cli import logs
from qtools.cli.types import format_size, plural

REDRAW_SECONDS = 0.2


class ProgressLine:
    """Shows `counts()`, which returns (messages, bytes), during a run. verb: what the run does with messages, such as
    "sent". show: whether to draw the line, if stderr is a terminal. more: returns what to add to the line."""

    def __init__(
        self,
        verb: str,
        counts: Callable[[], tuple[int, int]],
        *,
        show: bool,
        more: Callable[[], str] | None = None,
    ) -> None:
        self._verb = verb
        self._more = more
        self._counts = counts
        self._begun = time.monotonic()
        self._last = (self._begun, 0)
        self._drawn = False
        self._timer: asyncio.TimerHandle | None = None
        if show and sys.stderr.isatty() and not logs.is_json():
            logs.set_line_clearer(self.clear)
            self._timer = asyncio.get_running_loop().call_later(REDRAW_SECONDS, self._draw)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._begun

    def clear(self) -> None:
        """Clear the line, so that other text can be written."""
        if self._drawn:
            self._drawn = False
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self.clear()

    def summary(self, messages: int, size: int) -> str:
        """Such as `1,204 messages (2.3 MB) in 0.5 s, 2,408/s`. size: bytes."""
        seconds = self.seconds
        rate = f", {messages / seconds:,.0f}/s" if messages > 1 and seconds > 0.01 else ""
        return f"{plural(messages, 'message')} ({format_size(size)}) in {seconds:.1f} s{rate}"

    def _draw(self) -> None:
        messages, size = self._counts()
        now = time.monotonic()
        before, count = self._last
        rate = (messages - count) / max(now - before, 1e-9)
        if now - before >= 1.0:
            self._last = (now, messages)
        line = f"{plural(messages, 'message')} {self._verb}  {format_size(size)}  {rate:,.0f}/s"
        if self._more is not None:
            line += f"  {self._more()}"
        try:
            sys.stderr.write("\r\x1b[K" + line[: os.get_terminal_size(sys.stderr.fileno()).columns - 1])
            sys.stderr.flush()
            self._drawn = True
        except OSError:
            return
        self._timer = asyncio.get_running_loop().call_later(REDRAW_SECONDS, self._draw)
