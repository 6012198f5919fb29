"""The queue of deferred messages: order, neighbours that share an entry, what is evicted."""

from __future__ import annotations

from qtools.broker.core.block import Block, MessageRange
from qtools.broker.core.deferral_queue import DeferralQueue


def block(base: int, seq: int = 0, count: int = 10) -> Block:
    made = Block(base, [b"x"] * count, 1)
    made.seq = seq
    return made


def spans(queue: DeferralQueue, wall: int) -> list[tuple[int, int, int]]:
    return [(run.block.base, run.start, run.stop) for run in queue.take_due(wall)]


def test_runs_come_in_the_order_of_their_times_and_none_early() -> None:
    queue = DeferralQueue()
    a, b = block(100), block(200)
    queue.add(MessageRange(a, 0, 10), 30)
    queue.add(MessageRange(b, 0, 1), 10)
    queue.add(MessageRange(b, 1, 2), 20)
    assert queue.next() == 10
    assert spans(queue, 9) == []
    assert spans(queue, 20) == [(200, 0, 1), (200, 1, 2)]
    assert spans(queue, 100) == [(100, 0, 10)]
    assert queue.next() is None
    assert queue.frame_bytes == 0


def test_neighbours_until_the_same_time_are_one_entry() -> None:
    queue = DeferralQueue()
    a = block(100)
    for place in range(5):
        queue.add(MessageRange(a, place, place + 1, 1), 10)
    queue.add(MessageRange(a, 5, 6, 2), 10)  # delivered more often
    queue.add(MessageRange(a, 6, 7, 2), 11)  # later
    assert (len(queue), queue.messages()) == (3, 7)
    assert spans(queue, 10) == [(100, 0, 5), (100, 5, 6)]
    queue.add(MessageRange(a, 7, 8, 2), 11)
    assert spans(queue, 11) == [(100, 6, 7), (100, 7, 8)]


def test_what_is_evicted_is_what_is_due_last_and_ties_stay() -> None:
    queue = DeferralQueue()
    a, b = block(100, seq=1), block(200, seq=2)
    for due in (5, 3, 1, 9, 7):
        queue.add(MessageRange(a, due, due + 1), due)
    queue.add(MessageRange(b, 0, 1), 3)
    queue.add(MessageRange(a, 0, 1), 3)
    due, seq, gone = queue.evict(2)
    assert (due, seq) == (3, 1)
    assert [(one, run.block.base) for one, run in gone] == [(3, 200), (5, 100), (7, 100), (9, 100)]
    assert queue.frame_bytes == len(a.frames)
    assert queue.evict(0)[:2] == (0, 0)
    assert len(queue) == queue.frame_bytes == 0
