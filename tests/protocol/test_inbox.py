"""Bytes that wait to be understood: none is lost, none is copied over and over."""

from __future__ import annotations

import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from qtools.protocol.inbox import Inbox


def test_what_was_not_understood_is_there_with_the_next_chunk() -> None:
    inbox = Inbox()
    assert inbox.add(b"abcdef")
    inbox.at = 4
    assert inbox.add(b"gh")
    assert inbox.data[inbox.at :] == b"efgh"
    assert len(inbox) == 4


def test_a_reader_is_not_asked_before_what_it_needs_is_there() -> None:
    inbox = Inbox()
    inbox.add(b"abc")
    inbox.at = 1
    inbox.need(6)
    assert [inbox.add(b"d"), inbox.add(b"e"), inbox.add(b"")] == [False, False, False]
    assert len(inbox) == 4
    assert inbox.add(b"fgh")
    assert inbox.data[inbox.at :] == b"bcdefgh"


def test_an_empty_chunk_takes_nothing_away_and_copies_nothing() -> None:
    inbox = Inbox()
    inbox.add(b"x" * 1_000_000)
    inbox.at = 10
    tracemalloc.start()
    try:
        for _ in range(100):
            assert inbox.add(b"")
            inbox.at += 1
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(inbox) == 1_000_000 - 110
    assert peak < 10_000


def test_a_large_need_is_met_without_copying_what_waits() -> None:
    inbox = Inbox()
    inbox.add(b"begun")
    inbox.need(8 * 1024 * 1024)
    chunk = b"x" * 65536
    tracemalloc.start()
    try:
        for _ in range(100):
            inbox.add(chunk)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 65536  # the chunks are the caller's; only the list of them grew


@given(st.lists(st.tuples(st.binary(max_size=20), st.integers(0, 5), st.integers(0, 30))))
def test_no_byte_is_lost_or_comes_twice(moves: list[tuple[bytes, int, int]]) -> None:
    inbox, came, read = Inbox(), b"", b""
    for chunk, take, need in moves:
        came += chunk
        if inbox.add(chunk):
            read += inbox.data[inbox.at : inbox.at + take]
            inbox.at = min(inbox.at + take, len(inbox.data))
            if need > len(inbox):
                inbox.need(need)
        assert len(inbox) == len(came) - len(read)
    assert read + inbox.take_rest() == came
    assert len(inbox) == 0
