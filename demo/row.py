"""One row of the demo's table, or with no arguments its heading.

    $ python row.py
    $ python row.py "event records" events.jsonl 0.31 0.42

In: a name, the file that was sent, the seconds that sending and receiving took. Out: the row, on stdout.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROW = "{:<26} {:>10} {:>8} {:>10} {:>11} {:>12} {:>12}"


def is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def row(name: str, sent: bytes, seconds_in: float, seconds_out: float) -> str:
    lines = sent.split(b"\n")
    if not lines[-1]:
        lines.pop()  # what follows the last newline is no line
    messages = [line for line in lines if line]
    return ROW.format(
        name,
        f"{len(messages):,}",
        f"{sum(map(len, messages)) / 1e6:.1f}",
        f"{len(lines) - len(messages):,}",
        f"{sum(not is_utf8(line) for line in messages):,}",
        f"{len(messages) / max(seconds_in, 0.001):,.0f}",
        f"{len(messages) / max(seconds_out, 0.001):,.0f}",
    )


def main() -> None:
    if len(sys.argv) == 1:
        print(ROW.format("", "messages", "MB", "left out:", "no UTF-8", "in", "out"))
        print(ROW.format("", "", "", "empty", "", "messages/s", "messages/s"))
    else:
        name, sent, seconds_in, seconds_out = sys.argv[1:]
        print(row(name, Path(sent).read_bytes(), float(seconds_in), float(seconds_out)))


if __name__ == "__main__":
    main()
