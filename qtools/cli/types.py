"""The values of flags, as click types: durations, sizes, names, addresses, delimiters.

In: the text on the command line. Out: a plain value, or a usage error that says which form the value has to have.
"""

from __future__ import annotations

import re
import time
from math import isfinite
from typing import Any, NamedTuple

import click

from qtools.durations import NUMBER, parse_duration
from qtools.errors import QtoolsError
from qtools.host_port import join_host_port, split_host_port
from qtools.names import LONGEST_NAME, check_topic

_SIZES = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "ki": 1024, "mi": 1024**2, "gi": 1024**3}
_SIZE = re.compile(rf"({NUMBER})\s*([kmg]i?)?b?", re.IGNORECASE)
_ESCAPES = {
    "n": b"\n",
    "r": b"\r",
    "t": b"\t",
    "0": b"\0",
    "\\": b"\\",
    "a": b"\a",
    "f": b"\f",
    "v": b"\v",
    "e": b"\x1b",
}


def parse_size(text: str) -> int:
    """`65536`, `64KiB`, `1.5MB`, `2M` → bytes; ValueError otherwise."""
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text!r} is not a size such as 65536, 64KiB or 1MB")
    whole, _, fraction = found[1].partition(".")
    unit = _SIZES[(found[2] or "").lower()]
    return int(whole or 0) * unit + int(float(f"0.{fraction}") * unit)


def parse_delimiter(text: str) -> bytes:
    r"""`\n`, `\0`, `\x1e`, `--`, … → bytes; ValueError otherwise."""
    out = bytearray()
    at = 0
    while at < len(text):
        if text[at] != "\\":
            out += text[at].encode("utf-8", "surrogateescape")
            at += 1
            continue
        kind = text[at + 1 : at + 2]
        if kind == "x":
            digits = text[at + 2 : at + 4]
            if not re.fullmatch(r"[0-9A-Fa-f]{2}", digits):
                raise ValueError(f"{text!r} has a \\x without two hex digits after it")
            out.append(int(digits, 16))
            at += 4
        elif kind in _ESCAPES:
            out += _ESCAPES[kind]
            at += 2
        else:
            raise ValueError(f"{text!r} has an unknown escape; known are \\n \\r \\t \\0 \\xHH and \\\\")
    if not out:
        raise ValueError("a delimiter cannot be empty")
    return bytes(out)


class Duration(click.ParamType[float]):
    """Seconds, as a float from `least` to `most`."""

    name = "duration"

    def __init__(self, least: float = 0.0, most: float = float("inf")) -> None:
        self.least, self.most = least, most

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, (int, float)):
            return float(value)
        try:
            seconds = parse_duration(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if not self.least <= seconds <= self.most:
            least, most = format_duration(self.least), format_duration(self.most)
            self.fail(f"{value} is not " + (f"at least {least}" if most == "inf" else f"{least} to {most}"), param, ctx)
        return seconds


class Since(click.ParamType[float]):
    """A time to begin at, as s since 1970: a duration before now, a time, or `all`."""

    name = "since"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, (int, float)):
            return float(value)
        text = value.strip()
        if text == "all":
            return 0.0
        try:
            return max(0.0, time.time() - parse_duration(text))
        except ValueError:
            pass
        from qtools.times import parse_time  # it is imported only where a time is given

        try:
            if not text[:4].isdigit():
                raise ValueError
            return max(0.0, parse_time(text) / 1e9)
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is no duration such as 10m or 24h, and no time such as 2026-11-23T08:00", param, ctx)


class DurationOrSize(click.ParamType[tuple[float, int]]):
    """A duration, (seconds, 0), or a size, (0.0, bytes)."""

    name = "duration or size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, int]:
        if isinstance(value, tuple):
            return value
        text = value.strip()
        if not text.isdigit():  # a bare number could be either
            try:
                return parse_duration(text), 0
            except ValueError:
                pass
            try:
                return 0.0, parse_size(text)
            except ValueError:
                pass
        self.fail(f"{value!r} is neither a duration such as 24h nor a size such as 10GiB", param, ctx)


class Size(click.ParamType[int]):
    """A number of bytes, as an int of `least` or more."""

    name = "size"

    def __init__(self, least: int = 0) -> None:
        self.least = least

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            size = parse_size(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if size < self.least:
            self.fail(f"{value} is less than {self.least} bytes", param, ctx)
        return size


class Integer(click.IntRange):
    """An int from `min` to `max`. The message of click's own type is "not a valid integer range"."""

    name = "integer"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, str) and not re.fullmatch(r"[+-]?[0-9]+", value.strip()):
            self.fail(f"{value!r} is not a whole number", param, ctx)
        if isinstance(value, str) and len(value.strip()) > 18:
            self.fail("it has more than 18 digits", param, ctx)
        number = int(value)
        if self.min is not None and number < self.min:
            self.fail(f"{number} is too small: at least {self.min}", param, ctx)
        if self.max is not None and number > self.max:
            self.fail(f"{number} is too large: at most {self.max}", param, ctx)
        return number


