"""Replies: as real servers send them, whole and cut, and each type as literal bytes. Both readers give the same."""

from __future__ import annotations

import math
import sys
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from qtools.engines.redis.protocol.fast_reader import HiredisReader, Reader, make_reader
from qtools.engines.redis.protocol.replies import ErrorReply, Push, as_map, entries_of
from qtools.engines.redis.protocol.reply_reader import DEEPEST, LONGEST_LINE, ReplyReader
from qtools.errors import ProtocolError

from .streams import READERS, bytewise, cut, read_all, recorded

RECORDED = recorded()
NESTED = [[b"1-4", [b"body", b"b", b"key", b"k", b"header:key", b"v", b"null-header:n", b""]]]
FOREIGN = [b"1-5", [b"temperature", b"20", b"place", b"north"]]
FIRST = [[b"1-1", [b"body", b"first"]], [b"1-2", [b"body", b"a\r\nb\x00\xff"]]]
# What the recorded commands are answered, by their words; {2: …, 3: …} where the versions of RESP differ.
EXPECTED: dict[str, Any] = {
    "PING": b"PONG",
    "XADD events 1-1 body first": b"1-1",
    "XADD missing NOMKSTREAM * body x": None,
    "XADD events 1-1 body again": ErrorReply(
        "ERR The ID specified in XADD is equal or smaller than the target stream top item"
    ),
    "XADD text * body x": ErrorReply("WRONGTYPE Operation against a key holding the wrong kind of value"),
    "XLEN events": 5,
    "XRANGE events - + COUNT 2": FIRST,
    "XRANGE events (1-4 +": [FOREIGN],
    "XREADGROUP GROUP own me COUNT 10 BLOCK 1 STREAMS events >": None,
    "XREAD COUNT 2 STREAMS events 1-3": {
        2: [[b"events", [*NESTED, FOREIGN]]],
        3: {b"events": [*NESTED, FOREIGN]},
    },
    "XREAD COUNT 2 STREAMS events 1-5": None,
    "XACK events own 1-1 1-2 9-9": 2,
    "XPENDING events own": [3, b"1-3", b"1-5", [[b"me", b"3"]]],
    "XCLAIM events own other 0 1-3 1-4 IDLE 5 JUSTID": [b"1-4"],
    "XAUTOCLAIM events own me 0 0-0 COUNT 100": [b"0-0", [*NESTED, FOREIGN], []],
    "HGETALL nothing": {2: [], 3: {}},
    "NOSUCH command": ErrorReply("ERR unknown command 'NOSUCH', with args beginning with: 'command' "),
}


@pytest.fixture(params=READERS.values(), ids=READERS.keys())
def make(request: pytest.FixtureRequest) -> Callable[[], Reader]:
    made: Callable[[], Reader] = request.param
    return made


# ── recorded ──


def test_what_real_servers_answer(make: Callable[[], Reader]) -> None:
    seen = set()
    for case in RECORDED:
        words = " ".join(map(str, case.words))
        ((reply,), error) = read_all(make, [case.answer])
        assert error is None
        if words in EXPECTED:
            expected = EXPECTED[words]
            is_split = isinstance(expected, dict) and set(expected) == {2, 3}
            assert reply == (expected[case.resp] if is_split else expected), (case.server, case.resp, words)
            seen.add(words)
    assert seen == set(EXPECTED)


def test_both_readers_read_recordings_the_same_however_they_are_cut() -> None:
    for server in {(case.server, case.resp) for case in RECORDED}:
        stream = b"".join(case.answer for case in RECORDED if (case.server, case.resp) == server)
        whole = read_all(ReplyReader, [stream])
        assert len(whole[0]) == len(RECORDED) / 4
        for make in READERS.values():
            assert read_all(make, [stream]) == whole
            assert read_all(make, bytewise(stream)) == whole
            assert read_all(make, cut(stream, range(0, len(stream), 7))) == whole
            half = len(stream) // 2
            assert read_all(make, [stream[:half], stream[half:]]) == whole


# ── each type ──

