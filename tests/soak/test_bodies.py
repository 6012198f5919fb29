"""Bodies that are numbered and checked: what comes back is the number, or a fault that is counted."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qtools.soak.bodies import MIN_SIZE, PROBE, BodyChecker, BodyMaker, CheckedBodies

RUN, OTHER = b"12345678", b"abcdefgh"


@given(st.integers(0, (1 << 62)), st.integers(1, 50), st.integers(MIN_SIZE, 500), st.integers(0, (1 << 63)))
def test_what_was_made_is_recognized(first: int, count: int, size: int, stamp: int) -> None:
    bodies = BodyMaker(RUN, size).make(first, count, stamp)
    assert {len(body) for body in bodies} == {size}
    found = BodyChecker(RUN, is_own_topic=True).check(bodies)
    assert found == CheckedBodies(tuple(range(first, first + count)), (stamp,) * count)


def test_large_bodies_have_every_byte_value() -> None:
    (body,) = BodyMaker(RUN, 5000).make(7, 1, 1)
    assert len(set(body)) == 256


@pytest.mark.parametrize("size", [MIN_SIZE, 200])
def test_every_single_bit_that_changes_is_found(size: int) -> None:
    (body,) = BodyMaker(RUN, size).make(7, 1, 1)
    for place in range(size * 8):
        changed = bytearray(body)
        changed[place // 8] ^= 1 << place % 8
        found = BodyChecker(RUN, is_own_topic=True).check([bytes(changed)])
        assert (list(found.numbers), found.corrupted, found.foreign) == ([], 1, 0)


@given(st.binary(max_size=80))
def test_others_are_foreign_and_in_an_own_topic_corrupted(body: bytes) -> None:
    assert BodyChecker(RUN, is_own_topic=False).check([body]) == CheckedBodies([], [], [], 1, 0)
    assert BodyChecker(RUN, is_own_topic=True).check([body]) == CheckedBodies([], [], [], 0, 1)


def test_cut_and_lengthened_bodies() -> None:
    (body,) = BodyMaker(RUN, 100).make(7, 1, 1)
    for changed in (body[:-1], body[:40], body[:12], body + b"x", body + b"\0", body + body):
        found = BodyChecker(RUN, is_own_topic=False).check([changed])
        assert (list(found.numbers), found.corrupted) == ([], 1)


def test_a_mixed_batch_keeps_the_order_of_its_numbers() -> None:
    ours, others = BodyMaker(RUN, 64), BodyMaker(OTHER, 64)
    bodies = [
        *ours.make(5, 2, 10),
        *others.make(0, 3, 11),
        *ours.make(PROBE + 3, 1, 12),
        os.urandom(64),
        ours.make(9, 1, 13)[0][:-1] + b"\xff",
        *ours.make(1, 1, 14),
    ]
    found = BodyChecker(RUN, is_own_topic=False).check(bodies)
    assert found == CheckedBodies([5, 6, 1], [10, 10, 14], [3], 4, 1)
    assert BodyChecker(RUN, is_own_topic=False).check([]) == CheckedBodies((), ())
