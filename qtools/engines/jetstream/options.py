"""NATS's settings of a connection, from flags, a URL's query, --engine-option or a profile. In: what was given for a
connection (engines/connection_options.py). Out: an engine.

A secret without a user is a token, as in nats://TOKEN@HOST.
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
    read_secret_file,
    secret_as_text,
)
from qtools.engines.jetstream.engine import JetStreamEngine
from qtools.engines.jetstream.settings import JetStreamSettings
from qtools.errors import UsageError

_STREAM = "stream "  # before a field of the configuration of streams that are created


def _seconds(value: Any) -> float:
    seconds = parse_duration(str(value))
    if not 0.05 <= seconds <= 86_400:
        raise ValueError(f"{value!r} is not between 50ms and 1d")
    return seconds


def _nanoseconds(value: Any) -> int:
    return round(parse_duration(str(value)) * 1e9)


def _count(value: Any) -> int:
    try:
        count = int(value)
    except (TypeError, ValueError):
        count = 0
    if not 0 < count < 2**63:
        raise ValueError(f"{value!r} is not a number above 0")
    return count


def _one_of(*words: str) -> Callable[[Any], str]:
    def convert(value: Any) -> str:
        if value not in words:
            raise ValueError(f"{value!r} is not one of {', '.join(words)}")
        return str(value)

    return convert


_OWN: dict[str, Option] = {
    "ack_wait": Option("ack_wait", _seconds),
    "connect_timeout": Option("connect_timeout", _seconds),
    "creds_file": Option("creds_file", parse_text, is_file=True),
    "domain": Option("domain", parse_text),
    "nkey_file": Option("nkey_file", parse_text, is_file=True),
    "ping_interval": Option("ping_interval", _seconds),
    "stream_discard": Option(_STREAM + "discard", _one_of("old", "new")),
    "stream_duplicate_window": Option(_STREAM + "duplicate_window", _nanoseconds),
    "stream_max_age": Option(_STREAM + "max_age", _nanoseconds),
    "stream_max_bytes": Option(_STREAM + "max_bytes", _count),
    "stream_max_msg_size": Option(_STREAM + "max_msg_size", _count),
    "stream_max_msgs": Option(_STREAM + "max_msgs", _count),
    "stream_replicas": Option(_STREAM + "num_replicas", _count),
    "stream_retention": Option(_STREAM + "retention", _one_of("limits", "interest", "workqueue")),
    "stream_storage": Option(_STREAM + "storage", _one_of("file", "memory")),
    "tls_first": Option("tls_first", parse_switch),
    "user": Option("user", parse_text),
}


def _make_engine(request: ConnectionRequest) -> JetStreamEngine:
    """The servers of the URLs. UsageError, StartError."""
    fields = merged_fields(request, ENGINE)
    names = [name for name in fields if name.startswith(_STREAM)]
    fields["stream"] = tuple((name.removeprefix(_STREAM), fields.pop(name)) for name in names)
    secret = secret_as_text(fields.pop("secret"), request.choice.origin)
    creds, nkey = fields.pop("creds_file", ""), fields.pop("nkey_file", "")
    user = fields.pop("user")
    if creds and nkey:
        raise UsageError("creds_file and nkey_file both say who the user is: leave out one")
    if creds or nkey:
        from qtools.engines.jetstream.credentials import check_seed, parse_credentials

        text = secret_as_text(read_secret_file(creds or nkey), creds or nkey)
        if creds:
            fields["jwt"], fields["nkey_seed"] = parse_credentials(text, creds)
        else:
            fields["nkey_seed"] = text.strip()
            check_seed(fields["nkey_seed"], nkey)
    elif user and secret:
        fields |= {"user": user, "password": secret}
    else:
        fields["token"] = secret or user
    settings = JetStreamSettings(hosts=request.hosts, program=request.program, **fields)
    return JetStreamEngine(settings)


ENGINE = EngineOptions(
    engine="NATS",
    options=SHARED_OPTIONS | _OWN,
    make=_make_engine,
    password_variable="QTOOLS_NATS_PASSWORD",
    user_variable="QTOOLS_NATS_USER",
)
