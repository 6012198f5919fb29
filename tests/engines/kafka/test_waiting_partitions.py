"""Partitions that wait for an unfinished message are paused, and no others."""

from __future__ import annotations

from dataclasses import dataclass

from qtools.engines.kafka.consume.waiting_partitions import LEAST_COMMIT, WAITS_LONG, WaitingPartitions


@dataclass
class Read:
    """A partition of which the messages below `read` were read."""

    confirmed: int
    read: int
    uncommitted: int = 0

    @property
    def distance(self) -> int:
        return self.read - self.confirmed


def test_a_full_window_that_moves_on_is_no_reason() -> None:
    waiting = WaitingPartitions(100)
    partition = Read(0, 100)
    for step in range(20):
        assert waiting.look({("t", 0): partition}, step * 0.5) == (set(), set())
        partition.confirmed += 1
        partition.read += 1


def test_one_that_waits_no_longer_holds_up_the_others() -> None:
    waiting = WaitingPartitions(100)
    stuck, other = Read(7, 107), Read(0, 10)
    partitions = {("t", 0): stuck, ("t", 1): other}
    assert waiting.look(partitions, 1.0) == (set(), set())
    assert waiting.room(partitions, 5000) == 0
    assert waiting.look(partitions, 1.0 + WAITS_LONG) == ({("t", 0)}, set())
    assert waiting.room(partitions, 5000) == 90
    assert waiting.room(partitions, 20) == 20
    stuck.confirmed = 8  # one more was finished: it is still far, but not any more at the limit
    assert waiting.look(partitions, 10.0) == (set(), {("t", 0)})


def test_one_that_was_taken_away_is_forgotten() -> None:
    waiting = WaitingPartitions(100)
    partitions = {("t", 0): Read(0, 200)}
    waiting.look(partitions, 0.0)
    assert waiting.look(partitions, 9.0)[0] == {("t", 0)}
    waiting.forget({("t", 0)})
    assert waiting.look({}, 10.0) == (set(), set())
    assert waiting.room({}, 5000) == 5000


def test_a_commit_is_due_when_as_much_is_finished_as_may_be_in_flight() -> None:
    waiting = WaitingPartitions(2500)
    partitions = {("t", 0): Read(0, 0, uncommitted=1500), ("t", 1): Read(0, 0, uncommitted=999)}
    assert not waiting.is_much_finished(partitions)
    partitions["t", 1].uncommitted += 1
    assert waiting.is_much_finished(partitions)
    assert not WaitingPartitions(1).is_much_finished({("t", 0): Read(0, 0, uncommitted=LEAST_COMMIT - 1)})
