"""Which published messages are confirmed: in order, out of order, several at once, refused, and sent again."""

from __future__ import annotations

import asyncio
import random

import pytest

from qtools.engines.amqp.publish.confirm_window import ConfirmWindow, Segment
from qtools.engines.amqp.publish.request import PublishCall


def call(*sizes: int) -> PublishCall:
    groups = [("t", [b"x"] * size) for size in sizes]
    loop = asyncio.new_event_loop()
    try:
        return PublishCall(groups, None, 1000, loop.create_future(), 0.0)
    finally:
        loop.close()


def window(*sizes: int) -> tuple[ConfirmWindow, list[Segment]]:
    made, one = ConfirmWindow(), call(*sizes)
    segments = [Segment(one, group, range(size)) for group, size in enumerate(sizes)]
    for segment in segments:
        made.add(segment)
    return made, segments


def test_confirms_of_several_at_once() -> None:
    made, (first, second, third) = window(3, 2, 4)
    assert made.count == 9
    assert made.confirm([-2]) == []
    assert first.unconfirmed() == [2]
    assert made.confirm([-7]) == [first, second]
    assert third.unconfirmed() == [2, 3]
    assert made.confirm([-9]) == [third]
    assert made.count == 0


def test_single_confirms_in_any_order() -> None:
    made, segments = window(3, 2)
    assert made.confirm([2, 5]) == []
    assert segments[0].unconfirmed() == [0, 2]
    assert segments[1].unconfirmed() == [0]
    assert made.confirm([3]) == []
    assert made.confirm([4]) == []  # the second is whole, behind the first
    assert made.confirm([1]) == segments


@pytest.mark.parametrize("seed", range(20))
def test_any_order(seed: int) -> None:
    draw = random.Random(seed)
    sizes = [draw.randint(1, 6) for _ in range(6)]
    made, segments = window(*sizes)
    tags = list(range(1, sum(sizes) + 1))
    draw.shuffle(tags)
    left, done = set(tags), []
    for tag in tags:
        if tag in left and draw.random() < 0.3:
            left -= set(range(1, tag + 1))
            done += made.confirm([-tag])
        elif tag in left:
            left.discard(tag)
            done += made.confirm([tag])
        open_ = {segment.first + place for segment in made.segments for place in segment.unconfirmed()}
        assert open_ == left
    assert done == segments


def test_confirms_of_what_was_never_sent_change_nothing() -> None:
    made, segments = window(2)
    assert made.confirm([7]) == []
    assert made.confirm([1, 1, 2]) == segments
    assert made.confirm([1, -2, 3]) == []


def test_what_a_nack_names() -> None:
    made, (first, second) = window(3, 3)
    made.confirm([2])
    assert made.places_of(4, False) == [(second, 0)]
    assert made.places_of(5, True) == [(first, 0), (first, 2), (second, 0), (second, 1)]
    assert made.places_of(9, False) == []


def test_what_is_not_confirmed_is_sent_again() -> None:
    made, _ = window(3, 2)
    made.confirm([-1, 3, 5])
    again = made.take_all()
    assert [(segment.group, segment.places) for segment in again] == [(0, [1]), (1, [0])]
    assert (made.count, len(made.segments)) == (0, 0)
    other = ConfirmWindow()
    for segment in again:
        other.add(segment)
    assert other.confirm([-2]) == again


def test_places_of_ids() -> None:
    one = call(3, 0, 2)
    assert one.count == 5
    assert [one.place_of(number) for number in (999, 1000, 1002, 1003, 1004, 1005)] == [
        None, (0, 0), (0, 2), (2, 0), (2, 1), None,
    ]  # fmt: skip
    assert [one.id_of(*place) for place in ((0, 0), (2, 1))] == [1000, 1004]
