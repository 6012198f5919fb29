"""Messages by column, and batches that know the way back."""

from __future__ import annotations

from collections.abc import Container, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qtools.attributes import TOMBSTONE, Attributes
from qtools.flow.gather import request_ends
from qtools.message import Batch, Message, Messages


class Ledger:
    """An origin that writes down what became of its messages."""

    topic = "events"

    def __init__(self, address: str = "h:4150") -> None:
        self.address = address
        self.told: list[tuple[object, ...]] = []

    def finish(self, ids: Sequence[bytes]) -> None:
        self.told.append(("finish", list(ids)))

    def requeue(self, ids: Sequence[bytes], delay_ms: int) -> None:
        self.told.append(("requeue", list(ids), delay_ms))

    def touch(self, ids: Sequence[bytes]) -> None:
        self.told.append(("touch", list(ids)))

    def __repr__(self) -> str:
        return f"<Ledger {self.address}>"


def message(place: int) -> Message:
    return Message(place * 10**17, place, b"%016x" % place, b"body %d" % place)


def batch(origin: Ledger, *places: int) -> Batch:
    return Batch.of(origin, Messages.of(map(message, places)))


any_message = st.builds(
    Message, st.integers(-(2**63), 2**63 - 1), st.integers(0, 65535), st.binary(min_size=16, max_size=16), st.binary()
)


# ── by column ──


@given(st.lists(any_message, max_size=6))
def test_messages_by_column_look_like_a_list_of_them(single: list[Message]) -> None:
    messages = Messages.of(single)
    assert messages == single
    assert list(messages) == single
    assert [messages[place] for place in range(len(single))] == single
    assert messages[1:3] == single[1:3]
    assert messages.pick(range(0, len(single), 2)) == single[::2]
    if single:
        assert messages[-1] == single[-1]
        assert messages != single[:-1]
        assert messages != [*single[:-1], Message(0, 0, b"", b"another")]
    messages.extend(Messages.of(single))
    assert messages == single * 2


def test_there_is_no_message_beyond_the_end() -> None:
    with pytest.raises(IndexError):
        Messages.of([message(1)])[1]
    assert Messages.of([]) == []
    assert not Messages.of([])


def test_its_repr_shows_the_messages() -> None:
    assert (
        repr(Messages.of([Message(1, 2, b"a", b"x")]))
        == "Messages([Message(timestamp=1, attempts=2, id=b'a', body=b'x')])"
    )


# ── the way back ──


def test_what_becomes_of_a_batch_is_told_in_one_call() -> None:
    origin = Ledger()
    one = batch(origin, 1, 2, 3)
    one.touch()
    one.requeue(1500)
    one.requeue()
    one.finish()
    ids = [message(place).id for place in (1, 2, 3)]
    assert origin.told == [("touch", ids), ("requeue", ids, 1500), ("requeue", ids, 0), ("finish", ids)]


def test_a_joined_batch_tells_each_origin_of_its_own() -> None:
    here, there = Ledger("here:1"), Ledger("there:1")
    joined = Batch.joined([batch(here, 1, 2), batch(there, 3), batch(here, 4)])
    assert joined.messages == [message(place) for place in (1, 2, 3, 4)]
    assert joined.bodies == [b"body 1", b"body 2", b"body 3", b"body 4"]
    joined.finish()
    assert here.told == [("finish", [message(1).id, message(2).id]), ("finish", [message(4).id])]
    assert there.told == [("finish", [message(3).id])]


def test_one_batch_joined_is_itself_and_none_is_empty() -> None:
    one = batch(Ledger(), 1)
    assert Batch.joined([one]) is one
    assert len(Batch.joined([])) == 0
    Batch.joined([]).finish()
    assert len(Batch.empty()) == 0
    assert Batch.empty().messages == []


def test_joining_leaves_what_was_joined_as_it_was() -> None:
    first, second = batch(Ledger(), 1), batch(Ledger(), 2)
    Batch.joined([first, second])
    assert (len(first), first.messages, second.messages) == (1, [message(1)], [message(2)])


def test_a_batch_of_bodies_has_messages_when_they_are_asked_for() -> None:
    origin = Ledger()
    lines = Batch.of_bodies(origin, [b"a", b"b"])
    lines.finish()
    assert lines.messages == [Message(0, 0, b"", b"a"), Message(0, 0, b"", b"b")]
    lines.finish()
    assert [list(ids) for _, ids in origin.told] == [[0, 1], [0, 1]]


