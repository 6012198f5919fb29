"""A message and all that is known of it, as JSON and as msgpack, and back without loss."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import msgpack
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qtools.errors import InputError
from qtools.formats.envelope import (
    EnvelopeSplitter,
    MsgpackSplitter,
    decode_envelope,
    encode_envelopes,
    encode_msgpack,
)
from qtools.formats.lines import Splitter
from qtools.message import Batch, Message, Messages
from tests.engines.nsq.protocol.streams import bytewise, cut, halves


class Place:
    """An origin that is only a name."""

    def __init__(self, topic: str, address: str) -> None:
        self.topic, self.address = topic, address

    def finish(self, ids: Sequence[bytes]) -> None: ...
    def requeue(self, ids: Sequence[bytes], delay_ms: int) -> None: ...
    def touch(self, ids: Sequence[bytes]) -> None: ...


def batch(*messages: Message, topic: str = "events", address: str = "127.0.0.1:4150") -> Batch:
    return Batch.of(Place(topic, address), Messages.of(messages))


def read(splitter: Splitter, chunks: Sequence[bytes]) -> tuple[list[bytes], str | None]:
    bodies: list[bytes] = []
    try:
        for chunk in chunks:
            bodies += splitter.feed(chunk)
        bodies += splitter.end()
    except InputError as error:
        broken = error
    else:
        return bodies, None
    assert broken.offset == splitter.consumed
    return bodies, str(broken)


messages = st.builds(
    Message,
    st.integers(-(2**63), 2**63 - 1),
    st.integers(0, 65535),
    st.text("0123456789abcdef", min_size=16, max_size=16).map(str.encode),
    st.one_of(st.binary(min_size=1, max_size=30), st.text(min_size=1, max_size=20).map(str.encode)),
)
some = st.lists(messages, min_size=1, max_size=6)
places = st.lists(st.integers(0, 300), max_size=30)

FIRST = Message(1_700_000_000_123_456_789, 2, b"0123456789abcdef", b"hello")


# ── out ─────────────────────────────────────────────────────────────────────────────────────────


def test_an_envelope_is_one_json_object_on_a_line() -> None:
    assert encode_envelopes(batch(FIRST)) == [
        b'{"topic":"events","id":"0123456789abcdef","timestamp":1700000000123456789,"attempts":2,'
        b'"source":"127.0.0.1:4150","body":"hello"}\n'
    ]


def test_a_body_that_is_not_utf8_stands_as_base64() -> None:
    (line,) = encode_envelopes(batch(Message(0, 1, b"", b"\xff\x00")))
    told = json.loads(line)
    assert told["body_base64"] == "/wA="
    assert "body" not in told


@pytest.mark.parametrize("body", [b"a\nb", b'"\\\x00\x1f', "grün \u2028 \U0001f600".encode(), b"\xef\xbb\xbfbom"])
def test_any_text_stays_on_one_line(body: bytes) -> None:
    (line,) = encode_envelopes(batch(Message(0, 1, b"", body)))
    assert line.index(b"\n") == len(line) - 1
    assert json.loads(line)["body"] == body.decode()


def test_msgpack_is_a_map_with_the_body_as_bin() -> None:
    (packed,) = encode_msgpack(batch(FIRST))
    assert msgpack.unpackb(packed) == {
        "topic": "events",
        "id": "0123456789abcdef",
        "timestamp": 1_700_000_000_123_456_789,
        "attempts": 2,
        "source": "127.0.0.1:4150",
        "body": b"hello",
    }
    assert b"\xc4\x05hello" in packed


def test_each_message_is_told_with_its_own_topic_and_address() -> None:
    joined = Batch.joined([batch(FIRST), batch(FIRST, FIRST, topic="other", address="[::1]:4150")])
    wanted = [("events", "127.0.0.1:4150"), ("other", "[::1]:4150"), ("other", "[::1]:4150")]
    told = [orjson.loads(line) for line in encode_envelopes(joined)]
    assert [(one["topic"], one["source"]) for one in told] == wanted
    told = [msgpack.unpackb(packed) for packed in encode_msgpack(joined)]
    assert [(one["topic"], one["source"]) for one in told] == wanted


def test_lines_of_a_file_have_an_envelope_too() -> None:
    lines = Batch.of_bodies(Place("", ""), [b"a", b"b"])
    assert [orjson.loads(line)["body"] for line in encode_envelopes(lines)] == ["a", "b"]
    assert [msgpack.unpackb(packed)["attempts"] for packed in encode_msgpack(lines)] == [0, 0]


@given(some)
def test_everything_that_is_known_of_a_message_is_in_both_forms(given_messages: list[Message]) -> None:
    whole = batch(*given_messages)
    for told in (
        [orjson.loads(line) for line in encode_envelopes(whole)],
        [msgpack.unpackb(packed) for packed in encode_msgpack(whole)],
    ):
        assert [(one["timestamp"], one["attempts"], one["id"].encode()) for one in told] == [
            (message.timestamp, message.attempts, message.id) for message in given_messages
        ]


# ── and back ────────────────────────────────────────────────────────────────────────────────────


@given(some, places)
def test_envelopes_give_back_the_same_bodies_however_they_are_cut(sent: list[Message], where: list[int]) -> None:
    text = b"".join(encode_envelopes(batch(*sent)))
    splitter = EnvelopeSplitter()
    assert read(splitter, cut(text, where)) == ([message.body for message in sent], None)
    assert splitter.consumed == len(text)


@given(some, places)
def test_msgpack_gives_back_the_same_bodies_however_it_is_cut(sent: list[Message], where: list[int]) -> None:
    text = b"".join(encode_msgpack(batch(*sent)))
    splitter = MsgpackSplitter()
    assert read(splitter, cut(text, where)) == ([message.body for message in sent], None)
    assert splitter.consumed == len(text)


@given(some)
def test_consumed_is_where_the_rest_can_be_read_anew(sent: list[Message]) -> None:
    for make, text in (
        (EnvelopeSplitter, b"".join(encode_envelopes(batch(*sent)))),
        (MsgpackSplitter, b"".join(encode_msgpack(batch(*sent)))),
    ):
        for begun in (text[: len(text) // 2], text[:-1]):
            splitter = make()
            bodies = splitter.feed(begun)
            rest, error = read(make(), [text[splitter.consumed :]])
            assert error is None
            assert bodies + rest == [message.body for message in sent]


@pytest.mark.parametrize(
    ("line", "body"),
    [
        (b'{"body":"a"}', b"a"),
        (b' { "body" : "a" } \r', b"a"),
        (b'{"body_base64":"/wA="}', b"\xff\x00"),
        (b'{"body":null,"body_base64":"/wA="}', b"\xff\x00"),
        (b'{"body":"b","body_base64":"/wA="}', b"b"),
        (b'{"other":[1,{"x":null}],"id":7,"topic":null,"timestamp":123456789012345678901234567890,"body":"a"}', b"a"),
        (b'{"body":"\\u00fc\\n\\ud83d\\ude00"}', "ü\n\U0001f600".encode()),
        (b'{"body":""}', b""),
    ],
)
def test_only_the_body_is_needed_and_unknown_keys_are_left_alone(line: bytes, body: bytes) -> None:
    assert decode_envelope(line) == body


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"{", "is not JSON"),
        (b"hello", "is not JSON"),
        (b"\xff", "is not JSON"),
        (b'{"body":"\xff"}', "is not JSON"),
        (b'{"body":"\\ud800"}', "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[]", "is not a JSON object"),
        (b'"body"', "is not a JSON object"),
        (b"{}", 'has neither a "body" nor a "body_base64" that is a string'),
        (b'{"body":7}', 'has neither a "body" nor a "body_base64" that is a string'),
        (b'{"body":7,"body_base64":"/wA="}', 'has neither a "body" nor a "body_base64" that is a string'),
        (b'{"body_base64":["/wA="]}', 'has neither a "body" nor a "body_base64" that is a string'),
        (b'{"body_base64":"/wA"}', "has a body_base64 that is not base64"),
        (b'{"body_base64":"/w A="}', "has a body_base64 that is not base64"),
        ('{"body_base64":"ü"}'.encode(), "has a body_base64 that is not base64"),
    ],
)
def test_a_line_that_is_no_envelope_says_why(line: bytes, why: str) -> None:
    with pytest.raises(ValueError, match="^" + why.replace("(", r"\(")):
        decode_envelope(line)


LINES = b'{"body":"one"}\n\n{"body":"two"}\n'


def test_a_broken_line_is_named_by_its_number_and_offset_however_it_is_cut() -> None:
    text = LINES + b'{"body":3}\n{"body":"four"}\n'
    for chunks in ([text], bytewise(text), *halves(text)):
        assert read(EnvelopeSplitter(), chunks) == (
            [b"one", b"two"],
            f'line 4 (at byte {len(LINES)}) has neither a "body" nor a "body_base64" that is a string',
        )


def test_what_is_whole_before_a_broken_line_is_given_first() -> None:
    splitter = EnvelopeSplitter()
    assert splitter.feed(LINES + b"nonsense\n") == [b"one", b"two"]
    assert splitter.empty_at == [1]
    for again in (b"", b'{"body":"five"}\n'):
        with pytest.raises(InputError, match="line 4"):
            splitter.feed(again)
    with pytest.raises(InputError, match="line 4"):
        splitter.end()


def test_the_last_line_needs_no_newline_and_may_be_broken() -> None:
    assert read(EnvelopeSplitter(), [b'{"body":"one"}\n{"body":"two"}']) == ([b"one", b"two"], None)
    bodies, error = read(EnvelopeSplitter(), [b'{"body":"one"}\n{"body":"tw'])
    assert bodies == [b"one"]
    assert error is not None
    assert error.startswith("line 2 (at byte 15) is not JSON")


def test_an_envelope_that_is_too_long_comes_after_the_good_ones() -> None:
    text = LINES + b'{"body":"' + b"x" * 100 + b'"}\n'
    for chunks in ([text], bytewise(text), *halves(text)):
        bodies, error = read(EnvelopeSplitter(50), chunks)
        assert bodies == [b"one", b"two"]
        assert error == f"a message of more than 50 bytes begins at byte {len(LINES)}: is the delimiter right?"


def test_empty_bodies_and_empty_lines_are_left_out_and_counted() -> None:
    splitter = EnvelopeSplitter()
    assert splitter.feed(b'{"body":""}\n{"body":"a"}\n\n{"body_base64":""}\n{"body":"b"}\n') == [b"a", b"b"]
    assert (splitter.empty, splitter.empty_at) == (3, [0, 2, 3])
    packed = b"".join(msgpack.packb({"body": body}) for body in (b"", b"a", b"", b"", b"b"))
    other = MsgpackSplitter()
    assert other.feed(packed) == [b"a", b"b"]
    assert (other.empty, other.empty_at) == (3, [0, 2, 3])


@pytest.mark.parametrize(
    "told",
    [
        {"body": b"a", "id": None, "more": [1, 2.5, {"x": b"y"}], 7: "seven"},
        {"body": b"a", "at": msgpack.Timestamp(1, 2)},
        {"body": b"a", "ext": msgpack.ExtType(42, b"zz")},
    ],
)
def test_msgpack_of_others_needs_only_a_binary_body(told: dict[Any, Any]) -> None:
    assert read(MsgpackSplitter(), [msgpack.packb(told)]) == ([b"a"], None)


ONE = msgpack.packb({"body": b"one"})


@pytest.mark.parametrize(
    "broken",
    [
        msgpack.packb({"body": "text"}),
        msgpack.packb({"id": 1}),
        msgpack.packb([b"one"]),
        b"\xc1",
        b"\x81\xa4body\xa1\xff",
        msgpack.packb({(1, 2): b"x"}, use_bin_type=True)[:1] + b"\x80\x01",  # a map for a key
        b"\x91" * 5000,
        b"hello",
    ],
)
def test_broken_msgpack_is_named_by_its_offset_after_the_good_ones(broken: bytes) -> None:
    text = ONE + ONE + broken
    for chunks in ([text], bytewise(text)):
        bodies, error = read(MsgpackSplitter(), chunks)
        assert bodies == [b"one", b"one"]
        assert error is not None
        assert error.startswith(f"the msgpack value at byte {2 * len(ONE)} is broken: ")
    splitter = MsgpackSplitter()
    splitter.feed(text)
    for ended in (lambda: splitter.feed(ONE), splitter.end):
        with pytest.raises(InputError, match="is broken"):
            ended()


def test_msgpack_that_ends_early_is_named_by_where_its_value_begins() -> None:
    for end in range(1, len(ONE)):
        assert read(MsgpackSplitter(), [ONE + ONE[:end]]) == (
            [b"one"],
            f"the input ends within the msgpack value at byte {len(ONE)}",
        )


def test_a_msgpack_value_that_is_too_long_is_told_in_words() -> None:
    longest = 1000
    splitter = MsgpackSplitter(longest)
    assert splitter.feed(ONE) == [b"one"]
    huge = msgpack.packb({"body": b"x" * (longest + 3 * 1024 * 1024)})

    def feed_all() -> None:
        for begin in range(0, len(huge), 64 * 1024):
            assert splitter.feed(huge[begin : begin + 64 * 1024]) == []

    with pytest.raises(InputError, match=rf"a message of more than {longest} bytes begins at byte {len(ONE)}"):
        feed_all()


@pytest.mark.parametrize("make", [EnvelopeSplitter, MsgpackSplitter])
@given(text=st.binary(max_size=200), where=places)
def test_garbage_is_read_or_named_and_nothing_else(make: Callable[[], Splitter], text: bytes, where: list[int]) -> None:
    splitter = make()
    read(splitter, cut(text, where))
    assert splitter.consumed <= len(text)
