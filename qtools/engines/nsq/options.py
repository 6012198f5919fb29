"""NSQ's settings of a connection, from flags, a URL's query, --engine-option or a profile. In: what was given for a
connection (engines/connection_options.py). Out: an engine.

The keys of the options are the names of the flags.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qtools.durations import parse_duration
from qtools.engines.connection_options import (
    SHARED_OPTIONS,
    ConnectionRequest,
    EngineOptions,
    Option,
    merged_fields,
    parse_switch,
    parse_text,
    refuse_passwords,
)
from qtools.engines.nsq.address import choose_brokers
from qtools.engines.nsq.engine import NsqEngine
from qtools.engines.nsq.settings import Settings
from qtools.errors import UsageError

SECRET_VARIABLE = "QTOOLS_AUTH_SECRET"


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


def _addresses(value: Any) -> list[str]:
    return [text for text in parse_text(value).split(",") if text]


def _make_engine(request: ConnectionRequest) -> NsqEngine:
    """The brokers of `request`, or those of the environment. UsageError, StartError."""
    choice = request.choice
    refuse_passwords(request.flags.fields.get("nsqd_http", ()), SECRET_VARIABLE)
    fields = merged_fields(request, ENGINE)
    if fields.get("snappy") and fields.get("deflate"):
        raise UsageError("give --snappy or --deflate, not both")
    http = fields.pop("nsqd_http", ())
    if not choice.urls:
        brokers = choose_brokers(choice.nsqd, choice.lookupd, http, request.environ)
    else:
        if choice.urls[0].user:
            raise UsageError(
                f"{choice.origin}: NSQ has no user names; its AUTH secret is a URL's password: nsq://:SECRET@HOST"
            )
        hosts = [host for url in choice.urls for host in url.hosts or (f"unix:{url.socket}",)]
        nsqd, lookupd = ([], hosts) if choice.urls[0].is_lookupd else (hosts, [])
        brokers = choose_brokers(nsqd, lookupd, http, {})
    return NsqEngine(brokers, Settings(program=request.program, **fields))


ENGINE = EngineOptions(
    engine="NSQ",
    options=SHARED_OPTIONS
    | {
        "deflate": Option("deflate", parse_switch),
        "deflate_level": Option("deflate_level", _level),
        # nsqd refuses less than a second, and by default more than a minute.
        "heartbeat_interval": Option("heartbeat_interval", _milliseconds(1, 3600, "1s to 60m")),
        "msg_timeout": Option("msg_timeout", _milliseconds(1, 900, "1s to 15m")),  # as --msg-timeout
        "nsqd_http_address": Option("nsqd_http", _addresses),  # several are separated by commas
        "snappy": Option("snappy", parse_switch),
    },
    make=_make_engine,
    flags=frozenset({"snappy", "deflate", "deflate_level", "heartbeat_interval", "msg_timeout", "nsqd_http"}),
    alternatives=(("snappy", "deflate"),),
    password_variable=SECRET_VARIABLE,
)
