"""The next delay before another try."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from qtools.backoff import FIRST, LONGEST, next_delay


@given(st.integers(1, 10**9), st.floats(0, 1))
def test_half_of_a_doubling_delay_is_left_to_chance(failures: int, draw: float) -> None:
    most = min(LONGEST, FIRST * 2 ** min(failures - 1, 40))
    assert most / 2 <= next_delay(failures, draw) <= most
    assert most / 2 <= next_delay(failures) <= most


def test_the_first_try_comes_within_a_quarter_second_and_none_later_than_the_longest() -> None:
    assert next_delay(1, 1.0) == 0.25
    assert next_delay(1, 0.0) == 0.125
    assert [next_delay(n, 1.0) for n in (2, 3, 4, 5, 6, 7, 8, 99)] == [0.5, 1, 2, 4, 8, 15, 15, 15]
