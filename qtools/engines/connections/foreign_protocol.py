"""Names the protocol of a server that was taken for another one. In: the first bytes that it sent. Out: its name."""

from __future__ import annotations

import re

# How the first answer of a server begins, whatever it was asked → what the server speaks, and where it should be used.
_SIGNS = (
    (re.compile(rb"INFO \{"), "NATS", "nats://"),
    (re.compile(rb"AMQP[\0\1]"), "AMQP", "amqp://"),
    (re.compile(rb"\+PONG\r\n|-(ERR (?!')|(NOAUTH|WRONGPASS|DENIED|NOPERM|LOADING|MASTERDOWN) )"), "Redis", "redis://"),
    (re.compile(rb"HTTP/1\.[01] "), "HTTP", ""),
    (re.compile(rb"[\x14\x15\x16]\x03[\0-\4]"), "TLS", ""),
    (re.compile(rb"\0\0\0.\0\0\0[\0\1\2](OK|E_|\{|_heartbeat_)", re.DOTALL), "NSQ", "nsq://"),
    (re.compile(rb"SSH-[12]"), "SSH", ""),
)


def protocol_of(first: bytes) -> str:
    """The name of what a server speaks that began with the bytes `first`; "" if it is not known."""
    return next((name for sign, name, _ in _SIGNS if sign.match(first)), "")


def describe_foreign(first: bytes, own_scheme: str = "") -> str:
    """What a server speaks that began with the bytes `first`, as a part of a sentence: "answers Redis: its URL begins
    with redis://"; "" if it is not known, or belongs to the engine with the scheme `own_scheme`."""
    for sign, name, scheme in _SIGNS:
        if sign.match(first):
            if scheme and scheme == own_scheme:
                return ""
            if name == "TLS":
                return "answers TLS: its URL needs the scheme with TLS"
            return f"answers {name}: its URL begins with {scheme}" if scheme else f"answers {name}"
    return ""
