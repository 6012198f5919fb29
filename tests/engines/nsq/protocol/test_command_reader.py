"""The broker's side: what is joined, what is refused and with which words, what it costs."""

from __future__ import annotations

import gc
import struct
import time
import tracemalloc
from collections.abc import Callable

import pytest

from qtools.engines.nsq.protocol import commands
from qtools.engines.nsq.protocol.client_commands import (
    Finish,
    Identify,
    Nop,
    Publish,
    Ready,
    RefusedCommand,
    Requeue,
    Sub,
)
from qtools.engines.nsq.protocol.command_reader import CommandLimits, CommandReader

from .streams import bytewise, cut, feed, understand

A = b"0123456789abcdef"


def number(value: int) -> bytes:
    return struct.pack(">i", value)


def mpub(declared: int, count: int, bodies: list[bytes]) -> bytes:
    """An MPUB put together by hand, so that it can lie."""
    return b"MPUB t\n" + number(declared) + number(count) + b"".join(number(len(body)) + body for body in bodies)


# ── joined ──


def test_a_run_of_fin_is_one_finish() -> None:
    ids = [b"%016x" % place for place in range(1000)]
    assert CommandReader(CommandLimits()).feed(commands.fin(ids)) == [Finish(commands.fin(ids))]


def test_pubs_in_a_row_to_one_topic_are_one_publish_that_owes_an_answer_each() -> None:
    stream = commands.pub("t", b"a") + commands.pub("t", b"b") + commands.pub("t", b"c")
    assert CommandReader(CommandLimits()).feed(stream) == [Publish("PUB", "t", [b"a", b"b", b"c"], answers=3)]


def test_only_pubs_to_the_same_topic_are_joined() -> None:
    stream = [
        commands.pub("t", b"a"),
        commands.pub("u", b"b"),
        commands.mpub("u", [b"c"]),
        commands.pub("u", b"d"),
        commands.dpub("u", b"e", 0),
        commands.NOP,
        commands.pub("u", b"f"),
    ]
    assert CommandReader(CommandLimits()).feed(b"".join(stream)) == [
        Publish("PUB", "t", [b"a"]),
        Publish("PUB", "u", [b"b"]),
        Publish("MPUB", "u", [b"c"]),
        Publish("PUB", "u", [b"d"]),
        Publish("DPUB", "u", [b"e"]),
        Nop(),
        Publish("PUB", "u", [b"f"]),
    ]


def test_many_topics_in_turn_are_told_apart() -> None:
    topics = [f"topic-{place}" for place in range(700)] * 2  # more than are remembered
    stream = b"".join(commands.pub(topic, topic.encode()) for topic in topics)
    assert CommandReader(CommandLimits()).feed(stream) == [Publish("PUB", topic, [topic.encode()]) for topic in topics]


# ── IDENTIFY ends the list ──


def test_the_list_ends_behind_an_identify_and_goes_on_when_asked() -> None:
    reader = CommandReader(CommandLimits())
    assert reader.feed(commands.identify(b"{}") + commands.NOP + commands.rdy(1)) == [Identify(b"{}")]
    assert reader.feed(b"") == [Nop(), Ready(1)]
    assert reader.feed(b"") == []


def test_what_follows_an_identify_can_be_taken_out_for_a_filter() -> None:
    reader = CommandReader(CommandLimits())
    assert reader.feed(commands.identify(b"{}") + b"\x16\x03\x01") == [Identify(b"{}")]
    assert reader.take_rest() == b"\x16\x03\x01"
    assert reader.feed(commands.NOP) == [Nop()]


# ── MPUB ──


@pytest.mark.parametrize("declared", [1, 4, 14, 15, 1000, 5 * 1024 * 1024])
def test_an_mpub_is_framed_by_its_count_whatever_size_it_declares(declared: int) -> None:
    stream = mpub(declared, 3, [b"a", b"bb", b"ccc"]) + commands.NOP
    meant = [Publish("MPUB", "t", [b"a", b"bb", b"ccc"]), Nop()]
    assert CommandReader(CommandLimits()).feed(stream) == meant
    assert understand(bytewise(stream)) == meant


def test_an_mpub_takes_no_more_messages_than_it_counts() -> None:
    stream = mpub(100, 1, [b"a"]) + commands.pub("t", b"b")
    assert CommandReader(CommandLimits()).feed(stream) == [Publish("MPUB", "t", [b"a"]), Publish("PUB", "t", [b"b"])]


def test_an_mpub_may_be_as_large_as_the_limits_allow() -> None:
    limits = CommandLimits(max_msg_size=100, max_body_size=212)
    bodies = [b"x" * 100, b"y" * 100]
    assert understand([mpub(212, 2, bodies)], limits) == [Publish("MPUB", "t", bodies)]
    assert understand(bytewise(mpub(212, 2, bodies)), limits) == [Publish("MPUB", "t", bodies)]


TOO_BIG = CommandLimits(max_msg_size=100, max_body_size=211)


