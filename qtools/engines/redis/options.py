"""Redis's settings of a connection, from flags, a URL's query, --engine-option or a profile. In: what was given for a
connection (engines/connection_options.py). Out: an engine."""

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
    parse_text,
)
from qtools.engines.redis.engine import RedisEngine
from qtools.engines.redis.settings import RedisSettings
from qtools.errors import UsageError


def _number(least: int, most: int) -> Callable[[Any], int]:
    def convert(value: Any) -> int:
        text = str(value)
        if isinstance(value, bool) or not (text.isascii() and text.isdigit() and least <= int(text[:20]) <= most):
            raise ValueError(f"{value!r} is not a whole number from {least:,} to {most:,}")
        return int(text)

    return convert


def _msg_timeout(value: Any) -> int:
    """ms."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"{value!r} is not a duration such as 10s, 1m30s or 2h")
    seconds = parse_duration(value) if isinstance(value, str) else float(value)
    if not 1 <= seconds <= 86_400:
        raise ValueError(f"{value} is not 1s to 24h")
    return int(seconds * 1000)


def _make_engine(request: ConnectionRequest) -> RedisEngine:
    """The server of the URLs. UsageError, StartError."""
    fields = merged_fields(request, ENGINE)
    if fields["user"] and fields["secret"] is None:
        raise UsageError(
            f"{request.choice.origin}: there is a user and no password: give password_file in a profile, or"
            f" {ENGINE.password_variable}"
        )
    return RedisEngine(RedisSettings(request.hosts, request.program, **fields))


ENGINE = EngineOptions(
    engine="Redis",
    options=SHARED_OPTIONS
    | {
        "db": Option("db", _number(0, 1_000_000)),
        "max_length": Option("max_length", _number(1, 1 << 53)),
        "msg_timeout": Option("msg_timeout", _msg_timeout),  # as --msg-timeout
        "protocol": Option("resp", _number(2, 3)),
        "user": Option("user", parse_text),
    },
    make=_make_engine,
    flags=frozenset({"msg_timeout"}),
    password_variable="QTOOLS_REDIS_PASSWORD",
    user_variable="QTOOLS_REDIS_USER",
)