TYPES: dict[bytes, Any] = {
    b"+OK\r\n": b"OK",
    b"+\r\n": b"",
    b"-ERR it is wrong\r\n": ErrorReply("ERR it is wrong"),
    b"-LOADING Redis is loading\r\n": ErrorReply("LOADING Redis is loading"),
    b"-\xff\r\n": ErrorReply("\ufffd"),
    b":0\r\n": 0,
    b":-9223372036854775808\r\n": -(2**63),
    b":9223372036854775807\r\n": 2**63 - 1,
    b"$0\r\n\r\n": b"",
    b"$4\r\n\r\n\r\n\r\n": b"\r\n\r\n",
    b"$-1\r\n": None,
    b"*-1\r\n": None,
    b"*0\r\n": [],
    b"*2\r\n:1\r\n*1\r\n$-1\r\n": [1, [None]],
    b"*2\r\n-ERR a\r\n+b\r\n": [ErrorReply("ERR a"), b"b"],
    b"_\r\n": None,
    b"#t\r\n": True,
    b"#f\r\n": False,
    b",1.5\r\n": 1.5,
    b",-inf\r\n": -math.inf,
    b"(3492890328409238509324850943850943825024385\r\n": b"3492890328409238509324850943850943825024385",
    b"=8\r\ntxt:abcd\r\n": b"abcd",
    b"%2\r\n+a\r\n:1\r\n+b\r\n*1\r\n_\r\n": {b"a": 1, b"b": [None]},
    b"%0\r\n": {},
    b"~2\r\n:1\r\n:1\r\n": [1, 1],
    b">2\r\n+invalidate\r\n*1\r\n+a\r\n": Push([b"invalidate", [b"a"]]),
    b"*" + b"1\r\n*" * (DEEPEST - 1) + b"0\r\n": eval("[" * DEEPEST + "]" * DEEPEST),
}


@pytest.mark.parametrize("stream", TYPES, ids=lambda stream: repr(stream[:20]))
def test_each_type(make: Callable[[], Reader], stream: bytes) -> None:
    expected = TYPES[stream]
    for chunks in ([stream], bytewise(stream), [stream + stream[:-1]]):
        found, error = read_all(make, chunks)
        assert (found, error) == ([expected], None)
        assert type(found[0]) is type(expected)
    assert read_all(make, [stream * 3])[0] == [expected] * 3


