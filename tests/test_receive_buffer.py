"""Bytes that wait to be understood: none is lost, none is copied over and over."""

from __future__ import annotations

import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from qtools.receive_buffer import ReceiveBuffer


def test_what_was_not_understood_is_there_with_the_next_chunk() -> None:
    buffer = ReceiveBuffer()
    assert buffer.add(b"abcdef")
    buffer.at = 4
    assert buffer.add(b"gh")
    assert buffer.data[buffer.at :] == b"efgh"
    assert len(buffer) == 4


def test_a_reader_is_not_asked_before_what_it_needs_is_there() -> None:
    buffer = ReceiveBuffer()
    buffer.add(b"abc")
    buffer.at = 1
    buffer.need(6)
    assert [buffer.add(b"d"), buffer.add(b"e"), buffer.add(b"")] == [False, False, False]
    assert len(buffer) == 4
    assert buffer.add(b"fgh")
    assert buffer.data[buffer.at :] == b"bcdefgh"


def test_an_empty_chunk_takes_nothing_away_and_copies_nothing() -> None:
    buffer = ReceiveBuffer()
    buffer.add(b"x" * 1_000_000)
    buffer.at = 10
    tracemalloc.start()
    try:
        for _ in range(100):
            assert buffer.add(b"")
            buffer.at += 1
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(buffer) == 1_000_000 - 110
    assert peak < 10_000


def test_a_large_need_is_met_without_copying_what_waits() -> None:
    buffer = ReceiveBuffer()
    buffer.add(b"begun")
    buffer.need(8 * 1024 * 1024)
    chunk = b"x" * 65536
    tracemalloc.start()
    try:
        for _ in range(100):
            buffer.add(chunk)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 65536  # the chunks are the caller's; only the list of them grew


@given(st.lists(st.tuples(st.binary(max_size=20), st.integers(0, 5), st.integers(0, 30))))
def test_no_byte_is_lost_or_comes_twice(moves: list[tuple[bytes, int, int]]) -> None:
    buffer, came, read = ReceiveBuffer(), b"", b""
    for chunk, take, need in moves:
        came += chunk
        if buffer.add(chunk):
            read += buffer.data[buffer.at : buffer.at + take]
            buffer.at = min(buffer.at + take, len(buffer.data))
            if need > len(buffer):
                buffer.need(need)
        assert len(buffer) == len(came) - len(read)
    assert read + buffer.take_rest() == came
    assert len(buffer) == 0
