"""What is in flight on a connection, and with how many calls it is acknowledged. No connection, no loop."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import example, given
from hypothesis import strategies as st

from qtools.engines.connections.in_flight import InFlightLedger, merge_deliveries
from qtools.message import Batch, Message, Messages

Call = tuple[str, list[bytes]]


class Recorder:
    """Keeps each acknowledgement, as a connection would send it."""

    topic = "events"

    def __init__(self) -> None:
        self.calls: list[Call] = []

    @property
    def address(self) -> str:
        return "127.0.0.1:4150"

    def finish(self, ids: Sequence[bytes]) -> None:
        self.calls.append(("FIN", list(ids)))

    def requeue(self, ids: Sequence[bytes], delay_ms: int) -> None:
        self.calls.append((f"REQ {delay_ms}", list(ids)))

    def touch(self, ids: Sequence[bytes]) -> None:
        self.calls.append(("TOUCH", list(ids)))


def read(ledger: InFlightLedger, *ids: bytes, now: float = 0.0) -> Batch:
    """A batch of one read of a socket."""
    messages = Messages.of(Message(1, 1, ident, b"body") for ident in ids)
    return Batch.of(ledger.add(messages.ids, now), messages)


def joined(*batches: Batch) -> Batch:
    batch = Batch.joined(batches)
    merge_deliveries(batch)
    return batch


def test_what_was_read_in_several_pieces_is_finished_by_one_call() -> None:
    recorder = Recorder()
    ledger = InFlightLedger(recorder)
    first, second, third = read(ledger, b"a", b"b"), read(ledger, b"c"), read(ledger, b"d", b"e")
    batch = joined(first, second, third)
    assert ledger.count == 5
    batch.finish()
    assert recorder.calls == [("FIN", [b"a", b"b", b"c", b"d", b"e"])]
    assert ledger.count == 0
    assert list(ledger.take_due(1e9, 1.0)) == []


def test_pieces_of_two_connections_keep_their_order_and_go_to_their_connections() -> None:
    one, two = Recorder(), Recorder()
    first, second = InFlightLedger(one), InFlightLedger(two)
    batch = joined(read(first, b"a"), read(first, b"b"), read(second, b"c"), read(second, b"d"), read(first, b"e"))
    assert batch.ids == [b"a", b"b", b"c", b"d", b"e"]
    batch.requeue(5)
    assert one.calls == [("REQ 5", [b"a", b"b"]), ("REQ 5", [b"e"])]
    assert two.calls == [("REQ 5", [b"c", b"d"])]
    assert (first.count, second.count) == (0, 0)


def test_a_merged_read_may_be_finished_in_parts_and_only_once() -> None:
    recorder = Recorder()
    ledger = InFlightLedger(recorder)
    batch = joined(read(ledger, b"a", b"b"), read(ledger, b"c", b"d"))
    batch.pick([1, 2]).finish()
    assert ledger.count == 2
    batch.pick([2]).requeue()
    batch.finish()
    batch.touch()
    assert recorder.calls == [("FIN", [b"b", b"c"]), ("REQ 0", []), ("FIN", [b"a", b"d"]), ("TOUCH", [])]
    assert ledger.count == 0


@given(st.integers(1, 6), st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=6))
@example(4, [(0, 2), (2, 4)])
@example(4, [(0, 2), (0, 4)])
@example(4, [(0, 2), (3, 4), (2, 3)])
@example(4, [(0, 2), (1, 3)])
@example(4, [(2, 4), (0, 2)])
def test_each_message_is_finished_once_in_whatever_ranges(count: int, ranges: list[tuple[int, int]]) -> None:
    recorder = Recorder()
    ledger = InFlightLedger(recorder)
    ids = [b"%d" % nth for nth in range(count)]
    batch = read(ledger, *ids)
    left = list(ids)
    for start, stop in ranges:
        places = range(min(start, count), min(max(start, stop), count))
        batch.pick(places).finish()
        finished = [ids[place] for place in places if ids[place] in left]
        left = [ident for ident in left if ident not in finished]
        assert not places or recorder.calls[-1] == ("FIN", finished)
        assert ledger.count == len(left)
    assert sorted(ident for each in ledger.take_all() for ident in each) == left


def test_what_a_lost_connection_delivered_is_not_in_flight_again_by_a_merge() -> None:
    recorder = Recorder()
    ledger = InFlightLedger(recorder)
    batches = [read(ledger, b"a"), read(ledger, b"b")]
    ledger.drop()
    batch = joined(*batches)
    batch.finish()
    assert ledger.count == 0
    assert [ids for _, ids in recorder.calls] == [[], []]


def test_each_read_is_due_for_a_touch_by_its_own_age_and_once_in_an_interval() -> None:
    ledger = InFlightLedger(Recorder())
    early, late = read(ledger, b"a", b"b", now=0.0), read(ledger, b"c", now=5.0)
    assert list(ledger.take_due(9.9, 10.0)) == []
    early.pick([0]).finish()
    assert list(ledger.take_due(10.0, 10.0)) == [[b"b"]]
    assert list(ledger.take_due(15.0, 10.0)) == [[b"c"]]
    late.finish()
    assert list(ledger.take_due(20.0, 10.0)) == [[b"b"]]


def test_a_merged_read_is_due_as_early_as_its_first_piece() -> None:
    ledger = InFlightLedger(Recorder())
    joined(read(ledger, b"a", now=0.0), read(ledger, b"b", now=5.0))
    assert list(ledger.take_due(10.0, 10.0)) == [[b"a", b"b"]]
    assert list(ledger.take_due(15.0, 10.0)) == []


def test_at_the_end_everything_in_flight_is_taken_once() -> None:
    ledger = InFlightLedger(Recorder())
    first, second = read(ledger, b"a", b"b"), read(ledger, b"c")
    second.finish()
    assert ledger.take_all() == [[b"a", b"b"]]
    assert (ledger.count, ledger.take_all()) == (0, [])
    first.finish()
    assert ledger.count == 0


def test_a_counting_consumer_is_called_before_the_finish_is_sent() -> None:
    recorder = Recorder()
    ledger = InFlightLedger(recorder)
    batch = read(ledger, b"a", b"b")
    ledger.on_finish = lambda count: recorder.calls.append((f"counted {count}", []))
    batch.finish()
    assert recorder.calls == [("counted 2", []), ("FIN", [b"a", b"b"])]