def plain_entry(number: int, body: bytes) -> bytes:
    ident = b"%d-%d" % (1_700_000_000_000 + number // 3, 10 ** (number % 5))
    return b"*2\r\n$%d\r\n%b\r\n*2\r\n$4\r\nbody\r\n$%d\r\n%b\r\n" % (len(ident), ident, len(body), body)


BODIES = [b"", b"\r\n", b"$1\r\na\r\n", b"x" * 300, bytes(range(256)), b"*2\r\n$15\r\n"] * 10
ENTRIES = b"*1\r\n*2\r\n$6\r\nevents\r\n*60\r\n" + b"".join(plain_entry(*pair) for pair in enumerate(BODIES))
ADDED = b"".join(b"$%d\r\n1700000000000-%d\r\n" % (13 + 1 + len(str(n)), n) for n in range(0, 30_000, 7))


def test_entries_and_ids_by_the_thousand_are_read_as_one_by_one(make: Callable[[], Reader]) -> None:
    """The runs that are parsed in one step."""
    for stream in (ENTRIES, ADDED, ADDED + ENTRIES + ADDED[:300]):
        one_by_one = read_all(ReplyReader, bytewise(stream))
        assert one_by_one[1] is None
        for size in (len(stream), 1, 7, 100, 1000):
            assert read_all(make, cut(stream, range(size, len(stream), size))) == one_by_one
    ((reply,), _) = read_all(make, [ENTRIES])
    ((key, entries),) = entries_of(reply)
    assert key == b"events"
    assert [fields for _, fields in entries] == [[b"body", body] for body in BODIES]
    assert entries[4][0] == b"1700000000001-10000"
    assert read_all(make, [ADDED])[0] == [b"1700000000000-%d" % number for number in range(0, 30_000, 7)]


# ── what is no reply ──

BROKEN = [
    b"HTTP/1.1 400 Bad Request\r\n", b"\r\n", b"\x00\x00\x00\x06", b"$x\r\n", b"$-2\r\n", b"$ 3\r\nabc\r\n", b":\r\n",
    b":1.5\r\n", b":9223372036854775808\r\n", b": 5\r\n", b"*-2\r\n", b"*x\r\n", b"#x\r\n", b"_x\r\n", b",x\r\n",
    b"(x\r\n", b"=3\r\nabc\r\n", b"=8\r\ntxt-abcd\r\n", b"+a\nb\r\n", b"+a\rb\r\n", b"%1\r\n*0\r\n:1\r\n",
    b"!5\r\nERR x\r\n", b"$?\r\n;1\r\na\r\n;0\r\n", b"*?\r\n", b"*2\r\n:1\r\nx\r\n",
]  # fmt: skip


@pytest.mark.parametrize("stream", BROKEN, ids=repr)
def test_what_is_no_reply_is_an_error(make: Callable[[], Reader], stream: bytes) -> None:
    for chunks in ([stream], bytewise(stream), [b"+OK\r\n", stream]):
        found, error = read_all(make, chunks)
        assert found in ([], [b"OK"])
        assert isinstance(error, ProtocolError)
        assert str(error).isprintable()


def test_a_string_that_goes_on_is_an_error() -> None:
    """hiredis does not look at the two bytes."""
    assert isinstance(read_all(ReplyReader, [b"$3\r\nabcde"])[1], ProtocolError)


def test_lists_in_lists_have_a_limit() -> None:
    error = read_all(ReplyReader, [b"*1\r\n" * (DEEPEST + 1)])[1]
    assert f"{DEEPEST} lists in lists" in str(error)
    found, error = read_all(READERS["hiredis"], [b"*1\r\n" * 100_000 + b":1\r\n"])
    assert len(found) == 1 or error is not None
    del found  # and it can be freed again


def test_a_line_has_a_limit() -> None:
    assert "65,536 bytes" in str(read_all(ReplyReader, [b"-" + b"x" * LONGEST_LINE])[1])


def test_sizes_that_are_only_announced_take_no_memory(make: Callable[[], Reader]) -> None:
    """hiredis reserves memory for a list; what the system refuses is an error, and the rest is never touched."""
    tracemalloc.start()
    try:
        for head in (b"$1000000000\r\n", b"*1\r\n$500000000\r\nabc"):
            assert read_all(make, [head]) == ([], None)
        if make is ReplyReader:
            assert read_all(make, [b"*2000000000\r\n", b"%2000000000\r\n"]) == ([], None)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
    found, error = read_all(make, [b"*4294967295\r\n", b"*4294967295\r\n", b":1\r\n"])
    assert found == []
    assert error is None or isinstance(error, ProtocolError)


def test_a_long_string_is_collected_once(make: Callable[[], Reader]) -> None:
    """In many chunks, in time that does not grow with their square: 4 MB in 40,000 chunks."""
    body = bytes(range(100)) * 40_000
    reader = make()
    found: list[Any] = reader.read(b"$%d\r\n" % len(body))
    for start in range(0, len(body), 100):
        found += reader.read(body[start : start + 100])
    assert found == []
    assert reader.read(b"\r\n") == [body]


# ── helpers ──


def test_replies_in_the_shape_of_their_callers() -> None:
    assert as_map([b"a", 1, b"b", [2]]) == as_map({b"a": 1, b"b": [2]}) == {b"a": 1, b"b": [2]}
    assert as_map(None) == as_map(5) == {}
    assert entries_of(None) == entries_of([]) == entries_of({}) == []
    assert entries_of({b"a": [1]}) == entries_of([[b"a", [1]]]) == [(b"a", [1])]
    assert (ErrorReply("NOGROUP No such key").code, ErrorReply("no code").code) == ("NOGROUP", "ERR")
    assert str(ErrorReply("ERR a\x1b[31m\nb")) == "ERR a [31m b"


def test_the_reader_is_hiredis_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(make_reader(), HiredisReader)
    monkeypatch.setitem(sys.modules, "hiredis", None)  # an import of it fails
    assert isinstance(make_reader(), ReplyReader)
