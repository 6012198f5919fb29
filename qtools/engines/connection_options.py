"""The settings of a connection that every engine has: TLS, credentials, and options by key. In: flags, options, the
environment. Out: the fields of an engine's settings, or UsageError.

    profile < the URL's query < --engine-option < --to-engine-option < flags      the later of two values counts

Each engine declares what it knows besides (EngineOptions). An option or a flag that it does not know is an error.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from qtools.engines.url import BrokerUrl
from qtools.errors import StartError, UsageError, without_userinfo

if TYPE_CHECKING:
    from qtools.engines.contract import Engine
    from qtools.engines.profiles import Profile


# ── what a user has said ────────────────────────────────────────────────────────────────────────


class BrokerChoice(NamedTuple):
    """The broker that was chosen: `urls`, which differ in their hosts only, or NSQ's own words for it.

    Without any of them NSQ's variables in the environment count, then the private local broker.
    origin: where it was named, for messages. profile: the one with `urls`.
    """

    urls: tuple[BrokerUrl, ...] = ()
    nsqd: tuple[str, ...] = ()
    lookupd: tuple[str, ...] = ()
    origin: str = ""
    profile: Profile | None = None

    @property
    def engine(self) -> str:
        """The engine that serves it, as messages name it."""
        return self.urls[0].engine if self.urls else "NSQ"


class ConnectionFlags(NamedTuple):
    """What flags say about a connection. fields: of the engine's settings, only those that were given; also
    "secret_file" (a path) and "nsqd_http" (the values of --nsqd-http-address).

    options, to_options: the pairs of --engine-option and of --to-engine-option.
    """

    fields: Mapping[str, Any]
    options: Mapping[str, str]
    to_options: Mapping[str, str] = {}


class ConnectionRequest(NamedTuple):
    """Everything that a user has said about one connection."""

    program: str
    choice: BrokerChoice
    flags: ConnectionFlags
    environ: Mapping[str, str]

    @property
    def hosts(self) -> tuple[str, ...]:
        """The hosts of all URLs, "HOST:PORT" each, without repetitions."""
        return tuple(dict.fromkeys(host for url in self.choice.urls for host in url.hosts))


# ── what an engine declares ─────────────────────────────────────────────────────────────────────


class Option(NamedTuple):
    """An option. field: of the engine's settings. convert: takes text or what TOML has, and raises ValueError with what
    is wrong. is_file: the value is a path, which begins in the directory of a profile that has it."""

    field: str
    convert: Callable[[Any], Any]
    is_file: bool = False


class EngineOptions(NamedTuple):
    """What an engine declares about its connections, in its file options.py, as ENGINE.

    engine: as url.SCHEMES names it. options: by key, with SHARED_OPTIONS. flags: the fields of flags that it knows
    besides SHARED_FLAGS. alternatives: groups of fields of which one replaces the others, as ways to compress do.
    convert_other: for an engine that takes any key: key, value → (field, value), or ValueError.
    password_variable, user_variable: of the environment; "" for an engine without users.
    make: makes the engine for a request, with the fields that `merged_fields` returns. UsageError, StartError.
    """

    engine: str
    options: Mapping[str, Option]
    make: Callable[[ConnectionRequest], Engine]
    flags: frozenset[str] = frozenset()
    alternatives: tuple[tuple[str, ...], ...] = ()
    convert_other: Callable[[str, Any], tuple[str, Any]] | None = None
    password_variable: str = ""
    user_variable: str = ""

    def find(self, key: str) -> Option | None:
        """The option `key`, which may have "-" and "." for "_"."""
        return self.options.get(key.replace("-", "_").replace(".", "_"))

    def has_flag(self, field: str) -> bool:
        """Whether the engine knows the flag of this field."""
        return field in SHARED_FLAGS or field in self.flags


# ── values ──────────────────────────────────────────────────────────────────────────────────────

_SWITCHES = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def parse_switch(value: Any) -> bool:
    """True or False, as a bool or in words; ValueError for any other value."""
    found = value if isinstance(value, bool) else _SWITCHES.get(str(value).lower())
    if found is None:
        raise ValueError(f"{value!r} is neither true nor false")
    return found


def parse_text(value: Any) -> str:
    """A text that is not empty; ValueError for any other value."""
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not a string")
    if not value:
        raise ValueError("it is empty")
    return value


# Of every engine. `password_file` and `auth_secret_file` mean the same.
SHARED_OPTIONS: dict[str, Option] = {
    "password_file": Option("secret_file", parse_text, is_file=True),
    "auth_secret_file": Option("secret_file", parse_text, is_file=True),
    "client_id": Option("client_id", parse_text),
    "tls": Option("tls", parse_switch),
    "tls_ca": Option("tls_ca", parse_text, is_file=True),
    "tls_cert": Option("tls_cert", parse_text, is_file=True),
    "tls_insecure_skip_verify": Option("tls_insecure", parse_switch),
    "tls_key": Option("tls_key", parse_text, is_file=True),
    "tls_key_password_file": Option("tls_key_password_file", parse_text, is_file=True),
}
SHARED_FLAGS = frozenset({option.field for option in SHARED_OPTIONS.values()})
# Flags that list something of the source's brokers: they are never for a destination.
SOURCE_FLAGS = frozenset({"nsqd_http"})

KEY_PASSWORD_VARIABLE = "QTOOLS_TLS_KEY_PASSWORD"

# Flags whose names are not those of their fields.
_FLAGS = {
    "nsqd_http": "--nsqd-http-address", "secret_file": "--auth-secret-file",
    "tls_insecure": "--tls-insecure-skip-verify",
}  # fmt: skip


def flag_of(field: str) -> str:
    """The flag of a field of ConnectionFlags."""
    return _FLAGS.get(field) or "--" + field.replace("_", "-")


# ── options and flags → fields of settings ──────────────────────────────────────────────────────


def convert_options(
    declared: EngineOptions, pairs: Mapping[str, Any], where: str, file: Callable[[str], str] = str
) -> dict[str, Any]:
    """Key → value as fields of the engine's settings.

    where: names the place of `pairs` in messages. file: makes of a path in `pairs` the path to open. UsageError for an
    unknown key, a wrong value, and two keys that mean the same.
    """
    found: dict[str, Any] = {}
    keys: dict[str, str] = {}
    for key, value in pairs.items():
        option = declared.find(key)
        try:
            if option is not None:
                field, made = option.field, option.convert(value)
                made = file(made) if option.is_file else made
            elif declared.convert_other is not None:
                field, made = declared.convert_other(key, value)
            else:
                known = ", ".join(sorted(declared.options))
                raise UsageError(f"{where}: unknown option {key!r} of {declared.engine}; known are {known}")
        except ValueError as error:
            raise UsageError(f"{where}: {key}: {error}") from error
        if (other := keys.setdefault(field, key)) != key:
            first, second = sorted((other, key), reverse=True)
            raise UsageError(f"{where} gives both {first} and {second}, which mean the same")
        found[field] = made
    return found


def merged_fields(request: ConnectionRequest, declared: EngineOptions) -> dict[str, Any]:
    """All that is given for a connection, as fields of the engine's settings: those of `declared` that were given,
    "tls" (a bool), "secret" (bytes, or None) and, for an engine that has users, "user"; with a client certificate also
    "tls_key_password" (text), if there is one. Secret files are read.

    UsageError for what the engine does not know, StartError for a file that cannot be read.
    """
    choice = request.choice
    for field, value in request.flags.fields.items():
        if value and not declared.has_flag(field):
            raise UsageError(
                f"{flag_of(field)}: {declared.engine} ({choice.origin}) has no such setting: leave the flag out"
            )
    fields: dict[str, Any] = {}
    for layer in _layers(request, declared):
        for group in declared.alternatives:
            if any(layer.get(field) for field in group):
                for field in group:
                    fields.pop(field, None)
        fields.update(layer)
    url = choice.urls[0] if choice.urls else None
    if url is not None and url.is_tls and fields.get("tls") is False:
        raise UsageError(f"{choice.origin}: {url.scheme}:// is TLS, and the option tls is false: leave out one")
    fields["tls"] = bool(fields.get("tls")) or (url is not None and url.is_tls)
    file = fields.pop("secret_file", "")
    password = (url.password if url is not None else "") or request.environ.get(declared.password_variable, "")
    fields["secret"] = read_secret_file(file) if file else os.fsencode(password) or None
    if key_file := fields.pop("tls_key_password_file", ""):
        fields["tls_key_password"] = secret_as_text(read_secret_file(key_file), key_file)
    elif fields.get("tls_cert") and (passphrase := request.environ.get(KEY_PASSWORD_VARIABLE, "")):
        fields["tls_key_password"] = passphrase
    if declared.user_variable:
        user = (url.user if url is not None else "") or request.environ.get(declared.user_variable, "")
        fields["user"] = fields.get("user") or user
    return fields


def _layers(request: ConnectionRequest, declared: EngineOptions) -> Iterator[Mapping[str, Any]]:
    """The fields that each place gives, the weakest first."""
    choice, flags = request.choice, request.flags
    if choice.profile is not None:
        yield convert_options(declared, choice.profile.options, str(choice.profile), choice.profile.file)
    if choice.urls and choice.urls[0].query:
        yield convert_options(declared, dict(choice.urls[0].query), str(choice.urls[0].broker))
    for pairs, where in ((flags.options, "--engine-option"), (flags.to_options, "--to-engine-option")):
        if pairs:
            yield convert_options(declared, pairs, where)
    yield flags.fields


def flags_of_each(
    flags: ConnectionFlags, declared: EngineOptions, to_declared: EngineOptions
) -> tuple[ConnectionFlags, ConnectionFlags]:
    """What `flags` say about the connection to a source and about that to a destination, by what their engines declare.

    A flag or an --engine-option that only one of the engines knows is for that one; others are for both, and
    SOURCE_FLAGS for the source. --to-engine-option is for the destination.
    """
    fields = {
        field: value
        for field, value in flags.fields.items()
        if field in SOURCE_FLAGS or declared.has_flag(field) or not to_declared.has_flag(field)
    }
    to_fields = {
        field: value
        for field, value in flags.fields.items()
        if field not in SOURCE_FLAGS and (to_declared.has_flag(field) or not declared.has_flag(field))
    }
    options = {key: value for key, value in flags.options.items() if _is_for(declared, to_declared, key)}
    to_options = {key: value for key, value in flags.options.items() if _is_for(to_declared, declared, key)}
    return ConnectionFlags(fields, options), ConnectionFlags(to_fields, to_options, flags.to_options)


def _is_for(one: EngineOptions, other: EngineOptions, key: str) -> bool:
    """Whether an option of two connections is for that of `one`. An engine that takes any key gets what the other one
    does not know."""
    if one.find(key) is not None:
        return True
    return other.find(key) is None and (one.convert_other is not None or other.convert_other is None)


# ── secrets ─────────────────────────────────────────────────────────────────────────────────────


def read_secret_file(path: str) -> bytes:
    """The secret in the file at `path`; a final newline is not part of it. StartError if the file cannot be read,
    UsageError if it is empty."""
    try:
        with open(path, "rb") as file:
            secret = file.read()
    except OSError as error:
        raise StartError(f"cannot read the secret file {path}: {error.strerror or error}") from error
    secret = secret.removesuffix(b"\n").removesuffix(b"\r")
    if not secret:
        raise UsageError(f"the secret file {path} is empty")
    return secret


def secret_as_text(secret: bytes | None, origin: str) -> str:
    """A password, which has to be UTF-8; "" without one. StartError that begins with `origin`."""
    try:
        return (secret or b"").decode("utf-8")
    except UnicodeDecodeError as error:
        raise StartError(f"{origin}: the password is not UTF-8 (at byte {error.start})") from error


USER_OR_SECRET = "a user name, or a secret"


def password_refused(address: str, variable: str, what: str = "a password") -> UsageError:
    """The error for `address`, which has `what` and stands on a command line. variable: of the environment."""
    return UsageError(
        f"{without_userinfo(address)} has {what}: every user of this machine can read a command line; put it into a"
        f" file (--auth-secret-file), a profile, or the environment (QTOOLS_BROKER, {variable})"
    )


def refuse_passwords(addresses: Sequence[str], variable: str) -> None:
    """UsageError if one of `addresses` of a command line has a password."""
    for text in addresses:
        if "://" in text and "@" in text:
            userinfo = text.partition("://")[2].rpartition("@")[0]
            raise password_refused(text, variable, "a password" if ":" in userinfo else USER_OR_SECRET)
