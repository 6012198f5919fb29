"""How many messages may pass, by an invented clock."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qtools.flow.throttle import Throttle

rates = st.floats(0.1, 100_000, allow_nan=False)


def passed(rate: float, wanted: int, until: float) -> list[tuple[float, int]]:
    """When how many passed, for someone who waits as long as he is told."""
    throttle = Throttle(rate)
    now = 1000.0
    found = []
    for _ in range(200_000):
        if now >= 1000.0 + until:
            return found
        count = throttle.take(wanted, now)
        if count:
            found.append((now - 1000.0, count))
        else:
            pause = throttle.wait_for(wanted)
            assert pause > 0
            now += max(pause, 1e-6)  # a clock goes on by something
    raise AssertionError("it never waits")


@pytest.mark.parametrize("rate", [0.5, 1, 3, 10, 99.5, 1000, 20_000])
@pytest.mark.parametrize("wanted", [1, 7, 5000])
def test_over_many_seconds_the_rate_is_kept(rate: float, wanted: int) -> None:
    until = 20.0 if rate < 1000 else 3.0
    count = sum(count for _, count in passed(rate, wanted, until))
    room = max(1.0, rate / 10)
    assert rate * until - room - 1 <= count <= rate * until + room


@pytest.mark.parametrize("rate", [0.5, 1, 3, 10, 99.5, 1000])
@pytest.mark.parametrize("wanted", [1, 7, 5000])
def test_within_any_second_at_most_a_burst_more_than_the_rate_passes(rate: float, wanted: int) -> None:
    found = passed(rate, wanted, 10.0)
    within, end = 0, 0
    for begin, count in found:  # a window of a second, moved on from one passing to the next
        while end < len(found) and found[end][0] < begin + 1:
            within += found[end][1]
            end += 1
        assert within <= max(1.0, rate / 10) + rate
        within -= count


@pytest.mark.parametrize("rate", [1, 3, 10, 99.5, 1000, 20_000])
@pytest.mark.parametrize("wanted", [1, 7, 5000])
def test_in_the_first_second_no_more_than_the_rate_passes(rate: float, wanted: int) -> None:
    assert rate * 0.85 - 1 <= sum(count for _, count in passed(rate, wanted, 0.999)) <= math.ceil(rate)


def test_a_room_that_is_given_is_full_at_first() -> None:
    throttle = Throttle(5, 5.0)
    assert throttle.take(10, 0.0) == 5


def test_after_an_idle_hour_a_tenth_of_a_second_passes_at_once() -> None:
    throttle = Throttle(100)
    throttle.take(1000, 0.0)
    assert throttle.take(1000, 3600.0) == 10
    assert throttle.take(1000, 3600.0) == 0
    assert throttle.take(1000, 3600.05) == 5


def test_a_slow_rate_lets_one_through_at_once_and_the_next_when_it_is_due() -> None:
    throttle = Throttle(0.5)
    assert throttle.take(3, 7.0) == 1
    assert throttle.take(2, 7.0) == 0
    assert throttle.wait_for(2) == pytest.approx(2.0)
    assert throttle.take(2, 8.9) == 0
    assert throttle.take(2, 9.0) == 1


def test_the_wait_is_for_all_that_is_wanted_or_as_much_as_ever_passes() -> None:
    throttle = Throttle(100)
    throttle.take(0, 0.0)
    assert throttle.take(10, 1.0) == 10
    assert throttle.wait_for(4) == pytest.approx(0.04)
    assert throttle.wait_for(4000) == pytest.approx(0.1)
    throttle.take(0, 2.0)
    assert throttle.wait_for(4) == 0.0


@given(rates, st.lists(st.tuples(st.integers(0, 1000), st.floats(0, 5)), max_size=30))
def test_never_more_than_wanted_nor_than_the_time_has_earned(rate: float, asked: list[tuple[int, float]]) -> None:
    throttle = Throttle(rate)
    now, total = 0.0, 0
    for wanted, pause in asked:
        count = throttle.take(wanted, now)
        assert 0 <= count <= wanted
        total += count
        assert total <= (max(1.0, rate / 10) + rate * now) * (1 + 1e-9)
        now += pause
