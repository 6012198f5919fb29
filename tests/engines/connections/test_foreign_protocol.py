"""A server of another kind is named by what it answers."""

from __future__ import annotations

import pytest

from qtools.engines.connections.foreign_protocol import describe_foreign


@pytest.mark.parametrize(
    ("first", "own", "text"),
    [
        (b'INFO {"server_id":"A"} \r\n', "nsq://", "answers NATS: its URL begins with nats://"),
        (b'INFO {"server_id":"A"} \r\n', "nats://", ""),
        (b"+PONG\r\n", "nats://", "answers Redis: its URL begins with redis://"),
        (b"-NOAUTH Authentication required.\r\n", "nats://", "answers Redis: its URL begins with redis://"),
        (b"AMQP\x00\x00\x09\x01", "redis://", "answers AMQP: its URL begins with amqp://"),
        (b"HTTP/1.1 400 Bad Request\r\n", "nats://", "answers HTTP"),
        (b"\x15\x03\x01\x00\x02\x02\x16", "nats://", "answers TLS: its URL needs the scheme with TLS"),
        (b"\x00\x00\x00\x12\x00\x00\x00\x01E_INVALID", "nats://", "answers NSQ: its URL begins with nsq://"),
        (b"\xff\x00", "nats://", ""),
        (b"", "nats://", ""),
    ],
)
def test_a_server_is_named(first: bytes, own: str, text: str) -> None:
    assert describe_foreign(first, own) == text
