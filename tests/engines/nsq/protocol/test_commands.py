"""Client → server: each command as literal bytes, written by hand from the protocol's description; then round trips."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qtools.engines.nsq.protocol import commands
from qtools.engines.nsq.protocol.client_commands import (
    Auth,
    Close,
    Command,
    Finish,
    Identify,
    Nop,
    Publish,
    Ready,
    Requeue,
    Sub,
    Touch,
)
from qtools.engines.nsq.protocol.command_reader import CommandLimits, CommandReader
from qtools.flow.gather import request_ends

from .streams import bytewise, encoded, understand

A, B = b"0123456789abcdef", b"fedcba9876543210"

# bytes, how the client makes them, what the broker makes of them
GOLDEN: dict[str, tuple[bytes, Callable[[], bytes], list[Command]]] = {
    "IDENTIFY": (
        bytes.fromhex("4944454e544946590a 00000002 7b7d"),
        lambda: commands.identify(b"{}"),
        [Identify(b"{}")],
    ),
    "AUTH": (
        bytes.fromhex("415554480a 00000006 736563726574"),
        lambda: commands.auth(b"secret"),
        [Auth(b"secret")],
    ),
    "SUB": (b"SUB events archive\n", lambda: commands.sub("events", "archive"), [Sub("events", "archive")]),
    "SUB, ephemeral": (
        b"SUB e#ephemeral c#ephemeral\n",
        lambda: commands.sub("e#ephemeral", "c#ephemeral"),
        [Sub("e#ephemeral", "c#ephemeral")],
    ),
    "RDY": (b"RDY 2500\n", lambda: commands.rdy(2500), [Ready(2500)]),
    "RDY 0": (b"RDY 0\n", lambda: commands.rdy(0), [Ready(0)]),
    "FIN": (b"FIN 0123456789abcdef\n", lambda: commands.fin([A]), [Finish(commands.fin([A]))]),
    "FIN, a run": (
        b"FIN 0123456789abcdef\nFIN fedcba9876543210\nFIN 0123456789abcdef\n",
        lambda: commands.fin([A, B, A]),
        [Finish(commands.fin([A, B, A]))],
    ),
    "REQ": (b"REQ 0123456789abcdef 1500\n", lambda: commands.req([A], 1500), [Requeue(A, 1500)]),
    "REQ, a run": (
        b"REQ 0123456789abcdef 0\nREQ fedcba9876543210 0\n",
        lambda: commands.req([A, B], 0),
        [Requeue(A, 0), Requeue(B, 0)],
    ),
    "TOUCH": (b"TOUCH 0123456789abcdef\n", lambda: commands.touch([A]), [Touch(A)]),
    "TOUCH, a run": (
        b"TOUCH 0123456789abcdef\nTOUCH fedcba9876543210\n",
        lambda: commands.touch([A, B]),
        [Touch(A), Touch(B)],
    ),
    "CLS": (b"CLS\n", lambda: commands.CLS, [Close()]),
    "NOP": (b"NOP\n", lambda: commands.NOP, [Nop()]),
    "PUB": (
        bytes.fromhex("505542206576656e74730a 00000005 68656c6c6f"),
        lambda: commands.pub("events", b"hello"),
        [Publish("PUB", "events", [b"hello"])],
    ),
    "PUB, a body of newlines and NULs": (
        b"PUB t\n\x00\x00\x00\x04\n\x00\r\n",
        lambda: commands.pub("t", b"\n\x00\r\n"),
        [Publish("PUB", "t", [b"\n\x00\r\n"])],
    ),
    "PUB, a body that looks like commands": (
        b"PUB t\n\x00\x00\x00\x08NOP\nCLS\n",
        lambda: commands.pub("t", b"NOP\nCLS\n"),
        [Publish("PUB", "t", [b"NOP\nCLS\n"])],
    ),
    "DPUB": (
        b"DPUB events 2000\n\x00\x00\x00\x04late",
        lambda: commands.dpub("events", b"late", 2000),
        [Publish("DPUB", "events", [b"late"], delay_ms=2000)],
    ),
    "MPUB": (
        bytes.fromhex("4d505542206576656e74730a 00000011 00000002 00000003 6f6e65 00000002 7477"),
        lambda: commands.mpub("events", [b"one", b"tw"]),
        [Publish("MPUB", "events", [b"one", b"tw"])],
    ),
    "MPUB, a long message": (
        b"MPUB t\n\x00\x00\x10\x0d\x00\x00\x00\x02\x00\x00\x00\x01a\x00\x00\x10\x00" + b"x" * 4096,
        lambda: commands.mpub("t", [b"a", b"x" * 4096]),
        [Publish("MPUB", "t", [b"a", b"x" * 4096])],
    ),
}

every_command = pytest.mark.parametrize("name", GOLDEN)


@every_command
def test_a_command_is_encoded_to_the_bytes_of_the_protocol(name: str) -> None:
    golden, encode, _ = GOLDEN[name]
    assert encode() == golden


@every_command
def test_the_bytes_of_the_protocol_are_understood(name: str) -> None:
    golden, _, meant = GOLDEN[name]
    assert CommandReader(CommandLimits()).feed(golden) == meant


@every_command
def test_the_bytes_of_the_protocol_are_understood_byte_by_byte(name: str) -> None:
    golden, _, _ = GOLDEN[name]
    assert understand(bytewise(golden)) == understand([golden])


@every_command
def test_no_command_is_understood_before_its_last_byte(name: str) -> None:
    golden, _, _ = GOLDEN[name]
    if name.endswith("a run"):
        golden = golden[: golden.index(b"\n") + 1]
    for place in range(len(golden)):
        assert CommandReader(CommandLimits()).feed(golden[:place]) == []


def test_the_magic_is_two_spaces_and_v2() -> None:
    assert bytes.fromhex("20205632") == commands.MAGIC_V2


def test_all_commands_in_one_chunk_are_understood_in_order() -> None:
    stream = b"".join(golden for golden, _, _ in GOLDEN.values())
    assert understand([stream]) == understand(golden for golden, _, _ in GOLDEN.values())
    assert len(understand([stream])) == 24


@given(st.lists(st.binary(max_size=6000), max_size=5))
def test_the_declared_size_of_an_mpub_is_that_of_its_body(bodies: list[bytes]) -> None:
    whole = commands.mpub("t", bodies)
    body = whole[len(b"MPUB t\n") + 4 :]
    assert int.from_bytes(whole[7:11], "big") == len(body)
    assert request_ends(bodies, 5, len(body)) == [len(bodies)]
    assert len(request_ends(bodies, 5, len(body) - 1)) == (2 if len(bodies) > 1 else 1)
    assert int.from_bytes(body[:4], "big") == len(bodies)


names = st.from_regex(r"[.a-zA-Z0-9_-]{1,54}(#ephemeral)?", fullmatch=True)
ids = st.text("0123456789abcdef", min_size=16, max_size=16).map(str.encode)
bodies = st.binary(min_size=1, max_size=50)
any_command = st.one_of(
    st.builds(Identify, bodies),
    st.builds(Auth, bodies),
    st.builds(Sub, names, names),
    st.builds(Ready, st.integers(0, 2500)),
    st.builds(lambda ident: Finish(commands.fin([ident])), ids),
    st.builds(Requeue, ids, st.integers(0, 3_600_000)),
    st.builds(Touch, ids),
    st.just(Close()),
    st.just(Nop()),
    st.builds(lambda topic, body: Publish("PUB", topic, [body]), names, bodies),
    st.builds(lambda topic, body, delay: Publish("DPUB", topic, [body], delay), names, bodies, st.integers(0, 3600000)),
    st.builds(lambda topic, many: Publish("MPUB", topic, many), names, st.lists(bodies, min_size=1, max_size=4)),
)


@given(st.lists(any_command, max_size=12))
def test_what_is_encoded_is_understood_as_it_was_meant(said: list[Command]) -> None:
    assert understand([b"".join(map(encoded, said))]) == said
