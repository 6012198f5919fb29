"""The line on a terminal that says what q-tail waits for. In: a source, an output. Out: text on stderr.

    waiting for orders/me at 10.0.0.5:4150; 1,204 messages, the last one 12s ago

It appears when nothing has come for a second, and is cleared before anything else is written.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time

from qtools.cli import logs
from qtools.cli.types import format_duration, plural
from qtools.engines.contract import Source
from qtools.tail.output import Output

INTERVAL = 1.0  # s between two looks
NOT_CONNECTED = "no broker is connected"


class WaitingLine:
    """For one run. where: what is read, and at which broker."""

    def __init__(self, source: Source, output: Output, where: str) -> None:
        self._source = source
        self._output = output
        self._where = where
        self._printed = -1  # messages, at the last look
        self._printed_at = 0.0
        self._drawn = False
        logs.set_line_clearer(self.clear)
        output.before_write = self.clear
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(INTERVAL, self._look)

    def clear(self) -> None:
        """Clear the line, so that other text can be written."""
        if self._drawn:
            self._drawn = False
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def close(self) -> None:
        self._timer.cancel()
        self.clear()

    def _look(self) -> None:
        printed = self._output.printed
        if printed != self._printed:
            self._printed, self._printed_at = printed, time.monotonic()
        elif not self._output.is_writing and not self._draw():
            return
        self._timer = self._loop.call_later(INTERVAL, self._look)

    def _draw(self) -> bool:
        """Draw the line. Returns False if stderr is no terminal any more: the line ends then."""
        ago = format_duration(round(time.monotonic() - self._printed_at + INTERVAL))
        line = f"waiting for {self._where}" if self._source.connected else f"{NOT_CONNECTED}; waiting for {self._where}"
        if self._printed:
            line += f"; {plural(self._printed, 'message')}, the last one {ago} ago"
        try:
            sys.stderr.write("\r\x1b[K" + line[: os.get_terminal_size(sys.stderr.fileno()).columns - 1])
            sys.stderr.flush()
        except OSError:
            return False
        self._drawn = True
        return True
