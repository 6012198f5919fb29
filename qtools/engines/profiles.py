"""Profiles: brokers by name. In: a name, the user's configuration file. Out: a Profile, or UsageError.

    [broker.prod]
    url = "nsqs+lookupd://lookup-1:4161,lookup-2:4161"
    password_file = "prod.secret"
    tls_ca = "prod-ca.pem"

Beside `url`, `user`, `password` and `password_file` a profile has the keys of its engine's options, which the engine
checks. A relative path in it begins in the file's directory. A profile that holds a secret itself is used only if no
other user can read the file.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from qtools.engines.url import LOCAL, BrokerUrl, parse_url
from qtools.errors import AddressInvalid, QtoolsError, StartError, UsageError
from qtools.paths import config_file


class Profile(NamedTuple):
    """A broker by its name in the file at `path`.

    url: with the user name and the password that the profile gives. options: key → value as TOML has it, unchecked.
    """

    name: str
    path: Path
    url: BrokerUrl
    options: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.path}: [broker.{self.name}]"

    def file(self, value: str) -> str:
        """The path that a value of this profile means."""
        return str(self.path.parent / Path(value).expanduser())


def read_profile(name: str, environ: Mapping[str, str] = os.environ) -> Profile:
    """The profile `name`; UsageError if there is none or it is wrong, StartError if the file cannot be read."""
    path = config_file(environ)
    try:
        tables, info = _read(path)
    except FileNotFoundError:
        raise UsageError(f"there is no profile {name!r}: {path} does not exist{_hint(name)}") from None
    except OSError as error:
        raise StartError(f"cannot read {path}: {error.strerror or error}") from error
    if name not in tables:
        names = ", ".join(tables) or "none"
        raise UsageError(f"there is no profile {name!r} in {path}, which has: {names}{_hint(name)}")
    return _profile(name, path, dict(tables[name]), is_private=_is_private(info))


def profile_names(environ: Mapping[str, str] = os.environ) -> list[str]:
    """The names of all profiles; none where the file cannot be read or is wrong."""
    try:
        return list(_read(config_file(environ))[0])
    except (OSError, QtoolsError):
        return []


def _read(path: Path) -> tuple[dict[str, dict[str, Any]], os.stat_result]:
    """The tables of the profiles in the file at `path`, by their names; OSError, UsageError."""
    import tomllib

    try:
        with path.open("rb") as file:
            info = os.fstat(file.fileno())
            return _tables(tomllib.loads(file.read().decode("utf-8-sig")), path), info
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 (at byte {error.start})") from error
    except tomllib.TOMLDecodeError as error:
        text = str(error)
        raise UsageError(f"{path} is not TOML: {text[:1].lower()}{text[1:]}") from error


def _tables(document: dict[str, Any], path: Path) -> dict[str, dict[str, Any]]:
    """The tables [broker.NAME] of the file."""
    for key in document:
        if key != "broker":
            raise UsageError(f"{path}: unknown key {key!r}; a profile begins with [broker.NAME]")
    tables = document.get("broker", {})
    if not isinstance(tables, dict):
        raise UsageError(f"{path}: broker is not a table; a profile begins with [broker.NAME]")
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise UsageError(f"{path}: {name!r} stands in [broker]; a profile begins with [broker.NAME]")
        if name == LOCAL:
            raise UsageError(f"{path}: [broker.{LOCAL}]: {LOCAL!r} is the private local broker; choose another name")
    return tables


def _profile(name: str, path: Path, table: dict[str, Any], *, is_private: bool) -> Profile:
    where = f"{path}: [broker.{name}]"
    words = {}
    for key in ("url", "user", "password", "password_file"):
        words[key] = table.pop(key, "")
        if not isinstance(words[key], str):
            raise UsageError(f"{where}: {key} is not a string")
    if not words["url"]:
        raise UsageError(f'{where} has no url: write url = "nsq://HOST:4150"')
    try:
        url = parse_url(words["url"])
    except AddressInvalid as error:
        raise UsageError(f"{where}: url: {error}") from error
    if url.topic:
        raise UsageError(f"{where}: url: {url} names a topic; a profile names a broker only")
    if len([secret for secret in (url.password, words["password"], words["password_file"]) if secret]) > 1:
        raise UsageError(f"{where} gives more than one of a password in url, password and password_file")
    if (words["password"] or url.password) and not is_private:
        raise UsageError(
            f"{where} holds a password, and other users can read the file, or it is not yours: run chmod 600 {path}"
        )
    url = url._replace(user=words["user"] or url.user, password=words["password"] or url.password)
    profile = Profile(name, path, url, {key.replace("-", "_"): value for key, value in table.items()})
    if words["password_file"]:
        profile.options["password_file"] = words["password_file"]
    return profile


def _is_private(info: os.stat_result) -> bool:
    """Whether the file is this user's, and no other user can read or write it."""
    return info.st_uid == os.geteuid() and not stat.S_IMODE(info.st_mode) & 0o077


def _hint(name: str) -> str:
    """What a name that looks like a host may have been meant as."""
    return f"; a broker's address is a URL: nsq://{name}" if "." in name or name == "localhost" else ""
