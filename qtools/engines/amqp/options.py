"""RabbitMQ's settings of a connection, from flags, a URL's query, --engine-option or a profile. In: what was given for
a connection (engines/connection_options.py). Out: an engine.

    amqp://HOST[:5672][,HOST…]/TOPIC[/CHANNEL]?vhost=/v    queue=NAME: that queue, without an exchange
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qtools.durations import parse_duration
from qtools.engines.amqp.engine import AmqpEngine
from qtools.engines.amqp.settings import MECHANISMS, QUEUE_TYPES, AmqpSettings
from qtools.engines.connection_options import (
    SHARED_OPTIONS,
    ConnectionRequest,
    EngineOptions,
    Option,
    merged_fields,
    parse_text,
    secret_as_text,
)
from qtools.errors import UsageError

EXCHANGE_TYPES = ("fanout", "topic", "headers")


def _one_of(*words: str) -> Callable[[Any], str]:
    def convert(value: Any) -> str:
        text = str(value)
        if text not in words:
            raise ValueError(f"{value!r} is not one of {', '.join(words)}")
        return text

    return convert


def _mechanism(value: Any) -> str:
    return _one_of(*MECHANISMS)(str(value).upper())


def _queue(value: Any) -> str:
    text = parse_text(value)
    if len(text.encode()) > 200:
        raise ValueError("it has more than 200 bytes")
    return text


def _seconds(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"{value!r} is not a duration such as 10s or 1m")
    seconds = parse_duration(value) if isinstance(value, str) else float(value)
    if not 1 <= seconds <= 3600:
        raise ValueError(f"{value} is not 1s to 60m")
    return round(seconds)


def _management(value: Any) -> str:
    text = parse_text(value).rstrip("/")
    if not text.startswith(("http://", "https://")):
        raise ValueError(f"{value!r} is no URL such as http://HOST:15672")
    if "@" in text:
        raise ValueError("it has a user and a password: leave them out, they are those of the broker")
    return text


def _make_engine(request: ConnectionRequest) -> AmqpEngine:
    """The cluster of `request`. UsageError, StartError."""
    fields = merged_fields(request, ENGINE)
    secret = fields.pop("secret")
    origin = request.choice.origin
    password = secret_as_text(secret, origin)
    if password and not fields["user"]:
        raise UsageError("there is a password and no user: give user in a profile, or QTOOLS_AMQP_USER")
    if fields.get("mechanism") == "EXTERNAL" and not (fields["tls"] and fields.get("tls_cert")):
        raise UsageError("EXTERNAL authenticates by a certificate: give amqps:// and --tls-cert")
    return AmqpEngine(AmqpSettings(request.hosts, program=request.program, password=password, **fields))


ENGINE = EngineOptions(
    engine="RabbitMQ",
    options=SHARED_OPTIONS
    | {
        "exchange_type": Option("exchange_type", _one_of(*EXCHANGE_TYPES)),
        "heartbeat_interval": Option("heartbeat", _seconds),
        "management": Option("management", _management),
        "queue": Option("queue", _queue),
        "queue_type": Option("queue_type", _one_of(*QUEUE_TYPES)),
        "sasl_mechanism": Option("mechanism", _mechanism),
        "user": Option("user", parse_text),
        "vhost": Option("vhost", parse_text),
    },
    make=_make_engine,
    password_variable="QTOOLS_AMQP_PASSWORD",
    user_variable="QTOOLS_AMQP_USER",
)