class Number(click.FloatRange):
    """A float above `above` and at most `most`. Infinity and NaN, which click's own type accepts, are errors."""

    name = "number"

    def __init__(self, above: float, most: float | None = None) -> None:
        super().__init__(above, most, min_open=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            number = float(value)
        except ValueError:
            self.fail(f"{value!r} is not a number", param, ctx)
        if not isfinite(number):
            self.fail(f"{value} is not a finite number", param, ctx)
        if self.min is not None and number <= self.min:
            self.fail(f"{value} is too small: more than {self.min:g}", param, ctx)
        if self.max is not None and number > self.max:
            self.fail(f"{value} is too large: at most {self.max:g}", param, ctx)
        return number


class Delimiter(click.ParamType[bytes]):
    """Bytes, from text with escapes."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> bytes:
        if isinstance(value, bytes):
            return value
        if not value:
            return b""  # no delimiter; a command that needs one raises a usage error
        try:
            return parse_delimiter(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class TopicType(click.ParamType[str]):
    """The name of a topic."""

    name = "topic"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return check_topic(str(value), LONGEST_NAME)
        except QtoolsError as error:
            self.fail(str(error), param, ctx)


class Endpoint(NamedTuple):
    """`host` and `port`, or the `path` of a unix socket."""

    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return join_host_port(self.host, self.port)


def parse_listen(text: str) -> Endpoint:
    """An address to listen on: `HOST:PORT`, `PORT` or `:PORT` on 127.0.0.1, `unix:/path`; the port 0 means a free port.
    ValueError for any other text."""
    text = text.strip()
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not path.startswith("/"):
            raise ValueError(f"{text!r} needs an absolute path: unix:/path/to.sock")
        return Endpoint(path=path)
    return _parse_endpoint(f":{text}" if text.isdigit() else text, "127.0.0.1", None)


def parse_peer(text: str, default_port: int) -> Endpoint:
    """An address to send to: `HOST:PORT`, or `HOST`, which gets `default_port`. ValueError for any other text."""
    found = _parse_endpoint(text.strip(), None, default_port)
    if not found.port:
        raise ValueError(f"{text!r} has the port 0, to which nothing can be sent")
    return found


def _parse_endpoint(text: str, host: str | None, port: int | None) -> Endpoint:
    try:
        given_host, given_port = split_host_port(text)
    except ValueError:
        given_host, given_port = "", None
        host = None
    host, port = given_host or host, port if given_port is None else given_port
    if host is None or port is None:
        raise ValueError(f"{text!r} is not HOST:PORT")
    return Endpoint(host, port)


class Listen(click.ParamType[Endpoint]):
    """An address to listen on."""

    name = "address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Endpoint:
        if isinstance(value, Endpoint):
            return value
        try:
            return parse_listen(value)
        except ValueError as error:
            self.fail(f"{error}, nor unix:/path" if "HOST:PORT" in str(error) else str(error), param, ctx)


class PeerType(click.ParamType[Endpoint]):
    """An address to send to; its port is `default_port` if the text has none."""

    name = "address"

    def __init__(self, default_port: int) -> None:
        self.default_port = default_port

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Endpoint:
        if isinstance(value, Endpoint):
            return value
        try:
            return parse_peer(value, self.default_port)
        except ValueError as error:
            self.fail(str(error), param, ctx)


DURATION = Duration()
SIZE = Size()


def format_duration(seconds: float) -> str:
    """A duration for people, such as 250ms, 90s, 5m or 2.5h. seconds: infinity is "inf"."""
    if seconds == float("inf"):
        return "inf"
    if 0 < seconds < 1:
        return f"{seconds * 1000:.4g}ms"
    if seconds < 120:
        return f"{seconds:.4g}s"
    if seconds < 7200:
        return f"{seconds / 60:.4g}m"
    return f"{seconds / 3600:.4g}h"


def format_size(size: float) -> str:
    """A number of bytes for people, such as 1.5 MB. Its units are powers of 1000, as usual for disks and networks."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < (1000 if unit == "B" else 999.95) or unit == "GB":  # 999.95 would be shown as 1000.0
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    raise AssertionError


def plural(count: int, noun: str) -> str:
    """`1 message`, `1,204 messages`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
