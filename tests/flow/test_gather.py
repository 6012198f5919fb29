"""Batches collected by count, bytes and age, by an invented clock."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from qtools.flow.gather import Gather
from qtools.message import Batch
from tests.flow.memory import Ledger

FAR = 10**9


def bodies(*each: bytes) -> Batch:
    return Batch.of_bodies(Ledger(), list(each))


def test_nothing_collected_is_nothing_to_take() -> None:
    assert Gather(1, 1, 1.0).take() is None


def test_it_is_time_when_the_count_is_reached() -> None:
    gather = Gather(3, FAR, FAR)
    assert not gather.add(bodies(b"a", b"b"), 0.0)
    assert gather.add(bodies(b"c", b"d"), 0.0)
    taken = gather.take()
    assert taken is not None
    assert taken.bodies == [b"a", b"b", b"c", b"d"]
    assert gather.take() is None


def test_it_is_time_when_the_bytes_are_reached() -> None:
    gather = Gather(FAR, 5, FAR)
    assert not gather.add(bodies(b"abcd"), 0.0)
    assert gather.add(bodies(b"e"), 0.0)


def test_it_is_time_when_the_first_is_too_old() -> None:
    gather = Gather(FAR, FAR, 2.0)
    assert not gather.add(bodies(b"a"), 10.0)
    assert gather.due == 12.0
    assert not gather.add(bodies(b"b"), 11.9)
    assert gather.due == 12.0
    assert gather.add(bodies(b"c"), 12.0)


def test_counting_begins_anew_after_it_was_taken() -> None:
    gather = Gather(2, 4, 2.0)
    assert gather.add(bodies(b"ab", b"cd"), 0.0)
    gather.take()
    assert not gather.add(bodies(b"abc"), 5.0)
    assert gather.due == 7.0


def test_no_age_at_all_hands_on_at_once() -> None:
    assert Gather(FAR, FAR, 0.0).add(bodies(b"a"), 3.0)


@given(st.lists(st.tuples(st.lists(st.binary(min_size=1, max_size=4), min_size=1, max_size=4), st.floats(0, 1))))
def test_nothing_is_lost_doubled_or_moved(script: list[tuple[list[bytes], float]]) -> None:
    gather = Gather(5, 12, 1.5)
    now = 0.0
    out: list[bytes] = []
    for some, pause in script:
        now += pause
        if gather.add(bodies(*some), now):
            taken = gather.take()
            assert taken is not None
            out += taken.bodies
    left = gather.take()
    out += left.bodies if left is not None else []
    assert out == [body for some, _ in script for body in some]