def test_an_origin_of_bodies_gets_back_the_numbers_that_it_gave() -> None:
    origin = Ledger()
    lines = Batch.of_bodies(origin, [b"a", b"a", b"b", b"c"], 10)
    assert lines.ids == range(10, 14)
    assert [part.ids for part in lines.split(1)] == [range(10, 11), range(11, 14)]
    assert lines.with_bodies([b"x"] * 4).without([1]).ids == [10, 12, 13]
    assert len(lines.messages) == 4  # and they are known all the same
    lines.pick([1, 3]).finish()
    assert origin.told == [("finish", [11, 13])]


def test_bodies_and_messages_can_be_joined() -> None:
    here, there = Ledger(), Ledger()
    joined = Batch.joined([Batch.of_bodies(here, [b"a", b"b"], 5), batch(there, 1)])
    assert joined.bodies == [b"a", b"b", b"body 1"]
    joined.finish()
    assert here.told == [("finish", [5, 6])]
    assert there.told == [("finish", [message(1).id])]


origins = [Ledger("a:1"), Ledger("b:1"), Ledger("c:1")]
runs = st.lists(st.tuples(st.sampled_from(origins), st.integers(0, 4)), max_size=5)


def made(shape: list[tuple[Ledger, int]], bare: bool) -> Batch:
    """A batch of numbered messages, in runs from several origins."""
    batches, place = [], 0
    for origin, count in shape:
        if bare:
            batches.append(Batch.of_bodies(origin, [b"body %d" % n for n in range(place, place + count)]))
        else:
            batches.append(batch(origin, *range(place, place + count)))
        place += count
    return Batch.joined(batches)


def owners(one: Batch) -> list[tuple[object, bytes]]:
    """Each message with where it came from."""
    return [(origin, body) for origin, start, stop in one.parts for body in one.bodies[start:stop]]


@given(runs, st.booleans(), st.sets(st.integers(0, 25)), st.integers(0, 25))
def test_a_part_of_a_batch_keeps_order_and_origins(
    shape: list[tuple[Ledger, int]], bare: bool, chosen: set[int], count: int
) -> None:
    whole = made(shape, bare)
    places = sorted(place for place in chosen if place < len(whole))
    told = owners(whole)
    assert len(told) == len(whole)
    assert owners(whole.pick(places)) == [told[place] for place in places]
    assert owners(whole.without(places)) == [pair for place, pair in enumerate(told) if place not in chosen]
    first, rest = whole.split(count)
    assert owners(first) == told[:count]
    assert owners(rest) == told[count:]
    for part in (whole, first, rest, whole.pick(places)):
        assert len(part) == len(part.bodies) == len(part.ids) == len(part.messages) == len(owners(part))


def test_other_bodies_leave_ids_and_origins_as_they_were() -> None:
    first, second = Ledger("h:1"), Ledger("h:2")
    whole = Batch.joined([batch(first, 1), batch(second, 2)])
    other = whole.with_bodies([b"x", b"y"])
    assert [(each.id, each.timestamp, each.body) for each in other.messages] == [
        (b"%016x" % 1, 10**17, b"x"),
        (b"%016x" % 2, 2 * 10**17, b"y"),
    ]
    assert whole.bodies == [b"body 1", b"body 2"]
    other.finish()
    assert (first.told, second.told) == ([("finish", [b"%016x" % 1])], [("finish", [b"%016x" % 2])])
    assert Batch.of_bodies(first, [b"a"]).with_bodies([b"b"]).messages == [Message(0, 0, b"", b"b")]


def test_its_repr_says_what_it_holds_and_from_where() -> None:
    joined = Batch.joined([batch(Ledger("a:1"), 1, 2), batch(Ledger("b:1"), 3)])
    assert repr(joined) == "<Batch 3 messages: 2 from <Ledger a:1>, 1 from <Ledger b:1>>"


def test_columns_of_timestamps_and_deliveries() -> None:
    messages = Messages.of([Message(300, 1, b"a", b""), Message(100, 258, b"b", b""), Message(200, 7, b"c", b"")])
    assert messages.timestamps() == [300, 100, 200]
    assert messages.attempts() == [1, 258, 7]
    assert (messages.first_and_last(), messages.last_timestamp()) == ((100, 300), 200)
    assert messages.redelivered() == 2
    assert messages.delivered_more_than(0) == {0: 1, 1: 258, 2: 7}
    assert messages.delivered_more_than(6) == {1: 258, 2: 7}
    assert messages.delivered_more_than(257) == {1: 258}
    assert messages.delivered_more_than(258) == {}


