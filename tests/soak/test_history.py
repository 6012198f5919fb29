"""The history against a model that keeps every number, and its bounds."""

from __future__ import annotations

import random
import tracemalloc
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from qtools.soak.history import DeliveryHistory, NumberRun


class Model:
    """What the history has to say, told from a list of everything that happened."""

    def __init__(self, keys: int) -> None:
        self.keys = keys
        self.sent = 0
        self.confirmed: set[int] = set()
        self.read: set[int] = set()
        self.newest: dict[int, int] = {}
        self.counts: Counter[str] = Counter()

    def deliver(self, numbers: list[int]) -> None:
        for number in numbers:
            if number >= self.sent:
                self.counts["never_sent"] += 1
            elif number in self.read:
                self.counts["doubled"] += 1
            else:
                self.read.add(number)
                key = number % self.keys
                if number < self.newest.get(key, -1):
                    self.counts["out_of_order"] += 1
                else:
                    self.newest[key] = number

    @property
    def lost(self) -> list[int]:
        return sorted(self.confirmed - self.read)


class HistoryMachine(RuleBasedStateMachine):
    """Pages of 16 numbers, of which 3 are dense, and keys 3: everything happens within a few hundred numbers."""

    max_runs = 10_000

    def __init__(self) -> None:
        super().__init__()
        self.history = DeliveryHistory(3, max_dense_pages=3, max_runs=self.max_runs, page_bits=4)
        self.model = Model(3)
        self.delivered = 0
        self.unconfirmed: list[tuple[int, int]] = []  # batches that were sent

    @rule(count=st.integers(1, 60))
    def send(self, count: int) -> None:
        first = self.history.send(count)
        assert first == self.model.sent
        self.model.sent += count
        self.unconfirmed.append((first, first + count))

    @rule(data=st.data())
    def confirm(self, data: st.DataObject) -> None:
        if not self.unconfirmed:
            return
        start, stop = self.unconfirmed.pop(data.draw(st.integers(0, len(self.unconfirmed) - 1)))
        upto = data.draw(st.integers(start, stop))  # the rest is refused
        self.history.confirm(start, upto)
        self.model.confirmed.update(range(start, upto))

    @rule(start=st.integers(0, 400), count=st.integers(1, 70))
    def deliver_in_order(self, start: int, count: int) -> None:
        self._deliver(list(range(start, start + count)))

    @rule(numbers=st.lists(st.integers(0, 400), max_size=30))
    def deliver_in_any_order(self, numbers: list[int]) -> None:
        self._deliver(numbers)

    @rule()
    def deliver_what_is_next(self) -> None:
        start = self.history.highest_read + 1
        self._deliver(list(range(start, min(start + 25, self.model.sent))))

    def _deliver(self, numbers: list[int]) -> None:
        self.history.deliver(numbers)
        self.model.deliver(numbers)
        self.delivered += len(numbers)

    @invariant()
    def bounded(self) -> None:
        history = self.history
        assert len(history._dense) <= 3
        assert history._run_count <= self.max_runs
        assert history._run_count == sum(len(runs) // 3 for runs in history._runs.values())

    @invariant()
    def adds_up(self) -> None:
        history = self.history
        assert history.read + history.doubled + history.never_sent == self.delivered
        assert history.unread == sum(run.messages for run in history.lost()) >= 0
        assert history.unconfirmed_read >= 0
        assert history.confirmed == len(self.model.confirmed)
        assert history.never_sent == self.model.counts["never_sent"]

    @invariant()
    def as_the_model(self) -> None:
        history, model = self.history, self.model
        assert history.is_exact
        assert history.read == len(model.read)
        assert history.doubled == model.counts["doubled"]
        assert history.out_of_order == model.counts["out_of_order"]
        assert [n for run in history.lost() for n in range(run.start, run.stop)] == model.lost
        assert history.unconfirmed_read == len(model.read - model.confirmed)


class CountingMachine(HistoryMachine):
    """With 4 runs at most, pages are counted soon: the sums hold, and the history says that it is not exact."""

    max_runs = 4

    def as_the_model(self) -> None:  # type: ignore[override]
        if self.history.is_exact:
            assert self.history.unread == len(self.model.lost)
            assert self.history.doubled == self.model.counts["doubled"]
        else:
            assert self.history._counted


TestHistory = HistoryMachine.TestCase
TestHistory.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestCounting = CountingMachine.TestCase
TestCounting.settings = settings(max_examples=30, stateful_step_count=40, deadline=None)


def sent_and_confirmed(history: DeliveryHistory, count: int) -> None:
    first = history.send(count)
    history.confirm(first, first + count)


def test_a_loss_in_the_middle_is_named_whatever_comes_later() -> None:
    history = DeliveryHistory(16, max_dense_pages=2)
    for start in range(0, 1_000_000, 1000):
        sent_and_confirmed(history, 1000)
        history.deliver([n for n in range(start, start + 1000) if n not in (123_456, 123_457, 700_000)])
    assert list(history.lost()) == [NumberRun(123_456, 123_458, 2), NumberRun(700_000, 700_001, 1)]
    history.deliver([700_000])  # late, and not lost
    assert (history.unread, history.out_of_order, history.doubled) == (2, 1, 0)


def test_numbers_that_were_never_sent() -> None:
    history = DeliveryHistory()
    sent_and_confirmed(history, 10)
    history.deliver([*range(10), 10, 1 << 62])
    assert (history.read, history.never_sent, history.unread) == (10, 2, 0)


@pytest.mark.parametrize("backlog", [30_000_000])
def test_readers_that_are_far_behind_take_little_memory(backlog: int) -> None:
    """As with a reader that is down for hours: nothing is read until all is published."""
    history = DeliveryHistory(16, max_dense_pages=8)
    tracemalloc.start()
    for _ in range(0, backlog, 1_000_000):
        sent_and_confirmed(history, 1_000_000)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size < 2_000_000
    assert history.unread == backlog
    assert sum(run.messages for run in history.lost()) == backlog


def test_a_good_run_of_many_messages_keeps_nothing_of_them() -> None:
    """Confirmed and read in the order of their numbers, some batches late: only the pages in use are there."""
    history = DeliveryHistory(16)
    step = 1 << 20
    for start in range(0, 100_000_000, step):
        sent_and_confirmed(history, step)
        if start:
            history._deliver_next(start - step, start)  # as `deliver`, without a list of a million numbers
    assert len(history._dense) <= 17
    assert not history._runs
    assert history.unread == step


def test_two_readers_that_are_apart() -> None:
    """nsqd delivers from memory and from disk in turn: two fronts, of which one is far ahead."""
    history = DeliveryHistory(1, max_dense_pages=4)
    half = 200_000
    sent_and_confirmed(history, 2 * half)
    for start in range(0, half, 500):
        both = [*range(start, start + 500), *range(half + start, half + start + 500)]
        random.Random(start).shuffle(both)
        history.deliver(both)
    assert (history.read, history.unread, history.doubled) == (2 * half, 0, 0)
    assert history.out_of_order > half - 500
    assert not history._runs


@given(st.lists(st.integers(0, 99), max_size=50), st.integers(1, 9))
def test_order_is_judged_within_a_key_and_repeats_are_not_late(numbers: list[int], keys: int) -> None:
    history, model = DeliveryHistory(keys), Model(keys)
    sent_and_confirmed(history, 100)
    model.sent = 100
    history.deliver(numbers)
    model.deliver(numbers)
    assert history.out_of_order == model.counts["out_of_order"]
