"""Blocks → text. In: the blocks of a page, a width in columns. Out: lines, for a terminal with bold and underlining."""

from __future__ import annotations

import re

from qtools.manual.document import BlockElement, Bullets, Code, Heading, Paragraph, Spans, Table, TextSpan, plain
from qtools.manual.pages import cell_texts

_STYLES = {"code": "\x1b[1m", "strong": "\x1b[1m", "emphasis": "\x1b[4m"}
_RESET = "\x1b[0m"
_INDENT = 4


def page_text(blocks: list[BlockElement], width: int, styled: bool) -> str:
    """The page as text of at most `width` columns, except for code, which is not folded."""
    lines: list[str] = []
    for block in blocks:
        if isinstance(block, Heading):
            title = [TextSpan(plain(block.spans), "strong")]
            lines += ["", *_folded(title, "", width, styled)] + ([""] if block.level < 3 else [])
        else:
            lines += _block(block, "" if not lines else " " * _INDENT, width, styled)
            lines.append("")
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip("\n") + "\n"


def _block(block: BlockElement, indent: str, width: int, styled: bool) -> list[str]:
    match block:
        case Paragraph():
            return _folded(block.spans, indent, width, styled)
        case Code():
            return [f"{indent}    {line}".rstrip() for line in block.text.split("\n")]
        case Bullets():
            return [line for mark, item in block.items for line in _item(mark, item, indent, width, styled)]
        case Table():
            return [line for row in block.rows for line in _row(block, row, indent, width, styled)]
        case Heading():
            return _folded(block.spans, indent, width, styled)


def _item(mark: str, item: list[BlockElement], indent: str, width: int, styled: bool) -> list[str]:
    lines: list[str] = []
    for block in item:
        lines += _block(block, indent + " " * (len(mark) + 1), width, styled)
    lines[0] = f"{indent}{mark} {lines[0].lstrip(' ')}"
    return lines


def _row(table: Table, row: list[Spans], indent: str, width: int, styled: bool) -> list[str]:
    return [
        *_folded(row[0], indent, width, styled),
        *_folded(cell_texts(table, row), indent + " " * _INDENT, width, styled),
        "",
    ]


def _folded(spans: Spans, indent: str, width: int, styled: bool) -> list[str]:
    """The words of spans in lines. Adjacent spans without a space between them make one word."""
    words: list[tuple[str, int]] = []  # as printed, columns
    glued = False
    for span in spans:
        for part in re.findall(r"\s+|\S+", span.text):
            if part.isspace():
                glued = False
                continue
            shown = f"{_STYLES[span.kind]}{part}{_RESET}" if styled and span.kind in _STYLES else part
            if glued:
                before, columns = words.pop()
                words.append((before + shown, columns + len(part)))
            else:
                words.append((shown, len(part)))
            glued = True
    lines: list[str] = []
    room = 0
    for shown, columns in words:
        if lines and columns + 1 <= room:
            lines[-1] += f" {shown}"
            room -= columns + 1
        else:
            lines.append(indent + shown)
            room = width - len(indent) - columns
    return lines
