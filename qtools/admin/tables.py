"""Rows as text in columns. In: cells. Out: lines that fit a terminal."""

from __future__ import annotations

from collections.abc import Sequence

Cell = str | int | None

UNKNOWN = "-"  # of a count that the engine cannot tell


def table(head: Sequence[str], rows: Sequence[Sequence[Cell]], width: int = 0) -> list[str]:
    """Lines with `head` and `rows`: the first column is left-aligned, and so are texts; numbers are right-aligned.

    width: of the terminal; the first column is cut so that a line fits, but not below 10 characters. 0: no limit.
    """
    cells = [[shown(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(head, *cells, strict=True)]
    if width and (excess := sum(widths) + 2 * (len(widths) - 1) - width) > 0:
        widths[0] = max(min(10, widths[0]), widths[0] - excess)
    numeric = [place > 0 and all(not isinstance(row[place], str) for row in rows) for place in range(len(head))]
    return [
        "  ".join(_fitted(cell, widths[place], numeric[place]) for place, cell in enumerate(line)).rstrip()
        for line in [list(head), *cells]
    ]


def shown(cell: Cell) -> str:
    """A cell as text: a count with separators, UNKNOWN for None."""
    if cell is None:
        return UNKNOWN
    return f"{cell:,}" if isinstance(cell, int) else printable(cell)


def printable(text: str) -> str:
    """`text` without what a terminal would interpret."""
    return "".join(char if char.isprintable() else "?" for char in text)


def _fitted(text: str, width: int, is_numeric: bool) -> str:
    if len(text) > width:
        text = text[: width - 1] + "…"
    return text.rjust(width) if is_numeric else text.ljust(width)
