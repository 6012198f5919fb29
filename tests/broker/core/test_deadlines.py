"""What comes due, and when."""

from __future__ import annotations

from qtools.broker.core.deadlines import Deadlines


def test_items_come_in_order_of_their_times() -> None:
    deadlines: Deadlines[str] = Deadlines()
    for when, item in ((3.0, "c"), (1.0, "a"), (2.0, "b"), (1.0, "a2")):
        deadlines.add(when, item)
    assert deadlines.next() == 1.0
    assert deadlines.take_due(0.9) == []
    assert deadlines.take_due(2.0) == ["a", "a2", "b"]
    assert deadlines.next() == 3.0
    assert len(deadlines) == 1


def test_cancelled_items_do_not_come() -> None:
    deadlines: Deadlines[str] = Deadlines()
    first, second = deadlines.add(1.0, "a"), deadlines.add(2.0, "b")
    deadlines.cancel(first)
    deadlines.cancel(first)
    assert deadlines.next() == 2.0
    assert len(deadlines) == 1
    assert deadlines.take_due(9.0) == ["b"]
    deadlines.cancel(second)  # has come already
    assert len(deadlines) == 0
    assert deadlines.next() is None


def test_cancelled_items_do_not_pile_up() -> None:
    deadlines: Deadlines[int] = Deadlines()
    for number in range(10_000):
        deadlines.cancel(deadlines.add(1e9 + number, number))
    keep = deadlines.add(5.0, -1)
    assert len(deadlines._heap) < 200
    assert deadlines.take_due(6.0) == [-1]
    assert keep.item is None


def test_clear_forgets_everything() -> None:
    deadlines: Deadlines[str] = Deadlines()
    deadlines.cancel(deadlines.add(1.0, "a"))
    deadlines.add(2.0, "b")
    deadlines.clear()
    assert deadlines.next() is None
    assert len(deadlines) == 0
