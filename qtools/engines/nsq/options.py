"""NSQ's options by key, from a URL's query, --engine-option or a profile. In: keys, values. Out: fields of Settings.

The keys are the names of the flags. A value is text, or what TOML has for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from qtools.durations import parse_duration
from qtools.engines.option_values import parse_switch
from qtools.errors import UsageError


class Option(NamedTuple):
    """field: of Settings, or "secret_file" and "nsqd_http". convert: raises ValueError with what is wrong."""

    field: str
    convert: Callable[[Any], Any]
    is_file: bool = False


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not a string")
    if not value:
        raise ValueError("it is empty")
    return value


def _milliseconds(least: float, most: float, bounds: str) -> Callable[[Any], int]:
    def convert(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise ValueError(f"{value!r} is not a duration such as 250ms, 10s, 1m30s or 2h")
        seconds = parse_duration(value) if isinstance(value, str) else float(value)
        if not least <= seconds <= most:
            raise ValueError(f"{value} is not {bounds}")
        return int(seconds * 1000)

    return convert


def _level(value: Any) -> int:
    text = str(value)
    if isinstance(value, bool) or not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= 9):
        raise ValueError(f"{value!r} is not a whole number from 1 to 9")
    return int(text)


OPTIONS = {
    "auth_secret_file": Option("secret_file", _text, is_file=True),
    "client_id": Option("client_id", _text),
    "deflate": Option("deflate", parse_switch),
    "deflate_level": Option("deflate_level", _level),
    # nsqd refuses less than a second, and by default more than a minute.
    "heartbeat_interval": Option("heartbeat_interval", _milliseconds(1, 3600, "1s to 60m")),
    "msg_timeout": Option("msg_timeout", _milliseconds(1, 900, "1s to 15m")),  # as --msg-timeout
    "nsqd_http_address": Option("nsqd_http", _text),  # several are separated by commas
    "snappy": Option("snappy", parse_switch),
    "tls": Option("tls", parse_switch),
    "tls_ca": Option("tls_ca", _text, is_file=True),
    "tls_cert": Option("tls_cert", _text, is_file=True),
    "tls_insecure_skip_verify": Option("tls_insecure", parse_switch),
    "tls_key": Option("tls_key", _text, is_file=True),
}


def convert_options(pairs: Mapping[str, Any], where: str, file: Callable[[str], str] = str) -> dict[str, Any]:
    """Key → value as fields of Settings, "secret_file" (a path) and "nsqd_http" (text).

    where: names the place of `pairs` in messages. file: makes of a path in `pairs` the path to open. UsageError for an
    unknown key and a wrong value.
    """
    found = {}
    for key, value in pairs.items():
        option = OPTIONS.get(key)
        if option is None:
            raise UsageError(f"{where}: unknown option {key!r} of NSQ; known are {', '.join(OPTIONS)}")
        try:
            made = option.convert(value)
        except ValueError as error:
            raise UsageError(f"{where}: {key}: {error}") from error
        found[option.field] = file(made) if option.is_file else made
    return found
