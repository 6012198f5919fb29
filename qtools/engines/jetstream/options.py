"""JetStream's options by key, from a profile, a URL's query, --engine-option or flags. In: pairs. Out: an engine.

Secrets come from a file, the environment (QTOOLS_NATS_USER, QTOOLS_NATS_PASSWORD, QTOOLS_NATS_TOKEN) or a profile.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from qtools.durations import parse_duration
from qtools.engines.jetstream.engine import JetStreamEngine
from qtools.engines.jetstream.settings import JetStreamSettings
from qtools.engines.option_values import parse_switch, read_secret_file
from qtools.engines.url import BrokerUrl
from qtools.errors import StartError, UsageError

_NSQ_FLAGS = {
    "snappy": "--snappy", "deflate": "--deflate", "deflate_level": "--deflate-level", "msg_timeout": "--msg-timeout",
}  # fmt: skip


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"{value!r} is not a text")
    return value


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


# Keys → the fields of JetStreamSettings, or names of secret files; and how values are converted.
_OPTIONS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "client_id": ("client_id", _text), "tls": ("tls", parse_switch), "tls_first": ("tls_first", parse_switch),
    "tls_ca": ("tls_ca", _text), "tls_cert": ("tls_cert", _text), "tls_key": ("tls_key", _text),
    "tls_insecure_skip_verify": ("tls_insecure", parse_switch), "user": ("user", _text),
    "password_file": ("password_file", _text), "auth_secret_file": ("password_file", _text),
    "token_file": ("token_file", _text), "nkey_file": ("nkey_file", _text), "creds_file": ("creds_file", _text),
    "domain": ("domain", _text), "ping_interval": ("ping_interval", _seconds),
    "connect_timeout": ("connect_timeout", _seconds), "ack_wait": ("ack_wait", _seconds),
}  # fmt: skip
_FILES = frozenset({"tls_ca", "tls_cert", "tls_key", "password_file", "token_file", "nkey_file", "creds_file"})
# Keys → fields of the configuration of streams that are created.
_STREAM: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "stream_replicas": ("num_replicas", _count), "stream_storage": ("storage", _one_of("file", "memory")),
    "stream_retention": ("retention", _one_of("limits", "interest", "workqueue")),
    "stream_discard": ("discard", _one_of("old", "new")), "stream_max_age": ("max_age", _nanoseconds),
    "stream_max_bytes": ("max_bytes", _count), "stream_max_msgs": ("max_msgs", _count),
    "stream_max_msg_size": ("max_msg_size", _count), "stream_duplicate_window": ("duplicate_window", _nanoseconds),
}  # fmt: skip


def convert_options(pairs: Mapping[str, Any], where: str, file: Callable[[str], str] = str) -> dict[str, Any]:
    """Options by key → fields of JetStreamSettings, paths of secret files, and "stream" (a dict). UsageError names
    `where` they were given. file: turns a value into a path."""
    fields: dict[str, Any] = {}
    stream: dict[str, Any] = {}
    for key, value in pairs.items():
        plain = key.replace("-", "_").replace(".", "_")
        name, convert = _OPTIONS.get(plain) or _STREAM.get(plain) or ("", _text)
        if not name:
            known = ", ".join(sorted([*_OPTIONS, *_STREAM]))
            raise UsageError(f"{where}: NATS has no option {key!r}; it has {known}")
        try:
            converted = convert(value)
        except ValueError as error:
            raise UsageError(f"{where}: {key}: {error}") from error
        if plain in _STREAM:
            stream[name] = converted
        else:
            fields[name] = file(converted) if name in _FILES else converted
    if stream:
        fields["stream"] = stream
    return fields


Layer = tuple[Mapping[str, Any], str, Callable[[str], str]]


def engine_of_options(
    program: str,
    urls: Sequence[BrokerUrl],
    origin: str,
    layers: Sequence[Layer],
    flags: Mapping[str, Any],
    environ: Mapping[str, str],
) -> JetStreamEngine:
    """The engine for the servers of `urls`. UsageError, StartError.

    origin: where the broker was named. layers: options, where they were given, and what a path in them means; the
    weakest first. flags: the flags that were given, by field of NSQ's Settings.
    """
    fields: dict[str, Any] = {}
    stream: dict[str, Any] = {}
    for pairs, where, file in layers:
        converted = convert_options(pairs, where, file)
        stream |= converted.pop("stream", {})
        fields |= converted
    for name, flag in _NSQ_FLAGS.items():
        if flags.get(name):
            raise UsageError(f"{flag} is for NSQ, and {origin} is NATS: leave it out")
    fields |= {name: value for name, value in flags.items() if name in JetStreamSettings._fields}
    url = urls[0]
    if url.is_tls and fields.get("tls") is False:
        raise UsageError(f"{origin}: {url.scheme}:// is TLS, and the option tls is false: leave out one")
    fields["tls"] = url.is_tls or fields.get("tls", False)
    fields |= _user(fields, url, str(flags.get("secret_file") or ""), environ)
    hosts = tuple(dict.fromkeys(host for each in urls for host in each.hosts))
    settings = JetStreamSettings(**fields | {"hosts": hosts, "program": program, "stream": tuple(stream.items())})
    if settings.tls_key and not settings.tls_cert:
        raise UsageError("--tls-key needs --tls-cert")
    if not settings.tls and (settings.tls_ca or settings.tls_cert or settings.tls_insecure):
        raise UsageError("--tls-ca, --tls-cert and --tls-insecure-skip-verify need --tls, or a natss:// URL")
    if settings.tls:
        from qtools.engines.connections.tls import make_tls_context

        make_tls_context(settings.tls_files)  # a file that cannot be used is reported now
    return JetStreamEngine(settings)


def _user(fields: dict[str, Any], url: BrokerUrl, secret_file: str, environ: Mapping[str, str]) -> dict[str, str]:
    """The fields that say who the user is. Paths of secret files are removed from `fields`."""
    files = {name: fields.pop(name, "") for name in ("password_file", "token_file", "nkey_file", "creds_file")}
    files["password_file"] = secret_file or files["password_file"]
    given = [name for name, path in files.items() if path]
    if len(given) > 1:
        raise UsageError(f"{given[0]} and {given[1]} both say who the user is: leave out one")
    if files["creds_file"]:
        from qtools.engines.jetstream.credentials import parse_credentials

        jwt, seed = parse_credentials(_content(files["creds_file"]), files["creds_file"])
        return {"jwt": jwt, "nkey_seed": seed}
    if files["nkey_file"]:
        from qtools.engines.jetstream.credentials import check_seed

        seed = _content(files["nkey_file"]).strip()
        check_seed(seed, files["nkey_file"])
        return {"nkey_seed": seed}
    if files["token_file"]:
        return {"token": _content(files["token_file"])}
    user = fields.get("user") or url.user or environ.get("QTOOLS_NATS_USER", "")
    password = url.password or environ.get("QTOOLS_NATS_PASSWORD", "")
    if files["password_file"]:
        password = _content(files["password_file"])
    if user and not password and user == url.user:
        return {"user": "", "token": user}  # nats://TOKEN@HOST, as NATS's own clients take it
    if user or password:
        # Without a user, a secret is a token: --auth-secret-file needs no other flag.
        return {"user": user, "password": password} if user else {"token": password}
    return {"token": environ.get("QTOOLS_NATS_TOKEN", "")}


def _content(path: str) -> str:
    """The text of a secret file."""
    try:
        return read_secret_file(str(Path(path))).decode("utf-8")
    except UnicodeDecodeError as error:
        raise StartError(f"cannot read the secret file {path}: {error}") from error
