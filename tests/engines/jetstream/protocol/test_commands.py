"""Commands to the server, byte for byte; keys and headers as headers of NATS, and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qtools.attributes import TOMBSTONE
from qtools.engines.jetstream.protocol import commands
from qtools.engines.jetstream.protocol.attributes import (
    HeaderFields,
    decode_value,
    encode_value,
    header_block,
    with_tombstones,
)
from qtools.errors import MessageRefused


def test_the_bytes_of_each_command() -> None:
    assert commands.connect({"verbose": False, "name": "ä"}) == b'CONNECT {"verbose":false,"name":"\\u00e4"}\r\n'
    assert commands.subscribe(b"_INBOX.a.*", b"1") == b"SUB _INBOX.a.* 1\r\n"
    assert commands.unsubscribe(b"1") == b"UNSUB 1\r\n"
    assert commands.publish(b"a", b"xy", b"r") == b"PUB a r 2\r\nxy\r\n"
    block = b"NATS/1.0\r\nA: 1\r\n\r\n"
    assert commands.publish_with_headers(b"a", block, b"xy", b"r") == b"HPUB a r 18 20\r\n" + block + b"xy\r\n"
    assert commands.publish_all(b"a", [b"x", b"", b"yz"], b"_INBOX.q.", 9) == [
        b"PUB a _INBOX.q.9 1\r\nx\r\n", b"PUB a _INBOX.q.10 0\r\n\r\n", b"PUB a _INBOX.q.11 2\r\nyz\r\n",
    ]  # fmt: skip


def test_the_bytes_of_acknowledgements() -> None:
    assert commands.finish_all([]) == commands.answer_all([], commands.NAK) == b""
    assert commands.finish_all([b"$JS.ACK.a"]) == b"PUB $JS.ACK.a 0\r\n\r\n"
    assert commands.finish_all([b"a", b"b"]) == b"PUB a 0\r\n\r\nPUB b 0\r\n\r\n"
    assert commands.answer_all([b"a", b"b"], commands.TOUCH) == b"PUB a 4\r\n+WPI\r\nPUB b 4\r\n+WPI\r\n"
    assert commands.nak_later(1500) == b'-NAK {"delay":1500000000}'
    assert commands.answer_all([b"a"], commands.nak_later(1)) == b'PUB a 22\r\n-NAK {"delay":1000000}\r\n'


# ── attributes ──


def test_what_stands_in_the_headers_of_a_message() -> None:
    assert header_block(None, (), 0) == b""
    assert header_block(b"k", [("a", b"1"), ("a", None), ("b", b"\r\n")], 17, is_tombstone=True, message_id=b"m") == (
        b"NATS/1.0\r\nNats-Msg-Id: m\r\nQtools-Key: k\r\nQtools-Timestamp: 17\r\nQtools-Tombstone: true\r\n"
        b"a: 1\r\na: =?null?B??=\r\nb: =?binary?B?DQo=?=\r\n\r\n"
    )


def test_commands_to_the_server_are_not_published_again() -> None:
    headers = [("Nats-Expected-Last-Sequence", b"1"), ("nats-msg-id", b"x"), ("Qtools-Key", b"y"), ("kept", b"z")]
    assert header_block(None, headers, 0) == b"NATS/1.0\r\nkept: z\r\n\r\n"
    assert HeaderFields(b"NATS/1.0\r\nNats-Msg-Id: x\r\n\r\n").headers == [("Nats-Msg-Id", b"x")]


@pytest.mark.parametrize("name", ["", "a b", "a:b", "ä", "a\r\nb", "a\0"])
def test_a_name_that_cannot_be_carried(name: str) -> None:
    with pytest.raises(MessageRefused) as caught:
        header_block(None, [(name, b"1")], 0)
    assert not caught.value.is_too_large
    assert str(caught.value).isprintable()


@given(st.none() | st.binary(max_size=30) | st.sampled_from([b"=?null?B??=", b"=?binary?B?DQo=?=", b" a", b"a ", b""]))
def test_any_value_comes_back(value: bytes | None) -> None:
    encoded = encode_value(value)
    assert b"\r" not in encoded
    assert b"\n" not in encoded
    assert decode_value(encoded) == value


@given(
    key=st.none() | st.binary(max_size=20),
    headers=st.lists(
        st.tuples(st.from_regex(r"[a-m][!-9;-~]{0,8}", fullmatch=True), st.none() | st.binary(max_size=20)), max_size=4
    ),
    timestamp=st.integers(0, 2**62),
    is_tombstone=st.booleans(),
)
def test_any_attributes_come_back(
    key: bytes | None, headers: list[tuple[str, bytes | None]], timestamp: int, is_tombstone: bool
) -> None:
    found = HeaderFields(header_block(key, headers, timestamp, is_tombstone=is_tombstone))
    assert (found.key, list(found.headers), found.timestamp, found.is_tombstone) == (
        key, headers, timestamp, is_tombstone,
    )  # fmt: skip


@pytest.mark.parametrize("value", [b"=?binary?B?x?=", b"=?null?B?eA==?=", b"=?utf-8?B?eA==?=", b"=?"])
def test_values_of_other_programs_stay(value: bytes) -> None:
    assert decode_value(value) == value


def test_tombstones() -> None:
    block = header_block(None, (), 0, is_tombstone=True)
    assert with_tombstones([b"", b"", b"x"], [b"", block, block])[1] is TOMBSTONE
    assert with_tombstones([b"", b"", b"x"], [b"", block, block]) == [b"", b"", b"x"]
    bodies = [b"a"]
    assert with_tombstones(bodies, [b""]) is bodies
