"""Blocks → a man page. In: the blocks of a page. Out: roff with the macros of man(7), as man-db and mandoc read it.

The title of a page is "NAME: what it does", and becomes the section NAME. A row of a table becomes a tagged paragraph:
the first cell is the tag, and the headers of the further cells stand before them, except "meaning". Links become
the section SEE ALSO.
"""

from __future__ import annotations

import re
import textwrap

from qtools.manual.document import BlockElement, Bullets, Code, Heading, Paragraph, Spans, Table, TextSpan, links, plain
from qtools.manual.pages import cell_texts, see_also

_WIDTH = 76  # of the lines of the source; mandoc(1) asks for less than 80
_FONTS = {"code": r"\fB", "strong": r"\fB", "emphasis": r"\fI"}
# Characters that roff would replace by typographic ones, or has a name for that every device knows.
_NAMES = str.maketrans(
    {
        "\\": r"\e", "'": r"\(aq", "`": r"\(ga", "^": r"\(ha", "~": r"\(ti", "-": r"\-", "→": r"\(->", "←": r"\(<-",
        "–": r"\(en", "—": r"\(em", "…": "...", "×": r"\(mu", "µ": r"\(mc", "≥": r"\(>=", "≤": r"\(<=", "✓": "yes",
        "\N{NO-BREAK SPACE}": r"\~",
    }
)  # fmt: skip


def man_page(name: str, blocks: list[BlockElement], version: str, date: str) -> str:
    """The man page `name`(1), of `date` (2026-11-28).

    Raises ValueError when the first block is not the title `NAME: what it does`.
    """
    title = plain(blocks[0].spans) if blocks and isinstance(blocks[0], Heading) else ""
    head, _, summary = title.partition(": ")
    if head != name or not summary:
        raise ValueError(f"the page of {name} has to begin with '# {name}: ' and what it does, not {title!r}")
    lines = [
        f'.TH {_escaped(name.upper())} 1 {date} "qtools {version}" "qtools manual"',
        ".SH NAME",
        f"{_escaped(name)} \\- {_escaped(summary)}",
        *_blocks(blocks[1:], []),
        ".SH SEE ALSO",
        *_filled([TextSpan(", ".join(see_also(name, links(blocks))))]),
    ]
    return "\n".join(lines) + "\n"


def _blocks(blocks: list[BlockElement], before: list[str]) -> list[str]:
    """The lines of blocks; `before` are the lines written so far, as a paragraph at a section's start needs no .PP."""
    lines: list[str] = []
    for block in blocks:
        last = (lines or before or [""])[-1]
        begins = last.startswith((".SH", ".SS", ".IP", ".TP"))
        match block:
            case Heading():
                text = _escaped(plain(block.spans))
                lines.append(f".SH {text.upper()}" if block.level < 3 else f".SS {text}")
            case Paragraph():
                lines += ([] if begins else [".PP"]) + _filled(block.spans)
            case Code():
                lines += ([] if begins else [".PP"]) + [".RS 4", ".EX", *map(_code_line, block.text.split("\n")), ".EE"]
                lines.append(".RE")
            case Bullets():
                for mark, item in block.items:
                    lines += _item(mark, item)
            case Table():
                for row in block.rows:
                    lines += [".TP", *_filled(row[0], fold=False)]
                    lines += _filled(cell_texts(block, row)) or [r"\&"]
    return lines


def _item(mark: str, item: list[BlockElement]) -> list[str]:
    lines = [r".IP \(bu 2" if mark == "•" else f".IP {mark} 3", *_blocks(item[:1], [".IP"])]
    for more in item[1:]:
        lines += [".IP", *_blocks([more], [".IP"])] if isinstance(more, Paragraph) else _blocks([more], [""])
    return lines


def _filled(spans: Spans, fold: bool = True) -> list[str]:
    text = "".join(f"{_FONTS[s.kind]}{_escaped(s.text)}\\fR" if s.kind in _FONTS else _escaped(s.text) for s in spans)
    text = " ".join(text.split())
    if not text:
        return []
    # A line that begins with one of these is a request. A new line after a sentence is good manners in roff.
    folded = textwrap.wrap(text, _WIDTH, break_long_words=False, break_on_hyphens=False) if fold else [text]
    return [rf"\&{line}" if line[0] in ".'" else line for line in folded]


def _code_line(line: str) -> str:
    line = _escaped(line)
    return rf"\&{line}" if line[:1] in (".", "'") else line.rstrip()


def _escaped(text: str) -> str:
    return re.sub(r"[^\x00-\x7f]", lambda found: f"\\[u{ord(found[0]):04X}]", text.translate(_NAMES))
