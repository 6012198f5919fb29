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
    "qtools.exec": ("q-exec", ""),
    "qtools.broker": ("q-broker", ""),
    "qtools.pubsub_http": ("q-pubsub-http", ""),
    "qtools.soak": ("qtools-soak", ""),
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


def section(module: str) -> str:
    """The part of the documentation that has the table of a command."""
    page, heading = COMMANDS[module]
    markdown = text(page)
    if heading:
        return re.split(r"^## ", markdown.partition(f"\n## {heading}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    return markdown


def explained(module: str) -> set[str]:
    return tabled_flags(section(module))


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


# ── defaults ──

# Defaults in words, for which the tables have other words.
WORDS = frozenset({"none", "never", "any", "false", "snappy", "deflate", "statsd-mem-stats"})


def defaults_in_help(module: str) -> dict[str, str]:
    """flag → its default, where --help says `[default: …]` or `Default: ….`."""
    printed = subprocess.run(
        [sys.executable, "-m", *module.split(), "--help"], capture_output=True, text=True, check=True
    ).stdout
    options = printed.partition("Options:")[2].partition("Examples:")[0].partition("Commands:")[0]
    found = {}
    for entry in re.split(r"\n(?=  -)", options):
        told = re.search(r"\[default: ([^];]+)|Default: (.+?)\.(?: |$)", " ".join(entry.split()))
        definition = re.match(r"\s*(-.*?)(?:\s{2,}|\n)", entry + "\n")
        if told and definition:
            found |= dict.fromkeys(flags_in(definition[1]), (told[1] or told[2]).strip())
    return found


def defaults_in_table(markdown: str) -> dict[str, list[str]]:
    """flag → the words of the last cell of its row, in a table with the column "default"."""
    found: dict[str, list[str]] = {}
    for table in re.findall(r"^\|[^\n]* default \|\n\|[-|]+\n((?:\|.*\n?)+)", markdown, re.MULTILINE):
        for row in table.splitlines():
            cells = row.strip("| ").split(" | ")
            last = row.rstrip("| ").rpartition(" | ")[2] if not row.endswith("| |") else ""
            found |= dict.fromkeys(flags_in(cells[0]), re.findall(r"[^\s,;`]+", last))
    return found


@pytest.mark.parametrize("module", COMMANDS)
def test_defaults_are_those_of_help(module: str) -> None:
    shown = defaults_in_table(text("options")) | defaults_in_table(section(module))
    compared = 0
    for flag, default in defaults_in_help(module).items():
        # Names and numbers are compared, sentences are not.
        if re.fullmatch(r"[\w.:%/-]+", default) and default not in WORDS:
            wanted = default.replace("$", "")
            assert any(wanted in word for word in shown.get(flag, [])), f"{flag}: {default}, not {shown.get(flag)}"
            compared += 1
    assert compared >= (0 if module.endswith("verify") else 3)
