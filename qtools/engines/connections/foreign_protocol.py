"""Names the protocol of a server that was taken for another one. In: the first bytes that it sent. Out: its name."""

from __future__ import annotations

import re

# How the first answer of a server begins, whatever it was asked → what the server speaks.
_SIGNS = (
    (re.compile(rb"INFO \{"), "NATS"),
    (re.compile(rb"AMQP[\0\1]"), "AMQP"),
    (re.compile(rb"\+PONG\r\n|-(ERR (?!')|(NOAUTH|WRONGPASS|DENIED|NOPERM|LOADING|MASTERDOWN) )"), "Redis"),
    (re.compile(rb"HTTP/1\.[01] "), "HTTP"),
    (re.compile(rb"[\x14\x15\x16]\x03[\0-\4]"), "TLS"),
    (re.compile(rb"\0\0\0.\0\0\0[\0\1\2](OK|E_|\{|_heartbeat_)", re.DOTALL), "NSQ"),
    (re.compile(rb"SSH-[12]"), "SSH"),
)


def protocol_of(first: bytes) -> str:
    """The name of what a server speaks that began with the bytes `first`; "" if it is not known."""
    return next((name for sign, name in _SIGNS if sign.match(first)), "")
