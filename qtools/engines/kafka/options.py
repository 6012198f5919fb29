"""Kafka's settings of a connection, from flags, a URL's query, --engine-option or a profile. In: what was given for a
connection (engines/connection_options.py). Out: an engine.

An option is one of this project's, or any property of librdkafka, written with dots or underscores. A property that
would break a guarantee is refused with the reason.
"""

from __future__ import annotations

from typing import Any

from qtools.engines.connection_options import (
    SHARED_OPTIONS,
    ConnectionRequest,
    EngineOptions,
    Option,
    merged_fields,
    parse_text,
    secret_as_text,
)
from qtools.engines.kafka.client_errors import fault_of_text
from qtools.engines.kafka.engine import KafkaEngine
from qtools.engines.kafka.settings import KafkaSettings
from qtools.errors import UsageError

# What a property would break → the properties, by the names that librdkafka has for them.
_REFUSED = {
    "a message is committed when it is finished, and not before": (
        "enable.auto.commit", "auto.commit.enable", "auto.commit.interval.ms", "enable.auto.offset.store",
        "auto.offset.store", "offset.store.method", "offset.store.path", "offset.store.sync.interval.ms",
    ),
    "a message is published when all replicas in sync have it, once and in order": (
        "acks", "request.required.acks", "enable.idempotence", "enable.gapless.guarantee", "transactional.id",
        "delivery.report.only.error", "queuing.strategy", "max.in.flight", "max.in.flight.requests.per.connection",
        "retries", "message.send.max.retries",
    ),
    "--retry-timeout says how long a message may wait": (
        "message.timeout.ms", "delivery.timeout.ms",
    ),
    "a channel's name is its consumer group, and partitions are handed over one by one": (
        "group.id", "partition.assignment.strategy", "enable.partition.eof", "group.protocol", "group.instance.id",
    ),
    "the broker's URL says it": ("bootstrap.servers", "metadata.broker.list", "security.protocol"),
    "a secret on a command line can be read by every user: give password_file, or tls_key_password_file": (
        "sasl.password", "ssl.key.password", "ssl.keystore.password", "ssl.key.pem", "sasl.oauthbearer.client.secret",
        "sasl.oauthbearer.config",
    ),
    "this program sets it": (
        "client.software.name", "client.software.version", "log.queue", "interceptor.class", "plugin.library.paths",
        "opaque", "consume.callback.max.messages", "test.mock.num.brokers", "message.max.bytes",
        "queue.buffering.max.messages", "queue.buffering.max.kbytes",
    ),
}  # fmt: skip

_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER")
_PROPERTY = "property "  # before the name of a property, where it is the name of a field


def _mechanism(value: Any) -> str:
    mechanism = parse_text(value).upper().replace("_", "-")
    if mechanism not in _MECHANISMS:
        raise ValueError(f"{value!r} is not one of {', '.join(_MECHANISMS)}")
    return mechanism


def _property(key: str, value: Any) -> tuple[str, str]:
    """A property of librdkafka; ValueError for one that cannot be set."""
    dotted = key.replace("_", ".")
    for reason, names in _REFUSED.items():
        if dotted in names:
            raise ValueError(f"it cannot be set: {reason}")
    return _PROPERTY + dotted, str(value).lower() if isinstance(value, bool) else str(value)


def _make_engine(request: ConnectionRequest) -> KafkaEngine:
    """The cluster of the URLs. UsageError, StartError."""
    origin = request.choice.origin
    fields = merged_fields(request, ENGINE)
    names = [name for name in fields if name.startswith(_PROPERTY)]
    fields["properties"] = tuple((name.removeprefix(_PROPERTY), fields.pop(name)) for name in names)
    fields["password"] = secret_as_text(fields.pop("secret"), origin)
    if fields["user"]:
        fields.setdefault("mechanism", "PLAIN")
    settings = KafkaSettings(hosts=request.hosts, program=request.program, **fields)
    _check_texts(settings)
    _check_credentials(settings)
    return KafkaEngine(settings)


_SECRETS = {"user": "the user", "password": "the password", "tls_key_password": "the passphrase of --tls-key"}


def _check_texts(settings: KafkaSettings) -> None:
    """UsageError for a text that librdkafka cannot be given. A value is not shown: it may be a secret."""
    named = {_SECRETS.get(name, name): value for name, value in settings._asdict().items() if isinstance(value, str)}
    for key, value in settings.properties:
        named |= {f"the name of the option {key!r}": key, f"the option {key!r}": value}
    for what, text in named.items():
        if fault := fault_of_text(text):
            raise UsageError(f"{settings}: {what} {fault}")


def _check_credentials(settings: KafkaSettings) -> None:
    """UsageError where settings contradict each other."""
    if settings.mechanism == "OAUTHBEARER":
        if bool(settings.token_command) == bool(settings.token_file):
            raise UsageError("OAUTHBEARER needs a token: give token_command or token_file")
    elif settings.password and not settings.user:
        raise UsageError("there is a password and no user: give user in a profile, or QTOOLS_KAFKA_USER")
    elif settings.mechanism and not (settings.user and settings.password):
        raise UsageError(
            f"{settings.mechanism} needs a user and a password: give user and password_file in a profile,"
            " or QTOOLS_KAFKA_USER and QTOOLS_KAFKA_PASSWORD"
        )


ENGINE = EngineOptions(
    engine="Kafka",
    options=SHARED_OPTIONS
    | {
        "sasl_mechanism": Option("mechanism", _mechanism),
        "sasl_mechanisms": Option("mechanism", _mechanism),
        "sasl_username": Option("user", parse_text),
        "token_command": Option("token_command", parse_text),
        "token_file": Option("token_file", parse_text, is_file=True),
        "user": Option("user", parse_text),
    },
    make=_make_engine,
    convert_other=_property,
    password_variable="QTOOLS_KAFKA_PASSWORD",
    user_variable="QTOOLS_KAFKA_USER",
)
