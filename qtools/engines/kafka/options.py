"""Kafka's options by key, from a profile, a URL's query, --engine-option or flags. In: keys, values. Out: an engine.

An option is one of this project's (_OWN), or any property of librdkafka, written with dots or underscores. A property
that would break a guarantee is refused with the reason. Secrets come from a file, the environment or a profile.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from qtools.engines.kafka.engine import KafkaEngine
from qtools.engines.kafka.settings import KafkaSettings
from qtools.engines.option_values import parse_switch, read_secret_file
from qtools.engines.url import BrokerUrl
from qtools.errors import StartError, UsageError

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

_NSQ_FLAGS = {
    "snappy": "--snappy", "deflate": "--deflate", "deflate_level": "--deflate-level", "msg_timeout": "--msg-timeout",
}  # fmt: skip
_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER")

# Options of this project, by key; the values are the names of fields of KafkaSettings.
_OWN = {
    "client_id": "client_id", "tls": "tls", "tls_ca": "tls_ca", "tls_cert": "tls_cert", "tls_key": "tls_key",
    "tls_key_password_file": "tls_key_password_file", "tls_insecure_skip_verify": "tls_insecure",
    "sasl_mechanism": "mechanism", "sasl_mechanisms": "mechanism", "user": "user", "sasl_username": "user",
    "password_file": "password_file", "auth_secret_file": "password_file", "token_command": "token_command",
    "token_file": "token_file",
}  # fmt: skip
_FILES = frozenset({"tls_ca", "tls_cert", "tls_key", "tls_key_password_file", "password_file", "token_file"})


def convert_options(pairs: Mapping[str, Any], where: str, file: Any = str) -> dict[str, Any]:
    """Options by key → fields of KafkaSettings, "password_file" (a path) and "properties" (a dict). UsageError names
    `where` they were given. file: turns a value into a path."""
    fields: dict[str, Any] = {}
    properties: dict[str, str] = {}
    for key, value in pairs.items():
        if (name := _OWN.get(key.replace("-", "_").replace(".", "_"))) is not None:
            fields[name] = _converted(name, value, f"{where}: {key}", file)
            continue
        dotted = key.replace("_", ".")
        for reason, names in _REFUSED.items():
            if dotted in names:
                raise UsageError(f"{where}: {key} cannot be set: {reason}")
        properties[dotted] = str(value).lower() if isinstance(value, bool) else str(value)
    if properties:
        fields["properties"] = properties
    return fields


def _converted(name: str, value: Any, where: str, file: Any) -> Any:
    if name in ("tls", "tls_insecure"):
        try:
            return parse_switch(value)
        except ValueError as error:
            raise UsageError(f"{where}: {error}") from error
    if not isinstance(value, str) or not value:
        raise UsageError(f"{where}: {value!r} is not a text")
    if name == "mechanism":
        mechanism = value.upper().replace("_", "-")
        if mechanism not in _MECHANISMS:
            raise UsageError(f"{where}: {value!r} is not one of {', '.join(_MECHANISMS)}")
        return mechanism
    return file(value) if name in _FILES else value


def check_settings(settings: KafkaSettings) -> None:
    """UsageError where settings contradict each other, StartError where a file of theirs cannot be read."""
    if settings.tls_key and not settings.tls_cert:
        raise UsageError("--tls-key needs --tls-cert")
    if not settings.tls and (settings.tls_ca or settings.tls_cert or settings.tls_insecure):
        raise UsageError("--tls-ca, --tls-cert and --tls-insecure-skip-verify need --tls, or a kafkas:// URL")
    for what, path in (
        ("CA file", settings.tls_ca),
        ("client certificate", settings.tls_cert),
        ("key", settings.tls_key),
    ):
        if path:
            _check_readable(what, path)
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


Layer = tuple[Mapping[str, Any], str, Callable[[str], str]]


def engine_of_options(
    program: str,
    urls: Sequence[BrokerUrl],
    origin: str,
    layers: Sequence[Layer],
    flags: Mapping[str, Any],
    environ: Mapping[str, str],
) -> KafkaEngine:
    """The engine for the cluster of `urls`. UsageError, StartError.

    origin: where the broker was named. layers: options, where they were given, and what a path in them means; the
    weakest first. flags: the flags that were given, by field of NSQ's Settings.
    """
    fields: dict[str, Any] = {}
    properties: dict[str, str] = {}
    for pairs, where, file in layers:
        converted = convert_options(pairs, where, file)
        properties |= converted.pop("properties", {})
        fields |= converted
    for name, flag in _NSQ_FLAGS.items():
        if flags.get(name):
            raise UsageError(f"{flag} is for NSQ, and {origin} is Kafka: leave it out")
    fields |= {name: value for name, value in flags.items() if name in KafkaSettings._fields}
    url = urls[0]
    if url.is_tls and fields.get("tls") is False:
        raise UsageError(f"{origin}: {url.scheme}:// is TLS, and the option tls is false: leave out one")
    fields["tls"] = url.is_tls or fields.get("tls", False)
    password_file = flags.get("secret_file") or fields.pop("password_file", "")
    fields.pop("password_file", None)
    user = fields.get("user") or url.user or environ.get("QTOOLS_KAFKA_USER", "")
    password = (
        _read_password(password_file) if password_file else url.password or environ.get("QTOOLS_KAFKA_PASSWORD", "")
    )
    if user and "mechanism" not in fields:
        fields["mechanism"] = "PLAIN"
    if key_password_file := fields.pop("tls_key_password_file", ""):
        fields["tls_key_password"] = _read_password(key_password_file)
    hosts = tuple(dict.fromkeys(host for each in urls for host in each.hosts))
    fields |= {"user": user, "password": password, "hosts": hosts, "program": program}
    settings = KafkaSettings(**fields, properties=tuple(properties.items()))
    check_settings(settings)
    return KafkaEngine(settings)


def _check_readable(what: str, path: str) -> None:
    try:
        Path(path).open("rb").close()
    except OSError as error:
        raise StartError(f"cannot use the {what} {path}: {error.strerror or error}") from error


def _read_password(path: str) -> str:
    """The password in a file, which is UTF-8."""
    try:
        return read_secret_file(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise StartError(f"cannot read the secret file {path}: {error}") from error
