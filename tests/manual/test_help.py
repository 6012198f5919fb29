"""`qtools help` prints every page of the manual: plain into a pipe, through a pager on a terminal."""

from __future__ import annotations

import pytest
from harness.shell import Shell
from harness.terminal import Terminal

from manual.markdown import PAGES, tabled_flags, text
from qtools.manual.document import parse
from qtools.manual.text import page_text

NAMES = sorted(PAGES.keys() - {"README", "index"})


def test_it_lists_the_pages(shell: Shell) -> None:
    done = shell.run("qtools", "help")
    assert (done.status, done.err) == (0, "")
    lines = done.out.decode().splitlines()
    assert sorted(line.split()[0] for line in lines) == NAMES
    assert all(len(line.split()) > 3 for line in lines)


@pytest.mark.parametrize("asked", ["tail", "q-tail", "q-tail.md"])
def test_it_prints_a_page(shell: Shell, asked: str) -> None:
    done = shell.run("qtools", "help", asked)
    assert (done.status, done.err) == (0, "")
    assert done.out.startswith(b"q-tail: print the messages of topics to stdout\n\nSynopsis\n")
    assert b"\x1b" not in done.out


@pytest.mark.parametrize("name", NAMES)
def test_every_page_is_shown_whole_within_the_width(name: str) -> None:
    shown = page_text(parse(text(name)), 72, styled=False)
    assert "](" not in shown
    assert tabled_flags(text(name)) <= set(shown.replace(",", " ").replace("=", " ").split())
    too_long = [line for line in shown.splitlines() if len(line) > 72 and not line.startswith("    ")]
    assert too_long == []


def test_an_unknown_page_is_usage_and_guessed(shell: Shell) -> None:
    done = shell.run("qtools", "help", "expresions")
    assert (done.status, done.out) == (2, b"")
    assert "there is no page 'expresions': did you mean expressions?" in done.err


def test_help_of_qtools_mentions_it(shell: Shell) -> None:
    assert b"`qtools help`" in shell.run("qtools", "--help").out


def test_a_terminal_has_a_pager_and_bold_text(shell: Shell, terminal: Terminal) -> None:
    pager = {"PAGER": "sed s/^/paged:/", "TERM": "xterm"}
    done = shell.run("qtools", "help", "tail", stdin=terminal.fd, stdout=terminal.fd, environ=pager)
    assert (done.status, done.err) == (0, "")
    shown = terminal.all()
    assert shown.startswith(b"paged:\x1b[1mq-tail:\x1b[0m \x1b[1mprint")
    assert b"\npaged:\x1b[1mSynopsis\x1b[0m\n" in shown


def test_no_color_leaves_out_the_bold_text(shell: Shell, terminal: Terminal) -> None:
    plain = {"PAGER": "cat", "TERM": "xterm", "NO_COLOR": "1"}
    shell.run("qtools", "help", "tail", stdin=terminal.fd, stdout=terminal.fd, environ=plain)
    assert b"Synopsis" in terminal.shown
    assert b"\x1b" not in terminal.all()
