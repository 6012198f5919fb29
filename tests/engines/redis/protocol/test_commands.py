"""Commands as literal bytes, and as a client with code of its own packs them."""

from __future__ import annotations

import pytest
from harness.redis import packed
from hypothesis import given
from hypothesis import strategies as st

from qtools.attributes import TOMBSTONE, Attributes
from qtools.engines.redis.protocol import commands

from .record import CASES
from .streams import recorded

NONE = Attributes()


def test_golden_bytes() -> None:
    assert commands.encode("PING") == b"*1\r\n$4\r\nPING\r\n"
    assert commands.encode("GET", b"\xff\r\n", 12, "\udcff") == (
        b"*4\r\n$3\r\nGET\r\n$3\r\n\xff\r\n\r\n$2\r\n12\r\n$1\r\n\xff\r\n"
    )
    assert commands.add_entries("t", [b"ab", b"", b"c"], NONE) == (
        b"*5\r\n$4\r\nXADD\r\n$1\r\nt\r\n$1\r\n*\r\n$4\r\nbody\r\n$2\r\nab\r\n"
        b"*5\r\n$4\r\nXADD\r\n$1\r\nt\r\n$1\r\n*\r\n$4\r\nbody\r\n$0\r\n\r\n"
        b"*5\r\n$4\r\nXADD\r\n$1\r\nt\r\n$1\r\n*\r\n$4\r\nbody\r\n$1\r\nc\r\n"
    )
    assert commands.acknowledge("t", "g", [b"1-1", b"22-2"]) == (
        b"*5\r\n$4\r\nXACK\r\n$1\r\nt\r\n$1\r\ng\r\n$3\r\n1-1\r\n$4\r\n22-2\r\n"
    )


# Commands that were recorded, by how they are made here.
MADE = {
    "XADD events 1-1 body first": None,  # ids are the server's in what is published
    "XREADGROUP GROUP own me COUNT 3 STREAMS events >": commands.read_group("own", "me", 3, "events"),
    "XREADGROUP GROUP own me COUNT 10 BLOCK 1 STREAMS events >": commands.read_group(
        "own", "me", 10, "events", block_ms=1
    ),
    "XREADGROUP GROUP own me COUNT 2 STREAMS events 1-1": commands.read_group("own", "me", 2, "events", "1-1"),
    "XREAD COUNT 2 STREAMS events 1-3": commands.read_stream(2, "events", b"1-3"),
    "XRANGE events - + COUNT 2": commands.read_range("events", count=2),
    "XRANGE events (1-4 +": commands.read_range("events", "(1-4"),
    "XGROUP CREATE events own 0-0": commands.create_group("events", "own", "0-0"),
    "XACK events own 1-1 1-2 9-9": commands.acknowledge("events", "own", [b"1-1", b"1-2", b"9-9"]),
    "XPENDING events own - + 10 nobody": commands.pending_of("events", "own", "-", "+", 10, "nobody"),
    "XCLAIM events own other 0 1-3 1-4 IDLE 5 JUSTID": commands.claim(
        "events", "own", "other", [b"1-3", b"1-4"], ("IDLE", 5, "JUSTID")
    ),
    "XCLAIM events own other 0 1-4 1-5": commands.claim("events", "own", "other", [b"1-4", b"1-5"]),
    "XAUTOCLAIM events own me 0 0-0 COUNT 100": commands.claim_idle("events", "own", "me", 0, "0-0", 100),
}


def test_what_servers_have_understood() -> None:
    """The recorded bytes are packed by the recorder, and were answered as expected (test_readers.py)."""
    sent = {" ".join(map(str, case.words)): case.sent for case in recorded()}
    for words, made in MADE.items():
        assert made is None or made == sent[words], words
    assert len(sent) == len({tuple(map(str, words)) for words in CASES})


@pytest.mark.parametrize("options", [(), ("NOMKSTREAM",), ("NOMKSTREAM", "MAXLEN", "~", 1000)])
def test_messages_with_all_that_they_may_have(options: tuple[str | int, ...]) -> None:
    attributes = Attributes(
        keys=[b"k", None, b""],
        headers=[[("a", b"1"), ("body", b"2"), ("a", None)], (), [("header:x", b""), ("ü", b"\xff")]],
        timestamps=[5, 6, 7],
    )
    before = ("XADD", "t", *options, "*")
    assert commands.add_entries("t", [b"x", TOMBSTONE, b""], attributes, options) == b"".join(
        [
            packed((*before, "body", "x", "key", "k", "timestamp-ns", 5, "a", "1", "header:body", "2",
                    "null-header:a", "")),
            packed((*before, "null-body", "", "timestamp-ns", 6)),
            packed((*before, "body", "", "key", "", "timestamp-ns", 7, "header:header:x", "", "ü", b"\xff")),
        ]
    )  # fmt: skip


bodies = st.lists(st.binary(max_size=30), min_size=1, max_size=20)


@given(bodies, st.sampled_from(["t", "a-longer-name"]))
def test_a_batch_is_its_messages_one_by_one(bodies: list[bytes], topic: str) -> None:
    expected = b"".join(packed(("XADD", topic, "*", "body", body)) for body in bodies)
    assert commands.add_entries(topic, bodies, NONE) == expected
    assert commands.acknowledge(topic, "g", bodies) == packed(("XACK", topic, "g", *bodies))


def test_tombstones_without_other_attributes() -> None:
    made = commands.add_entries("t", [b"a", TOMBSTONE], NONE)
    assert made == packed(("XADD", "t", "*", "body", "a")) + packed(("XADD", "t", "*", "null-body", ""))
    assert b"null" not in commands.add_entries("t", [b"a", b""], NONE)


def test_hello() -> None:
    assert commands.hello(2, "q-tail", "", b"") == packed(("HELLO", 2, "SETNAME", "q-tail"))
    assert commands.hello(3, "n", "", b"p\xff") == packed(("HELLO", 3, "AUTH", "default", b"p\xff", "SETNAME", "n"))
    assert commands.hello(3, "n", "u", b"p") == packed(("HELLO", 3, "AUTH", "u", "p", "SETNAME", "n"))
