"""How max-in-flight is shared among connections. In: numbers. Out: a ready count for each. No I/O.

A ready count is a window: the broker sends while fewer messages than that are in flight on the connection. The sum of
the ready counts never exceeds max-in-flight. Active connections, those with recent messages, share it; an idle one
keeps a ready count of 1, so that it becomes active when messages arrive.
"""

from __future__ import annotations

from collections.abc import Sequence


def share(max_in_flight: int, active: Sequence[bool], caps: Sequence[int], turn: int = 0) -> list[int]:
    """The ready count of each connection: `active[i]` if it had messages recently, `caps[i]` the most that it may have.

    If max_in_flight is less than the number of connections, some get 0, idle ones first. `turn`, any growing number,
    decides which, so that they take turns.
    """
    count = len(active)
    shares = [0] * count
    if not count or max_in_flight <= 0:
        return shares
    if max_in_flight < count:
        busy = [place for place in range(count) if active[place]]
        idle = [place for place in range(count) if not active[place]]
        # If active connections got everything, an idle one could never become active. So one of several messages is
        # for an idle connection; if max_in_flight is 1, active and idle connections take turns.
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
    receivers = [place for place in range(count) if active[place]] or list(range(count))
    left = _spread(left, receivers, shares, caps)
    if left and len(receivers) < count:
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
