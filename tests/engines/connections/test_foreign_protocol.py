"""A server of another kind is named by what it answers."""

from __future__ import annotations

import pytest

from qtools.engines.connections.foreign_protocol import protocol_of


@pytest.mark.parametrize(
    ("first", "name"),
    [
        (b'INFO {"server_id":"A"} \r\n', "NATS"),
        (b"+PONG\r\n", "Redis"),
        (b"-NOAUTH Authentication required.\r\n", "Redis"),
        (b"AMQP\x00\x00\x09\x01", "AMQP"),
        (b"HTTP/1.1 400 Bad Request\r\n", "HTTP"),
        (b"\x15\x03\x01\x00\x02\x02\x16", "TLS"),
        (b"\x00\x00\x00\x12\x00\x00\x00\x01E_INVALID", "NSQ"),
        (b"\xff\x00", ""),
        (b"", ""),
    ],
)
def test_a_server_is_named(first: bytes, name: str) -> None:
    assert protocol_of(first) == name