@pytest.mark.parametrize(
    ("stream", "code", "text"),
    [
        (mpub(212, 2, []), "E_BAD_BODY", "MPUB body too big 212 > 211"),
        (mpub(0, 2, []), "E_BAD_BODY", "MPUB invalid body size 0"),
        (mpub(-1, 2, []), "E_BAD_BODY", "MPUB invalid body size -1"),
        (mpub(100, 0, []), "E_BAD_BODY", "MPUB invalid message count 0"),
        (mpub(100, -1, []), "E_BAD_BODY", "MPUB invalid message count -1"),
        (mpub(100, 42, []), "E_BAD_BODY", "MPUB invalid message count 42"),
        (mpub(100, 2, [b"x" * 101]), "E_BAD_MESSAGE", "MPUB message too big 101 > 100"),
        (mpub(100, 2, [b"x", b""]), "E_BAD_MESSAGE", "MPUB invalid message(1) body size 0"),
        (mpub(100, 2, [b"x"]) + number(-7), "E_BAD_MESSAGE", "MPUB invalid message(1) body size -7"),
        # It declares little and sends more than anybody may send: refused as soon as that is certain.
        (mpub(100, 2, [b"x" * 100, b"x" * 100]), "E_BAD_BODY", "MPUB body too big 212 > 211"),
        (mpub(100, 9, [b"x" * 100, b"x" * 96, b"", b""]), "E_BAD_BODY", "MPUB body too big 212 > 211"),
        (mpub(100, 41, [b"x" * 20] * 41), "E_BAD_BODY", "MPUB body too big 220 > 211"),
    ],
)
def test_an_mpub_that_may_not_be_is_refused_the_same_however_it_is_cut(stream: bytes, code: str, text: str) -> None:
    for chunks in ([stream], bytewise(stream), cut(stream, range(0, len(stream), 40)), [stream, commands.NOP]):
        assert understand(chunks, TOO_BIG) == [RefusedCommand(code, text)]


@pytest.mark.parametrize(
    ("stream", "code"),
    [
        (b"MPUB t\n" + number(212), "E_BAD_BODY"),
        (mpub(100, 0, []), "E_BAD_BODY"),
        (mpub(100, 3, [b"x"]) + number(0), "E_BAD_MESSAGE"),
        (mpub(100, 3, [b"x" * 100, b"x" * 50]) + number(100), "E_BAD_BODY"),
        (b"PUB t\n" + number(101), "E_BAD_MESSAGE"),
        (b"DPUB t 0\n" + number(0), "E_BAD_MESSAGE"),
        (b"IDENTIFY\n" + number(212), "E_BAD_BODY"),
        (b"AUTH\n" + number(-1), "E_BAD_BODY"),
        (b"PUB bad/topic\n", "E_BAD_TOPIC"),
    ],
)
def test_a_number_is_refused_as_soon_as_it_is_read(stream: bytes, code: str) -> None:
    """A client that sends no more, since it waits for an answer, gets it."""
    last = understand([stream], TOO_BIG)[-1]
    assert isinstance(last, RefusedCommand)
    assert last.code == code
    assert understand([stream[:-1]], TOO_BIG) == []


# ── sizes ──


@pytest.mark.parametrize(
    ("stream", "text"),
    [
        (b"PUB t\n" + number(101), "PUB message too big 101 > 100"),
        (b"PUB t\n" + number(2**31 - 1), "PUB message too big 2147483647 > 100"),
        (b"DPUB t 5\n" + number(101), "DPUB message too big 101 > 100"),
        (b"DPUB t 5\n" + number(-1), "DPUB invalid message body size -1"),
        (b"IDENTIFY\n" + number(212), "IDENTIFY body too big 212 > 211"),
        (b"AUTH\n" + number(212), "AUTH body too big 212 > 211"),
        (b"AUTH\n" + number(0), "AUTH invalid body size 0"),
        (b"AUTH secret\n" + number(1), "AUTH invalid number of parameters"),
        (b"DPUB t 3600001\n", "DPUB timeout 3600001 out of range 0-3600000"),
        (b"DPUB t 99999999999999999999\n", "DPUB could not parse timeout 99999999999999999999"),
        (b"TOUCH\n", "TOUCH insufficient number of params"),
        (b"TOUCH 123\n", "invalid message ID"),
        (b"REQ 123 0\n", "invalid message ID"),
        (b"REQ " + A + b" -1\n", "REQ could not parse timeout -1"),
        (b"REQ " + A + b" \xb2\n", "REQ could not parse timeout \ufffd"),  # a superscript two in latin-1 is no digit
        (b"SUB t\n", "SUB insufficient number of parameters"),
        (b'SUB t" c\n', 'SUB topic name "t\\"" is not valid'),
        (b"SUB t \xe9\n", 'SUB channel name "\\xe9" is not valid'),
        (b"FIN " + A + b"x\n", "invalid message ID"),
        (b"FIN " + A[1:] + b"\r\n", "invalid message ID"),  # the CR is the line's, not the id's
        (b"FIN 0123456 89abcdef\n", "invalid message ID"),
        (b" NOP\n", "invalid command "),
        (b"NOP \x00NOP\nnop\n", "invalid command nop"),
    ],
)
def test_what_may_not_be_is_refused_with_nsqd_s_words(stream: bytes, text: str) -> None:
    for chunks in ([stream], bytewise(stream)):
        last = understand(chunks, TOO_BIG)[-1]
        assert isinstance(last, RefusedCommand)
        assert last.text == text


