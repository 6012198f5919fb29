"""What q-admin top shows, and what keys do to it. In: rows, keys. Out: lines of text, and what is to be done.

topics ─▶ enter ─▶ channels of a topic ─▶ v ─▶ messages that wait in a channel       escape leads back
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from qtools.admin.rates import shown_rate, sparkline
from qtools.admin.rows import Row, left_in, sorted_rows
from qtools.admin.tables import Cell, printable, table
from qtools.names import Subscription

SORTS = ("name", "depth", "in-flight", "rate")
HELP = "↑↓ select  enter channels  v look  p pause  s sort  / filter  space stop  q quit"
REVERSED, RESET = "\x1b[7m", "\x1b[0m"


@dataclass(slots=True)
class Screen:
    """topic: whose channels are shown, "" for the topics. selected: the index of a line. filter: part of a name, or a
    pattern with * and ?. typing: the filter is being typed. messages: bodies that are shown instead. note: a line for
    what has happened. asked: what the next key confirms."""

    sort: str = "name"
    topic: str = ""
    selected: int = 0
    filter: str = ""
    typing: bool = False
    is_frozen: bool = False
    messages: list[str] | None = None
    note: str = ""
    asked: Subscription | None = None
    rows: list[Row] = field(default_factory=list)
    plain: bool = False  # ASCII, and no colours

    # ── what is there ──

    def visible_rows(self) -> list[Row]:
        """The topics, or the channels, that pass the filter, sorted."""
        if self.topic:
            found: list[Row] = next((row["channels"] for row in self.rows if row["topic"] == self.topic), [])
            return sorted_rows(found, self.sort)
        return sorted_rows([row for row in self.rows if self._passes(row["topic"])], self.sort)

    def _passes(self, name: str) -> bool:
        pattern = self.filter if set(self.filter) & set("*?[") else f"*{self.filter}*"
        return fnmatchcase(name, pattern)

    def current(self) -> Subscription | None:
        """The topic, or the channel, that is selected."""
        rows = self.visible_rows()
        if not rows:
            return None
        row = rows[min(self.selected, len(rows) - 1)]
        return Subscription(self.topic, row["channel"]) if self.topic else Subscription(row["topic"], "")

    # ── keys ──

    def press(self, key: str) -> str:
        """Note a key; return what is to be done: "quit", "look", "pause", or "" for nothing."""
        self.note = ""
        if self.typing:
            self._type(key)
            return ""
        if self.asked is not None:
            return self._answer(key)
        if self.messages is not None:
            if key in ("escape", "backspace", "q", "v", "h"):
                self.messages = None
            return ""
        if key == "q":
            return "quit"
        return self._navigate(key)

    def _navigate(self, key: str) -> str:
        last = max(0, len(self.visible_rows()) - 1)
        if key in ("down", "j"):
            self.selected = min(last, self.selected + 1)
        elif key in ("up", "k"):
            self.selected = max(0, min(last, self.selected) - 1)
        elif key in ("enter", "l") and not self.topic and (chosen := self.current()) is not None:
            self.topic, self.selected = chosen.topic, 0
        elif key in ("escape", "backspace", "h"):
            if self.topic:
                self.topic, self.selected = "", 0
            else:
                self.filter = ""
        elif key == "s":
            self.sort = SORTS[(SORTS.index(self.sort) + 1) % len(SORTS)]
        elif key == "/" and not self.topic:
            self.typing, self.filter, self.selected = True, "", 0
        elif key == " ":
            self.is_frozen = not self.is_frozen
        elif key == "v":
            return "look" if self._has_channel("look into") else ""
        elif key == "p" and (chosen := self.current()) is not None:
            self.asked = chosen
        return ""

    def _has_channel(self, doing: str) -> bool:
        if self.topic:
            return self.current() is not None
        self.note = f"choose a channel to {doing}: enter shows the channels of a topic"
        return False

    def _type(self, key: str) -> None:
        if key in ("enter", "escape"):
            self.typing = False
            self.filter = self.filter if key == "enter" else ""
        elif key == "backspace":
            self.filter = self.filter[:-1]
        elif len(key) == 1:
            self.filter += key

    def _answer(self, key: str) -> str:
        if key == "y":
            return "pause"
        self.asked, self.note = None, "nothing was changed"
        return ""

    def is_paused(self, name: Subscription) -> bool:
        """Whether a topic or a channel is paused, by the last statistics."""
        for row in self.rows:
            if row["topic"] == name.topic:
                each = [row] if not name.channel else row["channels"]
                return any(found["paused"] for found in each if not name.channel or found["channel"] == name.channel)
        return False

    # ── lines ──

    def lines(self, width: int, height: int, title: str) -> list[str]:
        """The screen: at most `height` lines of at most `width` characters, besides what a terminal interprets."""
        head = [self._cut(title, width), ""] if height >= 6 else []
        foot = [self._cut(self._foot(), width)] if height >= 3 else []
        room = max(2, height - len(head) - len(foot))
        if self.messages is not None:
            body = [self._cut(line, width) for line in self.messages[:room]]
        else:
            body = self._table(width, room)
        return [*head, *body, *[""] * (room - len(body)), *foot]

    def _foot(self) -> str:
        if self.typing:
            return f"/{self.filter}_"
        if self.asked is not None:
            name = f"{self.asked.topic}/{self.asked.channel}" if self.asked.channel else self.asked.topic
            return f"{'resume' if self.is_paused(self.asked) else 'pause'} {name}? y, or another key for no"
        if self.note:
            return self.note
        return HELP.replace("↑↓", "jk") if self.plain else HELP

    def _table(self, width: int, room: int) -> list[str]:
        rows = self.visible_rows()
        if not rows:
            return [f"{self.topic} has no channels" if self.topic else "no topic" + (" matches" if self.filter else "")]
        self.selected = min(self.selected, len(rows) - 1)
        first = max(0, min(self.selected - (room - 1) // 2, len(rows) - (room - 1)))
        shown = rows[first : first + room - 1]
        cells = [self._channel_cells(row) if self.topic else self._topic_cells(row) for row in shown]
        head = ("CHANNEL" if self.topic else "TOPIC", "LEFT", "IN FLIGHT", "CLIENTS", "RATE", "", "")
        marks = 2 if self.plain else 0
        lines = [" " * marks + line for line in table(head, cells, width - marks)]
        lines = [self._cut(line, width) for line in lines]
        place = self.selected - first + 1
        if self.plain:
            lines[place] = self._cut("> " + lines[place][2:], width)
        else:
            lines[place] = f"{REVERSED}{lines[place].ljust(width)}{RESET}"
        return lines

    def _topic_cells(self, row: Row) -> Sequence[Cell]:
        return self._cells(row["topic"], row, row["waiting"])

    def _channel_cells(self, row: Row) -> Sequence[Cell]:
        return self._cells(row["channel"], row, left_in(row))

    def _cells(self, name: str, row: Row, left: int | None) -> Sequence[Cell]:
        line = sparkline(row["history"], plain=self.plain)
        paused = "paused" if row["paused"] else ""
        return name, left, row["in_flight"], row["clients"], shown_rate(row["rate"]), paused, line

    def _cut(self, line: str, width: int) -> str:
        return printable(line)[:width]
