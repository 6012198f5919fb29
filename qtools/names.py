"""The rules for the names of topics and channels. In: text. Out: the same text, or NameInvalid. No I/O.

A client has to check each name before it sends it: nsqd ignores extra words in a command, so that `PUB bad topic` would
publish to the topic `bad`.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from qtools.errors import NameInvalid, without_userinfo

MAX_NAME_LENGTH = 64  # with the suffix; nsqd internal/protocol/names.go
LONGEST_NAME = 249  # that any engine accepts: Kafka's topics. An engine's own limit is checked once it is known
EPHEMERAL = "#ephemeral"

_VALID = re.compile(r"[.a-zA-Z0-9_-]+(#ephemeral)?", re.ASCII)


def is_valid_name(name: str, longest: int = MAX_NAME_LENGTH) -> bool:
    """Whether nsqd accepts `name` as the name of a topic or a channel; longest: another limit than nsqd's."""
    return len(name) <= longest and _VALID.fullmatch(name) is not None


def is_ephemeral(name: str) -> bool:
    """Whether the topic or channel `name` is deleted with its last client and never stored on disk."""
    return name.endswith(EPHEMERAL)


def _check(kind: str, name: str, longest: int) -> str:
    if is_valid_name(name, longest):
        return name
    if not name:
        raise NameInvalid(kind, name, "is empty")
    if "://" in name:
        raise NameInvalid(kind, without_userinfo(name), "is a URL, and only a name can stand here")
    if len(name) > longest:
        raise NameInvalid(kind, name, f"has {len(name)} characters, at most {longest} are allowed")
    bad = re.search(r"[^.a-zA-Z0-9_-]", name.removesuffix(EPHEMERAL), re.ASCII)
    if bad is None:
        raise NameInvalid(kind, name, "has nothing before #ephemeral")
    if bad[0] == "#":
        raise NameInvalid(kind, name, "has a '#', which may only begin the suffix #ephemeral")
    raise NameInvalid(kind, name, f"has {bad[0]!r}; allowed are letters, digits and . _ -")


def check_topic(name: str, longest: int = MAX_NAME_LENGTH) -> str:
    """Return `name`, or raise NameInvalid. longest: the most characters."""
    return _check("topic", name, longest)


def check_channel(name: str, longest: int = MAX_NAME_LENGTH) -> str:
    """Return `name`, or raise NameInvalid. longest: the most characters."""
    return _check("channel", name, longest)


class Subscription(NamedTuple):
    """A topic and one of its channels, from which a command reads."""

    topic: str
    channel: str

    def __str__(self) -> str:
        return f"{self.topic}/{self.channel}"


def parse_source(text: str, default_channel: str, longest: int = MAX_NAME_LENGTH) -> Subscription:
    """`TOPIC` or `TOPIC/CHANNEL` → Subscription. NameInvalid if one of the two names is invalid."""
    topic, slash, channel = text.partition("/")
    return Subscription(check_topic(topic, longest), check_channel(channel if slash else default_channel, longest))
