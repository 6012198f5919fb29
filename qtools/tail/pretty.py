"""Messages as a person reads them on a terminal. In: batches. Out: a Format.

    14:03:07 {"id": "m-1", "amount": 150}
    14:03:08 orders attempt 3
      {
        "id": "m-2", …

The time is that at which the broker accepted the message, in local time. The topic is shown where several are read, and
attempts above 1. JSON is highlighted, on one line if it fits, else indented; other bodies are printed as they are.
Whatever a terminal would interpret is made visible first (terminal.py).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Mapping

import orjson

from qtools.attributes import TOMBSTONE
from qtools.formats.encoders import Format
from qtools.message import Batch
from qtools.tail.terminal import visible

LONGEST = 1_000_000  # bytes of a body that is parsed and highlighted; a longer one is printed as it is

# The colours of jq: names bold blue, texts green, null dark grey; numbers and booleans as they are.
_DIM, _YELLOW, _RESET = b"\x1b[2m", b"\x1b[33m", b"\x1b[0m"
_NAME, _TEXT, _NULL = b"\x1b[34;1m", b"\x1b[32m", b"\x1b[90m"
_TOKEN = re.compile(rb'("(?:[^"\\]|\\.)*")(:\s*)?|\bnull\b|,(?=\S)')
_MANY_DIGITS = re.compile(rb"\d{17}")  # orjson would round such a number


def wants_colours(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether to write colours to a terminal: https://no-color.org, and TERM."""
    return not environ.get("NO_COLOR") and environ.get("TERM", "dumb") != "dumb"


def pretty_format(*, shows_topic: bool, colours: bool, width: int = 0) -> Format:
    """As above. shows_topic: whether several topics are read. colours: whether to write colours. width: columns; 0: as
    many as the terminal has."""
    width = width or shutil.get_terminal_size().columns
    dim, yellow, reset = (_DIM, _YELLOW, _RESET) if colours else (b"", b"", b"")
    times: dict[int, bytes] = {}  # the text of the last second

    def time_of(stamp: int) -> bytes:
        second = stamp // 1_000_000_000
        if second not in times:
            times.clear()
            times[second] = time.strftime("%H:%M:%S", time.localtime(second)).encode() if second > 0 else b"--:--:--"
        return times[second]

    def pieces(batch: Batch) -> list[bytes]:
        made: list[bytes] = []
        stamps = batch.messages.timestamps()
        more = batch.delivered_more_than(1)
        for origin, start, stop in batch.parts:
            topic = b" " + origin.topic.encode() if shows_topic and origin.topic else b""
            for place in range(start, stop):
                shown = time_of(stamps[place]) + topic
                head, taken = dim + shown + reset, len(shown) + 1
                if place in more:
                    note = b" attempt %d" % more[place]
                    head += yellow + note + reset
                    taken += len(note)
                made.append(_lines(head, batch.bodies[place], width - taken, colours))
        return made

    return Format(pieces)


def _lines(head: bytes, body: bytes, room: int, colours: bool) -> bytes:
    """`head` and the body. room: columns that are left after the head."""
    if body is TOMBSTONE:
        return head + (b" " + _NULL + b"(no body)" + _RESET + b"\n" if colours else b" (no body)\n")
    if body[:1] in (b"{", b"[") and len(body) <= LONGEST:
        try:
            text, is_short = _layout(body, room)
        except (ValueError, TypeError, RecursionError):
            pass  # no JSON; or deeper than orjson writes, which is a TypeError
        else:
            text = _TOKEN.sub(_coloured if colours else _spaced, visible(text))
            return head + (b" " if is_short else b"\n") + text + b"\n"
    return head + b" " + visible(body) + b"\n"


def _layout(body: bytes, room: int) -> tuple[bytes, bool]:
    """JSON on one line without spaces if it fits in `room` columns with them, else indented; and whether it fits.
    ValueError if it is no JSON."""
    if _MANY_DIGITS.search(body):
        value = json.loads(body)
        short = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
        long = json.dumps(value, ensure_ascii=False, indent=2).encode("utf-8", "surrogatepass")
    else:
        value = orjson.loads(body)
        short = orjson.dumps(value)
        long = b""
    if len(short) + short.count(b",") + short.count(b'":') <= room:
        return short, True
    return long or orjson.dumps(value, option=orjson.OPT_INDENT_2), False


def _spaced(found: re.Match[bytes]) -> bytes:
    if found[1] is None:
        return b", " if found[0] == b"," else found[0]
    return found[1] + b": " if found[2] else found[1]


def _coloured(found: re.Match[bytes]) -> bytes:
    if found[1] is None:
        return b", " if found[0] == b"," else _NULL + found[0] + _RESET
    return _NAME + found[1] + _RESET + b": " if found[2] else _TEXT + found[1] + _RESET
