"""In-order confirmation, against a model that remembers every number."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qtools.flow.ledger import Ledger, SpanLedger, ranges_of


def test_numbers_are_confirmed_up_to_the_lowest_unfinished() -> None:
    ledger = Ledger()
    ledger.add(0, 5)
    ledger.add(5, 9)
    assert not ledger.finish(range(2, 5))
    assert ledger.confirmed == 0
    assert ledger.finish(range(2))
    assert ledger.confirmed == 5
    assert not ledger.finish([8])
    assert ledger.finish([5, 6, 7])
    assert (ledger.confirmed, ledger.end, len(ledger)) == (9, 9, 0)


def test_a_gap_in_the_numbers_is_confirmed_with_what_stands_before_it() -> None:
    """Offsets of a Kafka partition whose topic was compacted, from the committed one on."""
    ledger = Ledger(1000)
    ledger.add(1007, 1009)
    assert ledger.confirmed == 1007
    ledger.add(5_000_000_000, 5_000_000_001)
    ledger.finish([5_000_000_000])
    assert ledger.confirmed == 1007
    ledger.finish([1007, 1008])
    assert ledger.confirmed == 5_000_000_001


@pytest.mark.parametrize("numbers", [[4], [-1], range(2, 4), [1, 2, 3]])
def test_a_number_that_was_not_added_cannot_be_finished(numbers: list[int]) -> None:
    ledger = Ledger()
    ledger.add(0, 3)
    with pytest.raises(ValueError, match="not all unfinished"):
        ledger.finish(numbers)


def test_a_number_is_finished_once() -> None:
    ledger = Ledger()
    ledger.add(0, 3)
    ledger.finish([0, 2])
    for number in (0, 2):
        with pytest.raises(ValueError, match="not all unfinished"):
            ledger.finish([number])


@pytest.mark.parametrize(("start", "stop"), [(2, 5), (4, 3)])
def test_numbers_are_added_in_order(start: int, stop: int) -> None:
    ledger = Ledger()
    ledger.add(0, 3)
    with pytest.raises(ValueError, match="cannot follow 3"):
        ledger.add(start, stop)


@given(st.sets(st.integers(0, 60)))
def test_runs_of_numbers(numbers: set[int]) -> None:
    runs = list(ranges_of(sorted(numbers)))
    assert [number for start, stop in runs for number in range(start, stop)] == sorted(numbers)
    assert all(after > stop for (_, stop), (after, _) in pairwise(runs))
    for start, stop in runs:
        assert list(ranges_of(range(start, stop))) == [(start, stop)]
    assert list(ranges_of(range(7, 7))) == []


class Model:
    """Every number that is unfinished."""

    def __init__(self) -> None:
        self.unfinished: set[int] = set()
        self.end = 0

    @property
    def confirmed(self) -> int:
        return min(self.unfinished, default=self.end)


@given(st.data())
def test_a_ledger_agrees_with_the_model(data: st.DataObject) -> None:
    ledger, model = Ledger(), Model()
    for _ in range(data.draw(st.integers(1, 30))):
        if data.draw(st.booleans()) or not model.unfinished:
            start = model.end + data.draw(st.sampled_from([0, 0, 0, 1, 10**12]))
            stop = start + data.draw(st.integers(0, 6))
            ledger.add(start, stop)
            model.end = stop
            model.unfinished.update(range(start, stop))
        else:
            numbers = sorted(data.draw(st.sets(st.sampled_from(sorted(model.unfinished)), min_size=1)))
            before = model.confirmed
            model.unfinished.difference_update(numbers)
            assert ledger.finish(numbers) == (model.confirmed != before)
        assert (ledger.confirmed, ledger.end) == (model.confirmed, model.end)
    ledger.finish(sorted(model.unfinished))
    assert ledger.confirmed == ledger.end == model.end


@given(st.lists(st.integers(0, 4), max_size=8), st.randoms(use_true_random=False))
def test_spans_are_confirmed_in_order(sizes: list[int], random: object) -> None:
    """Whatever the order in which messages are finished, and whenever spans are added in between."""
    ledger: SpanLedger[int] = SpanLedger()
    waiting = list(enumerate(sizes))
    unfinished: list[int] = []
    confirmed: dict[int, int] = {}
    added: list[range] = []
    while waiting or unfinished:
        if waiting and (not unfinished or random.random() < 0.4):  # type: ignore[attr-defined]
            span, size = waiting.pop(0)
            added.append(ledger.add(size, span))
            unfinished += added[-1]
        else:
            number = unfinished.pop(random.randrange(len(unfinished)))  # type: ignore[attr-defined]
            ledger.finish([number])
        lowest = min(unfinished, default=sum(map(len, added)))
        expected = {}
        for span, numbers in enumerate(added):
            done = len([number for number in numbers if number < lowest])
            if done or (not numbers and numbers.start <= lowest):
                expected[span] = done
        advanced = list(ledger.advance())
        assert [span for span, _ in advanced] == sorted({span for span, _ in advanced})
        assert all(confirmed.get(span, -1) < count for span, count in advanced)
        confirmed.update(advanced)
        assert confirmed == expected
    assert len(ledger) == 0
    assert confirmed == dict(enumerate(sizes))


def test_its_memory_is_bounded_by_what_is_in_flight() -> None:
    """A hundred thousand messages, of which the oldest of each thousand is finished last."""
    ledger = Ledger()
    most = 0
    for start in range(0, 100_000, 1000):
        ledger.add(start, start + 1000)
        for number in range(start + 999, start, -1):
            ledger.finish((number,))
        most = max(most, int(repr(ledger).rpartition("=")[2].rstrip(">")))
        ledger.finish((start,))
    assert ledger.confirmed == 100_000
    assert most == 999
    assert repr(ledger) == "<Ledger confirmed=100000 end=100000 finished_ranges=0>"
