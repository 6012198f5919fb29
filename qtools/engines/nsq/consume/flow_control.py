"""How max-in-flight is shared among connections. In: numbers. Out: a ready count for each. Pure.

A ready count is a window: the broker sends while fewer messages than that are in flight on the connection.
Their sum stays within max-in-flight, whatever happens. Connections on which messages came lately get
the room; an idle one keeps a single place, so that it can show that it is idle no more.
"""

from __future__ import annotations

from collections.abc import Sequence


def share(max_in_flight: int, active: Sequence[bool], caps: Sequence[int], turn: int = 0) -> list[int]:
    """Ready counts for connections of which `active[i]` had messages lately and takes `caps[i]` at most.

    With fewer places than connections, `turn` (any growing number) decides who goes without this time;
    active ones are served first.
    """
    count = len(active)
    shares = [0] * count
    if not count or max_in_flight <= 0:
        return shares
    if max_in_flight < count:
        busy = [place for place in range(count) if active[place]]
        idle = [place for place in range(count) if not active[place]]
        # Were all places taken by active ones, an idle connection could never become active. One place of several
        # is for an idle one; a single place they have by turns.
        alternate = max_in_flight == 1 and busy and idle
        for_idle = turn % 2 if alternate else min(1, len(idle))
        steps = turn // 2 if alternate else turn
        chosen = _rotated(busy, steps)[: max_in_flight - for_idle]
        chosen += _rotated(idle, steps)[: max_in_flight - len(chosen)]
        for place in chosen:
            shares[place] = min(1, caps[place])
        return shares
    for place in range(count):
        shares[place] = min(1, caps[place])
    left = max_in_flight - sum(shares)
    hungry = [place for place in range(count) if active[place]] or list(range(count))
    left = _spread(left, hungry, shares, caps)
    if left and len(hungry) < count:
        _spread(left, [place for place in range(count) if not active[place]], shares, caps)
    return shares


def _rotated(places: list[int], steps: int) -> list[int]:
    begin = steps % len(places) if places else 0
    return places[begin:] + places[:begin]


def _spread(left: int, places: list[int], shares: list[int], caps: Sequence[int]) -> int:
    """Add `left` evenly to `shares` at `places`, none above its cap; return what did not fit."""
    places = [place for place in places if shares[place] < caps[place]]
    while left and places:
        each, extra = divmod(left, len(places))
        for nth, place in enumerate(places):
            more = min(each + (nth < extra), caps[place] - shares[place])
            shares[place] += more
            left -= more
        places = [place for place in places if shares[place] < caps[place]]
    return left
