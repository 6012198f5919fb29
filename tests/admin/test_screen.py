"""The screen of q-admin top, without a terminal: what keys do, and what is drawn."""

from __future__ import annotations

import pytest

from qtools.admin.keyboard import keys_in
from qtools.admin.rates import Rates
from qtools.admin.rows import with_sums
from qtools.admin.top_screen import HELP, Screen
from qtools.names import Subscription
from tests.admin.test_rows import channel, topic


def screen(count: int = 3) -> Screen:
    rows = with_sums([topic(f"t{nth:02}", channel("x", nth), channel("y", 1)) for nth in range(count)])
    Rates().add(rows, 1.0)
    return Screen(rows=rows, plain=True)


def press(where: Screen, *keys: str) -> str:
    return [where.press(key) for key in keys][-1]


def test_moving_and_drilling_down() -> None:
    at = screen()
    assert at.current() == Subscription("t00", "")
    press(at, "down", "j", "down")
    assert at.current() == Subscription("t02", "")
    press(at, "up", "enter")
    assert at.topic == "t01"
    press(at, "k", "down")
    assert at.current() == Subscription("t01", "y")
    press(at, "escape")
    assert at.topic == ""


def test_sorting_and_filtering() -> None:
    at = screen()
    press(at, "s")
    assert (at.sort, at.current()) == ("depth", Subscription("t02", ""))
    press(at, "/", "0", "1")
    assert at.lines(80, 10, "title")[-1] == "/01_"
    press(at, "enter")
    assert [row["topic"] for row in at.visible_rows()] == ["t01"]
    press(at, "/", "t", "*", "2", "enter")
    assert [row["topic"] for row in at.visible_rows()] == ["t02"]
    press(at, "/", "z", "enter")
    assert at.current() is None
    assert at.lines(80, 10, "title")[2] == "no topic matches"
    press(at, "escape")
    assert len(at.visible_rows()) == 3


def test_a_question_before_a_pause() -> None:
    at = screen()
    assert press(at, "enter", "p") == ""
    assert at.asked == Subscription("t00", "x")
    assert at.lines(80, 10, "")[-1].startswith("pause t00/x? y")
    assert press(at, "n") == ""
    assert at.asked is None
    assert press(at, "p", "y") == "pause"


def test_a_look_needs_a_channel() -> None:
    at = screen()
    assert press(at, "v") == ""
    assert "choose a channel" in at.note
    assert press(at, "enter", "v") == "look"
    at.messages = ["first", "evil\x1b[2J", "x" * 200]
    assert at.lines(20, 10, "")[2:5] == ["first", "evil?[2J", "x" * 20]
    assert press(at, "q") == ""
    assert at.messages is None
    assert press(at, "q") == "quit"


@pytest.mark.parametrize(("width", "height"), [(80, 24), (40, 8), (20, 4), (10, 2)])
def test_it_fits(width: int, height: int) -> None:
    at = screen(100)
    press(at, *["down"] * 60)
    lines = at.lines(width, height, "title " * 20)
    assert len(lines) <= height
    assert any("> t60"[:width] in line for line in lines)
    assert max(map(len, lines)) <= width


def test_colours_and_none() -> None:
    at = screen()
    plain = "\n".join(at.lines(80, 10, ""))
    assert plain.isascii()
    assert "\n> t00 " in plain
    assert "\n  t01 " in plain
    at.plain = False
    assert "\x1b[7mt00" in "\n".join(at.lines(80, 10, ""))
    assert at.lines(100, 10, "")[-1] == HELP


@pytest.mark.parametrize(
    ("data", "keys"),
    [
        (b"aZ/ ", ["a", "Z", "/", " "]),
        (b"\x1b[A\x1b[B\x1bOA\r", ["up", "down", "up", "enter"]),
        (b"\x1b", ["escape"]),
        (b"\x7f\x08", ["backspace", "backspace"]),
        (b"\x1b[5~q", ["q"]),
        (b"\x1b[1;5Cq", ["q"]),
        (b"\x1b[", []),
        ("ü€".encode(), ["ü", "€"]),
        (b"\xff\x01q", ["q"]),
    ],
)
def test_keys(data: bytes, keys: list[str]) -> None:
    assert list(keys_in(data)) == keys
