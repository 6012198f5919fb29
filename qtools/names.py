"""What a topic, a channel and a pair of them may be called. Checked before anything is sent.

nsqd ignores extra words on a command line, so `PUB bad topic` would publish to `bad`: a client has to
check names itself. In: text. Out: the same text, or NameInvalid. No I/O.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from qtools.errors import NameInvalid, without_userinfo

MAX_NAME_LENGTH = 64  # with the suffix; nsqd internal/protocol/names.go
EPHEMERAL = "#ephemeral"

_VALID = re.compile(r"[.a-zA-Z0-9_-]+(#ephemeral)?", re.ASCII)


def is_valid_name(name: str) -> bool:
    """Whether nsqd takes `name` for a topic or a channel."""
    return len(name) <= MAX_NAME_LENGTH and _VALID.fullmatch(name) is not None


def is_ephemeral(name: str) -> bool:
    """Whether what is called `name` goes away with its last client and never touches the disk."""
    return name.endswith(EPHEMERAL)


def _check(kind: str, name: str) -> str:
    if is_valid_name(name):
        return name
    if not name:
        raise NameInvalid(kind, name, "is empty")
    if "://" in name:
        raise NameInvalid(kind, without_userinfo(name), "is a URL, and only a name can stand here")
    if len(name) > MAX_NAME_LENGTH:
        raise NameInvalid(kind, name, f"has {len(name)} characters, at most {MAX_NAME_LENGTH} are allowed")
    bad = re.search(r"[^.a-zA-Z0-9_-]", name.removesuffix(EPHEMERAL), re.ASCII)
    if bad is None:
        raise NameInvalid(kind, name, "has nothing before #ephemeral")
    if bad[0] == "#":
        raise NameInvalid(kind, name, "has a '#', which may only begin the suffix #ephemeral")
    raise NameInvalid(kind, name, f"has {bad[0]!r}; allowed are letters, digits and . _ -")


def check_topic(name: str) -> str:
    """Return `name`, or raise NameInvalid."""
    return _check("topic", name)


def check_channel(name: str) -> str:
    """Return `name`, or raise NameInvalid."""
    return _check("channel", name)


class Subscription(NamedTuple):
    """Where to read: a topic and one of its channels."""

    topic: str
    channel: str

    def __str__(self) -> str:
        return f"{self.topic}/{self.channel}"


def parse_source(text: str, default_channel: str) -> Subscription:
    """`TOPIC` or `TOPIC/CHANNEL` → Subscription; NameInvalid when either is no name."""
    topic, slash, channel = text.partition("/")
    return Subscription(check_topic(topic), check_channel(channel if slash else default_channel))
