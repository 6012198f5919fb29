"""What the protocol core costs a message. Run: pytest bench/test_protocol.py; each test says its ns per message.

A chunk is what one read of a socket gives under load: 1000 messages of 190 bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from qtools.engines.nsq.protocol import commands
from qtools.engines.nsq.protocol.command_reader import CommandLimits, CommandReader
from qtools.engines.nsq.protocol.frames import FrameReader, encode_frame, encode_message
from qtools.engines.nsq.protocol.identify import IdentifyRequest, IdentifyResponse
from qtools.engines.nsq.protocol.session import ClientSession
from qtools.engines.nsq.protocol.transforms import Deflate, Snappy, Transform
from qtools.message import Message

COUNT = 1000
BODIES = [b'{"n": %6d, "type": "purchase", "text": "%s"}' % (place, b"x" * 145) for place in range(COUNT)]
IDS = [b"%016x" % place for place in range(COUNT)]
MESSAGES = [Message(1, 1, ident, body) for ident, body in zip(IDS, BODIES, strict=True)]
FRAMES = b"".join(map(encode_message, MESSAGES))
OKS = encode_frame(0, b"OK") * COUNT

Measure = Callable[..., Any]


@pytest.fixture
def measure(
    benchmark: BenchmarkFixture, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> Iterator[Measure]:
    """Time a call that sees to COUNT messages, and say what one of them cost."""
    yield benchmark
    if benchmark.stats is not None:
        cost = benchmark.stats.stats.min / COUNT * 1e9
        benchmark.extra_info["ns_per_message"] = round(cost, 1)
        with capsys.disabled():
            print(f"\n{request.node.name:45} {cost:8.1f} ns per message", end="")


def test_bodies_have_190_bytes() -> None:
    assert {len(body) for body in BODIES} == {190}


# ── the client's side ──


def test_decode_messages(measure: Measure) -> None:
    reader = FrameReader()
    messages, _ = measure(reader.read, FRAMES)
    assert len(messages) == COUNT


def test_decode_messages_cut_in_64_kib(measure: Measure) -> None:
    chunks = [FRAMES[start : start + 65536] for start in range(0, len(FRAMES), 65536)]
    reader = FrameReader()
    assert sum(measure(lambda: [len(reader.read(chunk)[0]) for chunk in chunks])) == COUNT


def test_decode_answers(measure: Measure) -> None:
    reader = FrameReader()
    _, frames = measure(reader.read, OKS)
    assert len(frames) == COUNT


def test_session_receives_messages(measure: Measure) -> None:
    session = ClientSession(IdentifyRequest())
    session.start()
    session.receive(encode_frame(0, IdentifyResponse().encode()))
    session.subscribe("events", "archive", None)
    session.receive(encode_frame(0, b"OK"))
    messages, _ = measure(session.receive, FRAMES)
    assert len(messages) == COUNT


def test_encode_mpub(measure: Measure) -> None:
    assert len(measure(commands.mpub, "events", BODIES)) == 12 + 8 + COUNT * 194


def test_encode_pub(measure: Measure) -> None:
    assert len(measure(lambda: b"".join([commands.pub("events", body) for body in BODIES]))) == COUNT * 205


def test_encode_fin(measure: Measure) -> None:
    assert len(measure(commands.fin, IDS)) == COUNT * 21


# ── the broker's side ──


@pytest.mark.parametrize(
    ("stream", "commands_"),
    [
        pytest.param(commands.mpub("events", BODIES), 1, id="MPUB"),
        pytest.param(b"".join(commands.pub("events", body) for body in BODIES), 1, id="PUB"),
        pytest.param(commands.fin(IDS), 1, id="FIN"),
        pytest.param(commands.req(IDS, 0), COUNT, id="REQ"),
    ],
)
def test_read_commands(measure: Measure, stream: bytes, commands_: int) -> None:
    reader = CommandReader(CommandLimits())
    assert len(measure(reader.feed, stream)) == commands_


def test_encode_messages(measure: Measure) -> None:
    assert measure(lambda: b"".join(map(encode_message, MESSAGES))) == FRAMES


# ── in between ──


@pytest.mark.parametrize("make", [Deflate, Snappy])
def test_pack(measure: Measure, make: Callable[[], Transform]) -> None:
    assert measure(make().encode, FRAMES)


@pytest.mark.parametrize("make", [Deflate, Snappy])
def test_unpack(measure: Measure, make: Callable[[], Transform]) -> None:
    packed = make().encode(FRAMES)
    assert measure(lambda: sum(map(len, make().decode(packed)))) == len(FRAMES)
