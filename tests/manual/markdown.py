"""README.md and the pages of docs/, as the tests read them. In: their names. Out: their code blocks and tables."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = {path.stem: path for path in sorted((ROOT / "docs").rglob("*.md"))} | {"README": ROOT / "README.md"}


def text(page: str) -> str:
    return PAGES[page].read_text(encoding="utf-8")


def blocks(page: str, language: str) -> list[str]:
    """The code blocks of a page in `language`."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text(page), re.MULTILINE | re.DOTALL)


def steps(page: str) -> list[tuple[str, str]]:
    """(command, what it prints) of all console blocks of a page."""
    parts = [part for block in blocks(page, "console") for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]]
    return [(command, printed) for command, _, printed in (part.partition("\n") for part in parts)]


def flags_in(words: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", words))


def tabled_flags(markdown: str) -> set[str]:
    """The flags that a table explains: those in the first cell of its rows."""
    return set().union(*(flags_in(line.split(" | ")[0]) for line in markdown.splitlines() if line.startswith("| `-")))
