"""How max-in-flight is shared: never more in all, nobody above his cap, nobody left out for ever."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from qtools.engines.connections.flow_control import share

connections = st.lists(st.tuples(st.booleans(), st.integers(1, 3000)), max_size=12)


@given(st.integers(-1, 6000), connections, st.integers(0, 10**6))
def test_the_sum_stays_within_max_in_flight_and_each_within_its_cap(
    max_in_flight: int, shape: list[tuple[bool, int]], turn: int
) -> None:
    active, caps = [active for active, _ in shape], [cap for _, cap in shape]
    shares = share(max_in_flight, active, caps, turn)
    assert len(shares) == len(shape)
    assert sum(shares) <= max(0, max_in_flight)
    assert all(0 <= count <= cap for count, cap in zip(shares, caps, strict=True))


@given(st.integers(1, 6000), connections.filter(bool), st.integers(0, 10**6))
def test_no_place_is_wasted(max_in_flight: int, shape: list[tuple[bool, int]], turn: int) -> None:
    active, caps = [active for active, _ in shape], [cap for _, cap in shape]
    assert sum(share(max_in_flight, active, caps, turn)) == min(max_in_flight, sum(caps))


@given(st.integers(0, 6000), connections)
def test_where_there_is_room_for_all_everybody_has_a_place_and_the_active_share_the_rest(
    max_in_flight: int, shape: list[tuple[bool, int]]
) -> None:
    active, caps = [active for active, _ in shape], [cap for _, cap in shape]
    if max_in_flight < len(shape) or not any(active):
        return
    shares = share(max_in_flight, active, caps)
    assert all(shares)
    full = all(count == cap for count, cap, busy in zip(shares, caps, active, strict=True) if busy)
    for count, busy in zip(shares, active, strict=True):
        if not busy and not full:
            assert count == 1
    if len(set(caps)) == 1:
        even = [count for count, busy in zip(shares, active, strict=True) if busy]
        assert max(even) - min(even) <= 1


@given(st.integers(1, 11), st.lists(st.booleans(), min_size=2, max_size=12), st.integers(0, 1000))
def test_with_fewer_places_than_connections_everybody_has_a_turn(
    max_in_flight: int, active: list[bool], begin: int
) -> None:
    """An idle one too: it could not show otherwise that it is idle no more."""
    if max_in_flight >= len(active):
        return
    served = [0] * len(active)
    for turn in range(begin, begin + 4 * len(active)):
        for place, count in enumerate(share(max_in_flight, active, [2500] * len(active), turn)):
            served[place] += count
    assert all(served)


def test_with_fewer_places_than_connections_active_ones_are_served_first() -> None:
    active = [False, True, False, True, False]
    for turn in range(20):
        shares = share(3, active, [2500] * 5, turn)
        assert (shares[1], shares[3]) == (1, 1)


def test_an_even_share_differs_by_one_at_most() -> None:
    assert share(10, [False] * 3, [2500] * 3) == [4, 3, 3]
    assert share(2500, [True, False], [2500] * 2) == [2499, 1]
    assert share(2500, [True, False], [100] * 2) == [100, 100]
    assert share(0, [True], [1]) == [0]
    assert share(5, [], []) == []
