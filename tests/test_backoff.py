"""The next delay before another try."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from qtools.backoff import FIRST, LONGEST, Outage, next_delay


@given(st.integers(1, 10**9), st.floats(0, 1))
def test_half_of_a_doubling_delay_is_left_to_chance(failures: int, draw: float) -> None:
    most = min(LONGEST, FIRST * 2 ** min(failures - 1, 40))
    assert most / 2 <= next_delay(failures, draw) <= most
    assert most / 2 <= next_delay(failures) <= most


def test_the_first_try_comes_within_a_quarter_second_and_none_later_than_the_longest() -> None:
    assert next_delay(1, 1.0) == 0.25
    assert next_delay(1, 0.0) == 0.125
    assert [next_delay(n, 1.0) for n in (2, 3, 4, 5, 6, 7, 8, 99)] == [0.5, 1, 2, 4, 8, 15, 15, 15]


def test_an_outage_is_from_the_first_failure_to_the_next_success() -> None:
    outage = Outage()
    assert outage.end(5.0) is None
    assert outage.fail("refused", 10.0)
    assert not outage.fail("timed out", 12.0)
    assert (outage.reason, outage.failures, outage.lasted(13.0)) == ("timed out", 2, 3.0)
    assert outage.end(14.5) == 4.5
    assert (outage.reason, outage.failures, outage.lasted(20.0), outage.end(20.0)) == ("", 0, 0.0, None)
    assert outage.fail("refused", 30.0)
    assert outage.lasted(31.0) == 1.0