def test_a_body_at_the_limit_passes() -> None:
    for stream in (commands.pub("t", b"x" * 100), commands.dpub("t", b"x" * 100, 3_600_000)):
        assert [type(command) for command in understand([stream], TOO_BIG)] == [Publish]
    assert understand([commands.identify(b"x" * 211)], TOO_BIG) == [Identify(b"x" * 211)]


def test_a_requeue_for_longer_than_allowed_is_for_as_long_as_allowed() -> None:
    assert understand([b"REQ " + A + b" 999999999\n"]) == [Requeue(A, 3_600_000)]


def test_a_number_that_is_left_empty_is_nothing() -> None:
    assert understand([b"RDY \n", b"REQ " + A + b" \n"]) == [Ready(0), Requeue(A, 0)]


def test_an_id_may_be_any_sixteen_bytes() -> None:
    assert understand([b"FIN \x00\xff\t'\"{}[]!$%&/()\nFIN " + A + b"\r\n"]) == [
        Finish(commands.fin([b"\x00\xff\t'\"{}[]!$%&/()"])),
        Finish(commands.fin([A])),
    ]


def test_a_line_of_16_kib_is_the_longest() -> None:
    longest = b"SUB t c " + b"x" * (16 * 1024 - 9) + b"\n"
    assert len(longest) == 16 * 1024
    for chunks in ([longest], cut(longest, range(0, len(longest), 1000))):
        assert understand(chunks) == [Sub("t", "c")]
    longer = longest[:-1] + b"x\n"
    for chunks in ([longer], cut(longer, range(0, len(longer), 1000)), [longer[:-1]]):
        assert understand(chunks) == [RefusedCommand("", "a command line of more than 16384 bytes")]


def test_a_reader_that_refused_says_nothing_more() -> None:
    reader = CommandReader(CommandLimits())
    assert len(reader.feed(b"NOP\nHELLO\nNOP\n")) == 2
    assert reader.feed(b"NOP\n") == []
    assert reader.feed(b"") == []


# ── cost ──


@pytest.mark.parametrize(
    "stream",
    [
        b"PUB t\n" + number(100 * 1024 * 1024),
        b"IDENTIFY\n" + number(100 * 1024 * 1024),
        b"AUTH\n" + number(100 * 1024 * 1024),
        b"DPUB t 0\n" + number(100 * 1024 * 1024),
        mpub(100 * 1024 * 1024, 20_000_000, []),
        mpub(100 * 1024 * 1024, 1, []) + number(100 * 1024 * 1024 - 8),
    ],
)
def test_an_announced_length_takes_no_memory(stream: bytes) -> None:
    limits = CommandLimits(max_msg_size=200 * 1024 * 1024, max_body_size=200 * 1024 * 1024)
    tracemalloc.start()
    try:
        assert understand([stream, b"\x00" * 3], limits) == []
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 64 * 1024


def test_what_is_remembered_of_the_lines_that_were_said_is_bounded() -> None:
    reader = CommandReader(CommandLimits())
    tracemalloc.start()
    try:
        for place in range(2000):
            line = b"PUB t%d " % place + b"x" * 15_000 + b"\n" + number(1) + b"x"
            assert reader.feed(line) == [Publish("PUB", f"t{place}", [b"x"])]
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 256 * 16_384


def seconds(stream: bytes, chunk: int) -> float:
    """The least processor time of five to understand `stream` in chunks of `chunk` bytes."""
    limits = CommandLimits(max_msg_size=64 * 1024 * 1024, max_body_size=64 * 1024 * 1024)
    chunks = cut(stream, range(0, len(stream), chunk))
    taken = []
    for _ in range(5):
        reader = CommandReader(limits)
        gc.collect()
        gc.disable()  # its work grows with all that the test run holds
        begun = time.process_time()
        found = [command for piece in chunks for command in feed(reader, piece)]
        taken.append(time.process_time() - begun)
        gc.enable()
        assert len(found) >= 1
    return min(taken)


@pytest.mark.parametrize(
    ("make", "chunk"),
    [
        (lambda times: commands.mpub("t", [b"x" * 100] * (10_000 * times)), 512),
        (lambda times: commands.mpub("t", [b"x" * (1_000_000 * times)] * 2), 1024),
        (lambda times: commands.pub("t", b"x" * (2_000_000 * times)), 512),
        (lambda times: commands.identify(b"{}") * (2_000 * times), 10_000_000),
        (lambda times: commands.fin([A] * (20_000 * times)), 4096),
    ],
    ids=["mpub of many", "mpub of large ones", "large pub", "identify again and again", "fin"],
)
def test_four_times_the_bytes_take_four_times_the_time(make: Callable[[int], bytes], chunk: int) -> None:
    small, large = seconds(make(1), chunk), seconds(make(4), chunk)
    assert large < 9 * small + 0.001, f"{large / small:.1f} times the time"  # 16 would be quadratic
