"""One run of q-admin top. In: an engine. Out: a screen that is drawn again and again, or one table.

every interval: statistics ─▶ rates ─▶ draw          a key ─▶ the screen changes ─▶ draw
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Sequence

from qtools.admin.keyboard import Keyboard
from qtools.admin.listing import first_look, log_unanswered, unanswered
from qtools.admin.rates import Rates, shown_rate
from qtools.admin.rows import Row, chosen, sorted_rows, with_sums
from qtools.admin.tables import printable, table
from qtools.admin.top_screen import Screen
from qtools.cli.run import Signals
from qtools.cli.types import plural
from qtools.engines.administration import administered
from qtools.engines.capabilities import what_is_missing
from qtools.engines.contract import Engine, Statistics
from qtools.errors import QtoolsError
from qtools.names import Subscription

ENTER, LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"  # another screen, without a cursor
HOME, CLEAR_LINE, CLEAR_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"
LOOK_AT = 20  # messages


class Top:
    """patterns: of topics. interval: s between two looks. sort: one of SORTS. plain: ASCII, and no colours."""

    def __init__(self, engine: Engine, patterns: Sequence[str], *, interval: float, sort: str, plain: bool) -> None:
        self._engine = engine
        self._patterns = patterns
        self._interval = interval
        self._rates = Rates()
        self._screen = Screen(sort=sort, plain=plain)
        self._error = ""
        self._looked_at = 0.0
        self._changed: asyncio.Event = asyncio.Event()
        self._ends = False
        self._work: asyncio.Task[None] | None = None  # a look into a channel, or a pause

    async def once(self, *, as_json: bool) -> int:
        """Look twice, print what was found with rates, and return the exit status."""
        statistics = self._engine.statistics()
        try:
            self._take(await first_look(statistics))
            await asyncio.sleep(self._interval)
            rows = self._take(await statistics.topics())
            status = 0 if log_unanswered(statistics) else 1
        finally:
            await statistics.close()
        if as_json:
            for row in rows:
                for each in (row, *row["channels"]):
                    each["history"] = list(each["history"])
                print(json.dumps(row))
            return status
        head = ("TOPIC", "LEFT", "IN FLIGHT", "CLIENTS", "RATE", "")
        cells = [
            (
                row["topic"], row["waiting"], row["in_flight"], row["clients"], shown_rate(row["rate"]),
                "paused" if row["paused"] else "",
            )
            for row in rows
        ]  # fmt: skip
        for line in table(head, cells) if cells else ():
            print(line)
        return status

    async def run(self, signals: Signals) -> int:
        """Draw until a key or a signal ends it; return the exit status. Errors of the first look are raised."""
        statistics = self._engine.statistics()
        keyboard = Keyboard(sys.stdin.fileno(), self._press)
        has_entered = False
        try:
            self._screen.rows = self._take(await first_look(statistics))
            self._error = _first(unanswered(statistics))
            signals.on_stop(self._end)
            asyncio.get_running_loop().add_signal_handler(signal.SIGWINCH, self._changed.set)  # another size
            keyboard.start()
            os.write(1, ENTER.encode())
            has_entered = True
            while not self._ends:
                self._draw()
                await self._wait_for_change()
                if not self._screen.is_frozen and time.monotonic() - self._looked_at >= self._interval:
                    await self._look_again(statistics)
        finally:
            keyboard.close()
            if has_entered:
                os.write(1, LEAVE.encode())
            if self._work is not None:
                self._work.cancel()
                await asyncio.wait((self._work,))
            await statistics.close()
        return 0

    async def _wait_for_change(self) -> None:
        self._changed.clear()
        left = max(0.05, self._looked_at + self._interval - time.monotonic())
        try:
            async with asyncio.timeout(left):
                await self._changed.wait()
        except TimeoutError:
            pass

    def _take(self, found: list[Row]) -> list[Row]:
        """The rows to show, of all that were found."""
        rows = with_sums(chosen(found, self._patterns))
        self._looked_at = time.monotonic()
        self._rates.add(rows, self._looked_at)
        return sorted_rows(rows, self._screen.sort)

    async def _look_again(self, statistics: Statistics) -> None:
        try:
            self._screen.rows = self._take(await statistics.topics())
            self._error = _first(unanswered(statistics))
        except QtoolsError as error:
            self._looked_at = time.monotonic()
            self._error = str(error)

    def _end(self) -> None:
        self._ends = True
        self._changed.set()

    # ── keys ──

    def _press(self, key: str) -> None:
        todo = self._screen.press(key)
        if todo == "quit":
            self._end()
        elif todo and (name := self._screen.asked or self._screen.current()) is not None:
            self._screen.asked = None
            if self._work is not None and not self._work.done():
                self._screen.note = "the broker has not answered yet"
            else:
                self._work = asyncio.create_task(self._do(todo, name))
        self._changed.set()

    async def _do(self, todo: str, name: Subscription) -> None:
        """Look into a channel, or pause or resume it."""
        screen = self._screen
        capability = "peek" if todo == "look" else "pause"
        if missing := what_is_missing(self._engine.capabilities, capability):
            screen.note = missing
            self._changed.set()
            return
        try:
            if todo == "look":
                batches = await self._engine.peek(name, LOOK_AT)
                bodies = [body.decode("utf-8", "backslashreplace") for batch in batches for body in batch.bodies]
                title = f"{name}: the first {plural(len(bodies), 'message')}; escape leads back"
                screen.messages = [title, "", *bodies]
            else:
                pauses = not screen.is_paused(name)
                await administered(self._engine).pause(name.topic, name.channel, pauses)
                screen.note = "paused" if pauses else "resumed"
                self._looked_at = 0.0
        except QtoolsError as error:
            screen.note = str(error)
        self._changed.set()

    # ── drawing ──

    def _draw(self) -> None:
        width, height = shutil.get_terminal_size()
        screen = self._screen
        where = f"{screen.topic}: channels" if screen.topic else "topics"
        note = f"  {self._error}" if self._error else "  stopped" if screen.is_frozen else ""
        filtered = f"  /{screen.filter}" if screen.filter and not screen.topic else ""
        title = f"{printable(str(self._engine))}  {where} by {screen.sort}{filtered}{note}"
        lines = screen.lines(width, height, title)
        text = HOME + "\r\n".join(line + CLEAR_LINE for line in lines) + CLEAR_BELOW
        os.write(1, text.encode("utf-8", "replace"))


def _first(errors: Sequence[BaseException]) -> str:
    return str(errors[0]) if errors else ""
