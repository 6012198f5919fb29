"""The token file: the rights of each token. In: a TOML file. Out: Callers; token → Caller, in constant time.

[[token]]
name = "shop"                          # for logs, which never have the token
token = "…"                            # at least 16 characters; or the SHA-256 of it:
# sha256 = "9f86d08…"
publish = ["orders.*"]                 # topics, with * and ?
subscribe = ["prices", "orders.*/web"] # TOPIC, on any channel, or TOPIC/CHANNEL
rate = 100                             # optional: requests a second, instead of --rate
subscriptions = 20                     # optional: streams at once, instead of --max-subscriptions
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import stat
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from qtools.errors import StartError, UsageError
from qtools.flow.throttle import Throttle

log = logging.getLogger("qtools.pubsub")

SHORTEST = 16  # characters: fewer can be guessed
_KEYS = {"name", "token", "sha256", "publish", "subscribe", "rate", "subscriptions"}


@dataclass(slots=True, eq=False)
class Caller:
    """The holder of a token. publish: patterns of topics. subscribe: patterns of TOPIC or TOPIC/CHANNEL."""

    name: str
    publish: tuple[str, ...] = ("*",)
    subscribe: tuple[str, ...] = ("*",)
    rate: float | None = None
    most_subscriptions: int | None = None
    subscriptions: int = 0
    throttle: Throttle | None = None
    _may: dict[tuple[str, str, str], bool] = field(default_factory=dict, repr=False)

    def may_publish(self, topic: str) -> bool:
        return self._allowed("publish", topic, "")

    def may_subscribe(self, topic: str, channel: str = "") -> bool:
        """channel: "" for a temporary channel."""
        return self._allowed("subscribe", topic, channel)

    def _allowed(self, right: str, topic: str, channel: str) -> bool:
        asked = (right, topic, channel)
        if asked not in self._may:
            if len(self._may) >= 1000:
                self._may.clear()
            patterns = self.publish if right == "publish" else self.subscribe
            self._may[asked] = any(_matches(pattern, topic, channel) for pattern in patterns)
        return self._may[asked]


def _matches(pattern: str, topic: str, channel: str) -> bool:
    topics, slash, channels = pattern.partition("/")
    return fnmatchcase(topic, topics) and (not slash or fnmatchcase(channel, channels))


class Tokens:
    """Callers by their token."""

    def __init__(self, callers: Sequence[tuple[bytes, Caller]]) -> None:
        self._callers = list(callers)  # (SHA-256 of the token, its caller)

    def find(self, token: bytes) -> Caller | None:
        """The caller with this token, or None. A wrong token takes as long as a right one."""
        digest = hashlib.sha256(token).digest()
        found = None
        for known, caller in self._callers:
            if hmac.compare_digest(known, digest):
                found = caller
        return found

    def __len__(self) -> int:
        return len(self._callers)


def read_tokens(path: str, *, quiet: bool = False) -> Tokens:
    """Read the token file; StartError when it cannot be read, UsageError when it is invalid. Unless `quiet`, log a
    warning if all users may read it."""
    try:
        with open(path, "rb") as file:
            if not quiet and os.fstat(file.fileno()).st_mode & stat.S_IROTH:
                log.warning("other users can read the tokens in %s: run chmod o-r %s", path, path)
            content = tomllib.loads(file.read().decode("utf-8-sig"))
    except OSError as error:
        raise StartError(f"cannot read the token file {path}: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"the token file {path} is not TOML: {error}") from error
    entries = content.get("token")
    if not isinstance(entries, list) or not entries or set(content) != {"token"}:
        raise UsageError(f"the token file {path} has to hold [[token]] tables, and nothing else")
    callers: list[tuple[bytes, Caller]] = []
    for number, entry in enumerate(entries, 1):
        try:
            callers.append(_caller(entry))
        except ValueError as error:
            raise UsageError(f"the token file {path}: token {number} {error}") from error
    if len({digest for digest, _ in callers}) < len(callers):
        raise UsageError(f"the token file {path} has the same token twice")
    if len({caller.name for _, caller in callers}) < len(callers):
        raise UsageError(f"the token file {path} has the same name twice")
    return Tokens(callers)


def _caller(entry: Any) -> tuple[bytes, Caller]:
    if not isinstance(entry, dict):
        raise ValueError("is no table")
    if unknown := set(entry) - _KEYS:
        raise ValueError(f"has {min(unknown)!r}, which is none of {', '.join(sorted(_KEYS))}")
    name = entry.get("name")
    if not isinstance(name, str) or not name or not name.isprintable():
        raise ValueError('has no "name", which logs call it by')
    rate, most = entry.get("rate"), entry.get("subscriptions")
    if rate is not None and (type(rate) not in (int, float) or not 0 < rate < 1e9):
        raise ValueError(f"({name}) has a rate that is no number of requests a second")
    if most is not None and (type(most) is not int or most < 0):
        raise ValueError(f"({name}) has subscriptions that are no number")
    rights = {right: _patterns(entry.get(right, []), right, name) for right in ("publish", "subscribe")}
    if not any(rights.values()):
        raise ValueError(f"({name}) may neither publish nor subscribe")
    return _digest(entry, name), Caller(name, rights["publish"], rights["subscribe"], rate, most)


def _digest(entry: dict[str, Any], name: str) -> bytes:
    token, digest = entry.get("token"), entry.get("sha256")
    if (token is None) == (digest is None):
        raise ValueError(f'({name}) needs either "token" or "sha256"')
    if token is not None:
        if not isinstance(token, str) or len(token) < SHORTEST or not token.isascii() or not token.isprintable():
            raise ValueError(f"({name}) has a token of less than {SHORTEST} printable ASCII characters")
        return hashlib.sha256(token.encode()).digest()
    try:
        made = bytes.fromhex(str(digest))
    except ValueError:
        made = b""
    if len(made) != hashlib.sha256().digest_size:
        raise ValueError(f"({name}) has a sha256 that is not 64 hex digits")
    return made


def _patterns(value: Any, right: str, name: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(pattern, str) and pattern for pattern in value):
        raise ValueError(f"({name}) has a {right} that is no list of patterns")
    if right == "publish" and any("/" in pattern for pattern in value):
        raise ValueError(f"({name}) has a channel in publish: one publishes to topics")
    return tuple(value)
