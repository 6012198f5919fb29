"""Any bytes at all are replies or a breach of protocol, however they are cut, and with either reader."""

from __future__ import annotations

import random

import pytest
from hypothesis import strategies as st

from qtools.engines.redis.protocol.entries import attributes_of, bodies_of
from qtools.engines.redis.protocol.replies import entries_of
from qtools.engines.redis.protocol.reply_reader import ReplyReader
from tests.engines.nsq.protocol.garbage import check_fit_to_show, explore, places

from .streams import READERS, bytewise, cut, read_all, recorded

strings = st.binary(max_size=40).map(lambda data: b"$%d\r\n%b\r\n" % (len(data), data))
numbers = st.integers(-(2**63), 2**63 - 1).map(lambda value: b":%d\r\n" % value)
lines = st.sampled_from(
    [b"+OK\r\n", b"-ERR no\r\n", b"$-1\r\n", b"*-1\r\n", b"_\r\n", b"#t\r\n", b",1.5\r\n", b"(12345678901234567890\r\n",
     b"$15\r\n1700000000000-0\r\n", b"$16\r\n1700000000000-12\r\n", b"=7\r\ntxt:abc\r\n"]
)  # fmt: skip
entries = st.builds(
    lambda number, body: (
        b"*2\r\n$15\r\n17000000000%02d-0\r\n*2\r\n$4\r\nbody\r\n$%d\r\n%b\r\n" % (number, len(body), body)
    ),
    st.integers(0, 99),
    st.binary(max_size=20),
)
kinds = st.sampled_from([b"*", b"~", b">"])


def listed(kind: bytes, items: list[bytes]) -> bytes:
    return b"%b%d\r\n%b" % (kind, len(items), b"".join(items))


def mapped(items: list[tuple[bytes, bytes]]) -> bytes:
    return b"%%%d\r\n%b" % (len(items), b"".join(key + value for key, value in items))


replies = st.recursive(
    st.one_of(strings, numbers, lines, entries),
    lambda inner: st.one_of(
        st.builds(listed, kinds, st.lists(inner, max_size=4)),
        # hiredis reads null for the value of a key that comes twice, which no server sends.
        st.builds(mapped, st.lists(st.tuples(strings, inner), max_size=3, unique_by=lambda pair: pair[0])),
        st.builds(listed, st.just(b"*"), st.lists(entries, max_size=6)),
    ),
    max_leaves=12,
)
streams = st.lists(replies, max_size=8).map(b"".join)
recorded_streams = st.sampled_from([case.answer for case in recorded()])


@explore(60, stream=st.one_of(streams, recorded_streams), ends=places)
def test_both_readers_read_what_is_valid_alike(stream: bytes, ends: list[int]) -> None:
    whole = read_all(ReplyReader, [stream])
    assert whole[1] is None
    for make in READERS.values():
        for chunks in ([stream], bytewise(stream), cut(stream, ends)):
            found = read_all(make, chunks)
            assert repr(found) == repr(whole)  # as 1 == True, and a push is a list


SEEDS = [case.answer for case in recorded()]
TOKENS = [
    b"\r\n",
    b"*",
    b"$",
    b"%",
    b"-1",
    b"1",
    b"999999999",
    b"*2\r\n",
    b"$3\r\n",
    b"\0",
    b"\xff",
    b"!",
    b"|",
    b"(1\r\n",
]


def spoilt_stream(draw: random.Random) -> bytes:
    """Answers of a server, of which a few bytes are not what they were; or noise."""
    if draw.random() < 0.1:
        return draw.randbytes(draw.randrange(40))
    stream = b"".join(draw.choices(SEEDS, k=draw.randrange(1, 4)))
    for _ in range(draw.randrange(4)):
        place = draw.randrange(len(stream) + 1)
        value = draw.choice([draw.choice(TOKENS), draw.randbytes(draw.randrange(1, 4))])
        stream = stream[:place] + value + stream[place + draw.choice((0, len(value), draw.randrange(10))) :]
    return stream[: draw.randrange(len(stream) + 1)] if draw.random() < 0.2 else stream


@pytest.mark.parametrize(
    "count", [2000, pytest.param(100_000, marks=[pytest.mark.slow, pytest.mark.timeout(900)])], ids=str
)
def test_any_bytes_are_replies_or_a_breach_of_protocol(count: int) -> None:
    for seed in range(count):
        draw = random.Random(seed)
        stream = spoilt_stream(draw)
        whole, whole_error = read_all(ReplyReader, [stream])
        one_by_one, error = read_all(ReplyReader, bytewise(stream))
        assert (error is None) == (whole_error is None), seed
        if error is None:
            assert repr(whole) == repr(one_by_one), seed
        else:
            check_fit_to_show(error)
            assert repr(whole) == repr(one_by_one[: len(whole)]), seed
        pieces = cut(stream, [draw.randrange(len(stream) + 1) for _ in range(4)])
        fast, fast_error = read_all(READERS["hiredis"], pieces)
        assert fast_error is None or str(fast_error), seed
        if error is None and fast_error is None:
            assert repr(fast) == repr(one_by_one), seed


@explore(
    200,
    fields=st.lists(st.binary(max_size=12) | st.sampled_from([b"body", b"key", b"null-body", b"timestamp-ns", b"9"]))
    .filter(lambda each: len(each) >= 2)
    .map(lambda each: each[: len(each) // 2 * 2]),
)
def test_any_fields_are_a_message(fields: list[bytes]) -> None:
    found = entries_of([[b"t", [[b"5-1", fields], [b"6-1", [b"body", b""]]]]])
    assert len(bodies_of(found[0][1])) == 2
    attributes_of(found[0][1])