# ── records, which only their origin can read ──


class Log(Ledger):
    """An origin whose records are offsets; the key of every other message is missing."""

    def __init__(self, partition: int = 0) -> None:
        super().__init__()
        self.partition = partition
        self.read: list[object] = []

    def messages_of(self, records: Sequence[int], bodies: list[bytes]) -> Messages:
        self.read.append(("messages", list(records)))
        return Messages.of(
            Message(n, 1, b"%d:%d" % (self.partition, n), b) for n, b in zip(records, bodies, strict=True)
        )

    def delivered_more_than(self, times: int, records: Sequence[int]) -> dict[int, int]:
        return {place: number for place, number in enumerate(records) if number > times}

    def attributes_of(self, records: Sequence[int], only: Container[str] = Attributes._fields) -> Attributes:
        self.read.append(("attributes", list(records)))
        return Attributes(
            keys=[b"key %d" % n if n % 2 else None for n in records],
            partitions=[self.partition] * len(records),
            offsets=list(records),
        )


def records(log: Log, start: int, stop: int) -> Batch:
    numbers = range(start, stop)
    return Batch([(log, 0, len(numbers))], None, [b"%d" % n for n in numbers], numbers, numbers)


def test_records_are_read_only_when_something_asks_for_them() -> None:
    log = Log()
    whole = records(log, 0, 6)
    joined = Batch.joined([whole.pick(range(1, 3)).with_bodies([b"x", b"y"]), whole.pick([4])])
    joined.finish()
    assert joined.delivered_more_than(1) == {1: 2, 2: 4}
    assert log.read == []
    assert log.told == [("finish", [1, 2]), ("finish", [4])]
    assert [each.id for each in joined.messages] == [b"0:1", b"0:2", b"0:4"]
    assert joined.messages.bodies == [b"x", b"y", b"4"]
    assert log.read == [("messages", [1, 2]), ("messages", [4])]


def test_attributes_of_several_origins() -> None:
    batch = Batch.joined([records(Log(0), 0, 3), records(Log(7), 5, 7)]).pick([0, 1, 3, 4])
    assert batch.has_attributes
    assert batch.attributes() == Attributes(
        keys=[None, b"key 1", b"key 5", None], partitions=[0, 0, 7, 7], offsets=[0, 1, 5, 6]
    )


def test_messages_without_records_have_no_attributes() -> None:
    plain = batch(Ledger(), 1, 2)
    assert not plain.has_attributes
    assert plain.attributes() is None
    assert not Batch.joined([plain, Batch.of_bodies(Ledger(), [b"a"])]).has_attributes


def test_a_column_that_only_some_parts_have() -> None:
    joined = Attributes.joined([(Attributes(keys=[b"k"]), 1), (Attributes(headers=[[("a", b"1")], ()]), 2)])
    assert joined == Attributes(keys=[b"k", None, None], headers=[(), [("a", b"1")], ()])
    assert joined.pick([2, 0]) == Attributes(keys=[None, b"k"], headers=[(), ()])


def test_a_tombstone_equals_an_empty_body_and_is_known_by_identity() -> None:
    batch = Batch.of_bodies(Ledger(), [b"", TOMBSTONE]).pick([0, 1])
    assert batch.bodies == [b"", b""]
    assert [body is TOMBSTONE for body in batch.bodies] == [False, True]
    assert batch.messages[1].body is TOMBSTONE


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=30), st.integers(1, 8), st.integers(1, 80))
def test_each_request_is_within_the_limits_and_takes_all_that_fits(bodies: list[bytes], count: int, size: int) -> None:
    def fits(some: list[bytes]) -> bool:
        return len(some) <= count and (len(some) == 1 or 4 + sum(4 + len(body) for body in some) <= size)

    ends = request_ends(bodies, count, size)
    assert ends[-1] == len(bodies)
    for start, end in zip([0, *ends], ends, strict=False):
        assert end > start
        assert fits(bodies[start:end])
        assert end == len(bodies) or not fits(bodies[start : end + 1])
