"""Chunks become the same messages however they are cut, and nothing is lost before damage."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Sequence

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from qtools.errors import InputError
from qtools.formats.lines import DelimiterSplitter, LengthSplitter, Splitter, WholeSplitter, join_lengths, join_lines
from tests.engines.nsq.protocol.streams import bytewise, cut, halves

# Few different bytes, so that delimiters overlap themselves, are nearly there, and lie across chunks.
texts = st.lists(st.sampled_from(b"ab-"), max_size=40).map(bytes)
delimiters = st.lists(st.sampled_from(b"ab-"), min_size=1, max_size=4).map(bytes)
places = st.lists(st.integers(0, 60), max_size=30)


def read(splitter: Splitter, chunks: Sequence[bytes]) -> tuple[list[bytes], str | None]:
    """All bodies, and the error that ended them. Checks after every chunk that `consumed` is behind what was given."""
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


@given(texts, delimiters, places)
@example(b"---", b"--", [1])
@example(b"a---b", b"--", [1, 2, 3, 4])
def test_a_delimiter_splits_as_bytes_split_does_however_the_text_is_cut(
    text: bytes, delimiter: bytes, where: list[int]
) -> None:
    wanted = text.split(delimiter)
    splitter = DelimiterSplitter(delimiter)
    assert read(splitter, cut(text, where)) == ([body for body in wanted if body], None)
    assert splitter.consumed == len(text)
    assert splitter.empty == sum(not body for body in wanted[:-1])


@given(texts, delimiters)
def test_consumed_is_where_the_rest_can_be_read_anew_after_every_chunk(text: bytes, delimiter: bytes) -> None:
    for chunks in (bytewise(text), *halves(text)):
        splitter = DelimiterSplitter(delimiter)
        bodies: list[bytes] = []
        for chunk in chunks:
            bodies += splitter.feed(chunk)
            rest, error = read(DelimiterSplitter(delimiter), [text[splitter.consumed :]])
            assert error is None
            assert bodies + rest == [body for body in text.split(delimiter) if body]


def test_the_last_message_needs_no_delimiter_and_a_final_one_makes_no_message() -> None:
    assert read(DelimiterSplitter(), [b"a\nb"]) == ([b"a", b"b"], None)
    assert read(DelimiterSplitter(), [b"a\nb\n"]) == ([b"a", b"b"], None)
    assert read(DelimiterSplitter(), [b""]) == ([], None)
    assert read(DelimiterSplitter(), []) == ([], None)


def test_a_carriage_return_is_part_of_the_message() -> None:
    assert read(DelimiterSplitter(), [b"a\r\nb\r\n"]) == ([b"a\r", b"b\r"], None)


def test_an_empty_delimiter_is_none() -> None:
    with pytest.raises(ValueError, match="empty delimiter"):
        DelimiterSplitter(b"")


def test_empty_messages_are_left_out_and_named_by_their_place_in_the_chunk() -> None:
    splitter = DelimiterSplitter()
    assert splitter.feed(b"\na\n\n\nb\nc") == [b"a", b"b"]
    assert splitter.empty_at == [0, 2, 3]
    assert splitter.feed(b"\n\n") == [b"c"]
    assert splitter.empty_at == [1]
    assert splitter.feed(b"d") == []
    assert splitter.empty_at == []
    assert splitter.end() == [b"d"]
    assert (splitter.empty, splitter.empty_at) == (4, [])


# ── longer than any message is ──────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("delimiter", [b"\n", b"--"])
def test_a_message_that_is_too_long_is_refused_the_same_however_it_is_cut(delimiter: bytes) -> None:
    text = delimiter.join([b"one", b"two", b"x" * 11, b"three"])
    outcomes = [read(DelimiterSplitter(delimiter, 10), chunks) for chunks in ([text], bytewise(text), *halves(text))]
    begins = 6 + 2 * len(delimiter)
    told = f"a message of more than 10 bytes begins at byte {begins}: is the delimiter right?"
    assert {(tuple(bodies), error) for bodies, error in outcomes} == {((b"one", b"two"), told)}


def test_a_message_exactly_as_long_as_may_be_is_taken() -> None:
    text = b"x" * 10 + b"\n" + b"y" * 10
    for chunks in ([text], bytewise(text), *halves(text)):
        assert read(DelimiterSplitter(b"\n", 10), chunks) == ([b"x" * 10, b"y" * 10], None)


def test_whole_messages_before_one_that_is_too_long_are_given_first() -> None:
    splitter = DelimiterSplitter(b"\n", 10)
    assert splitter.feed(b"a\nb\n" + b"x" * 11) == [b"a", b"b"]
    for _ in range(2):  # and no later chunk makes it good again
        with pytest.raises(InputError, match="begins at byte 4") as caught:
            splitter.feed(b"\nmore\n")
        assert caught.value.offset == 4
    with pytest.raises(InputError, match="begins at byte 4"):
        splitter.end()


def test_what_is_held_of_an_endless_message_is_bounded() -> None:
    splitter = DelimiterSplitter(b"\n", 1000)
    for _ in range(10):
        assert splitter.feed(b"x" * 100) == []
    with pytest.raises(InputError):
        splitter.feed(b"x" * 100)


# ── with their length before them ───────────────────────────────────────────────────────────────

bodies_of_any_kind = st.lists(st.binary(max_size=20), max_size=12)


@given(bodies_of_any_kind, places)
def test_lengths_give_back_what_was_joined_however_it_is_cut(bodies: list[bytes], where: list[int]) -> None:
    text = join_lengths(bodies)
    splitter = LengthSplitter()
    assert read(splitter, cut(text, where)) == ([body for body in bodies if body], None)
    assert splitter.consumed == len(text)
    assert splitter.empty == sum(not body for body in bodies)


def test_a_length_stands_before_its_body_in_four_bytes_with_the_high_one_first() -> None:
    assert join_lengths([b"ab", b"", b"c"]) == b"\0\0\0\2ab\0\0\0\0\0\0\0\1c"
    splitter = LengthSplitter()
    assert splitter.feed(b"\0\0\0\2ab\0\0\0\0\0\0\0\1c") == [b"ab", b"c"]
    assert splitter.empty_at == [1]


@given(bodies_of_any_kind)
def test_an_input_that_ends_within_a_message_is_named_by_where_that_begins(bodies: list[bytes]) -> None:
    text = join_lengths(bodies)
    whole = set()
    at = 0
    for body in bodies:
        whole.add(at)
        at += 4 + len(body)
    for end in range(len(text)):
        splitter = LengthSplitter()
        found, error = read(splitter, [text[:end]])
        if end in whole:
            assert error is None
        else:
            assert error is not None
            assert f"at byte {max(begin for begin in whole if begin < end)} " in error
        assert found == [body for body in found if body]
        assert join_lengths(bodies).startswith(join_lengths(found)) or b"" in bodies


def test_a_length_that_none_has_is_named_by_its_offset_however_it_is_cut() -> None:
    text = join_lengths([b"one", b"two"]) + struct.pack(">I", 11) + b"x" * 11
    for chunks in ([text], bytewise(text), *halves(text)):
        bodies, error = read(LengthSplitter(10), chunks)
        assert bodies == [b"one", b"two"]
        assert error == "the length at byte 14 is 11, more than any message has: is the input length32?"


def test_text_given_for_length32_is_told_at_once() -> None:
    with pytest.raises(InputError, match="is the input length32"):
        LengthSplitter().feed(b"hello, world\n")


# ── cost ────────────────────────────────────────────────────────────────────────────────────────


def _seconds(make: Callable[[], Splitter], size: int, step: int, head: bytes = b"", tail: bytes = b"") -> float:
    """The least of three runs over one message of `size` bytes that comes in chunks of `step`."""
    best = float("inf")
    for _ in range(3):
        splitter = make()
        begun = time.process_time()
        found = splitter.feed(head)
        for _ in range(size // step):
            found += splitter.feed(b"x" * step)
        found += splitter.feed(tail)
        best = min(best, time.process_time() - begun)
        assert found == [b"x" * size]
    return best


# 16 times the size: 16 times the time when each byte is handled once, 256 times when all are copied each time.
SMALL, LARGE, MOST = 15_000, 240_000, 60


@pytest.mark.parametrize("step", [1, 3])
@pytest.mark.parametrize("delimiter", [b"\n", b"\r\n", b"-----"])
def test_tiny_chunks_of_a_large_message_cost_no_more_each_than_those_of_a_small_one(
    delimiter: bytes, step: int
) -> None:
    def cost(size: int) -> float:
        return _seconds(lambda: DelimiterSplitter(delimiter), size, step, tail=delimiter)

    assert cost(LARGE) < MOST * cost(SMALL)


def test_tiny_chunks_with_a_length_before_them_cost_no_more_each() -> None:
    def cost(size: int) -> float:
        return _seconds(LengthSplitter, size, 1, head=struct.pack(">I", size))

    assert cost(LARGE) < MOST * cost(SMALL)


# ── the way back ────────────────────────────────────────────────────────────────────────────────


@given(st.lists(st.binary(min_size=1).filter(lambda body: b"\n" not in body)))
@settings(max_examples=50)
def test_joined_lines_split_into_the_same_bodies(bodies: list[bytes]) -> None:
    assert read(DelimiterSplitter(), [join_lines(bodies, b"\n")]) == (bodies, None)


def test_every_line_ends_with_the_delimiter() -> None:
    assert join_lines([], b"\0") == b""
    assert join_lines([b"a"], b"\0") == b"a\0"
    assert join_lines([b"a", b"", b"b"], b"--") == b"a----b--"


@given(texts, places)
def test_a_whole_input_is_one_message(text: bytes, where: list[int]) -> None:
    splitter = WholeSplitter()
    assert read(splitter, cut(text, where)) == ([text] if text else [], None)
    assert splitter.consumed == len(text)


def test_a_whole_input_is_held_up_to_the_longest_message() -> None:
    splitter = WholeSplitter(10)
    assert splitter.feed(b"x" * 10) == []
    with pytest.raises(InputError, match="more than 10 bytes"):
        splitter.feed(b"x")
