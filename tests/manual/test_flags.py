"""The tables of options and `--help` say the same: no flag is missing in either."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from manual.markdown import flags_in, tabled_flags, text

# What is run, and the page with its table, or the part of the page from a heading to the next.
COMMANDS = {
    "qtools.pipe": ("q-pipe", ""),
    "qtools.tail": ("q-tail", ""),
    "qtools.bridge": ("q-bridge", ""),
    "qtools.to_file": ("q-to-file", "Options"),
    "qtools.to_file verify": ("q-to-file", "q-to-file verify"),
    "qtools.to_file replay": ("q-to-file", "q-to-file replay"),
    "qtools.broker": ("q-broker", ""),
    "qtools.pubsub_http": ("q-pubsub-http", ""),
}
SHARED = tabled_flags(text("options"))


def flags_of(module: str) -> set[str]:
    """The flags of a command, "qtools.tail", or of one within a command, "qtools.to_file verify"."""
    printed = subprocess.run(
        [sys.executable, "-m", *module.split(), "--help"], capture_output=True, text=True, check=True
    ).stdout
    # A definition begins in the third column, its explanation further to the right.
    definitions = re.findall(r"^  (-.*?)(?:\s{2,}.*)?$", printed.partition("Options:")[2], re.MULTILINE)
    return set().union(*map(flags_in, definitions))


def explained(module: str) -> set[str]:
    page, heading = COMMANDS[module]
    markdown = text(page)
    if heading:
        markdown = re.split(r"^## ", markdown.partition(f"\n## {heading}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    return tabled_flags(markdown)


@pytest.mark.parametrize("module", COMMANDS)
def test_every_flag_is_explained(module: str) -> None:
    flags = flags_of(module)
    assert len(flags) > 8
    # q-broker shares only the two that every command has.
    shared = SHARED if module != "qtools.broker" else {"--version", "--help"}
    assert flags - explained(module) - shared == set()


@pytest.mark.parametrize("module", COMMANDS)
def test_no_flag_is_explained_that_does_not_exist(module: str) -> None:
    more = {"--force"} if module == "qtools.broker" else set()  # of `q-broker stop`
    assert explained(module) - flags_of(module) == more


def test_shared_flags_are_shared() -> None:
    shared_by_all = set.intersection(*(flags_of(f"qtools.{name}") for name in ("pipe", "tail", "bridge", "to_file")))
    assert len(SHARED) > 20
    assert shared_by_all >= SHARED
