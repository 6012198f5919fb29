"""What a topic does with messages, channels, and a store that takes its time."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from qtools.broker.core.block import Block
from qtools.broker.core.memory_store import MemoryStore
from qtools.broker.core.store import Commit
from qtools.broker.core.topic import FIRST_LOOK, Topic

from ..house import FIRST, House, consume, ids


@pytest.fixture
def house() -> House:
    return House()


@pytest.fixture
def topic(house: House) -> Topic:
    return house.topic()


def test_the_first_channel_gets_what_waited_and_a_later_one_does_not(house: House, topic: Topic) -> None:
    house.publish(topic, b"a", b"b")
    house.turn()
    assert topic.depth == 2
    house.publish(topic, b"same turn")
    first, second = house.channel(topic, "first"), house.channel(topic, "second")
    house.publish(topic, b"c")
    house.turn()
    _, reader = consume(first)
    _, later = consume(second)
    house.turn()
    assert reader.bodies() == [b"a", b"b", b"same turn", b"c"]
    assert later.bodies() == [b"c"]
    assert topic.depth == 0
    assert (topic.messages, topic.bytes) == (4, 12)


def test_what_one_turn_brings_becomes_one_block(house: House, topic: Topic) -> None:
    channel = house.channel(topic)
    _, reader = consume(channel, ready=2500)
    for number in range(300):
        house.publish(topic, b"%d" % number)
    assert topic.depth == 300
    house.turn()
    assert reader.writes == 1
    messages = reader.take()
    assert [message.body for message in messages] == [b"%d" % number for number in range(300)]
    assert ids(messages) == [b"%016x" % (FIRST + number) for number in range(300)]


def test_each_channel_has_its_own_copy(house: House, topic: Topic) -> None:
    left, left_reader = consume(house.channel(topic, "left"))
    right, right_reader = consume(house.channel(topic, "right"))
    house.publish(topic, b"a", b"b")
    house.turn()
    ones, others = left_reader.take(), right_reader.take()
    assert ids(ones) == ids(others)
    topic.channels["left"].finish(left, ids(ones))
    topic.channels["right"].requeue(right, ids(others)[0], 0, house.now)
    house.turn()
    assert [message.attempts for message in right_reader.take()] == [2]
    assert left_reader.take() == []
    assert topic.held == 2


def test_a_paused_topic_holds_back_what_comes_but_not_what_its_channels_have(house: House, topic: Topic) -> None:
    channels = [house.channel(topic, name) for name in ("one", "two")]
    house.publish(topic, b"before")  # in the same turn as the pause, and before it
    topic.pause(house.now, house.wall)
    house.publish(topic, b"held")
    house.turn()
    readers = [consume(channel)[1] for channel in channels]
    house.turn()
    assert [reader.bodies() for reader in readers] == [[b"before"]] * 2
    assert topic.depth == 1
    topic.unpause(house.now, house.wall)
    house.turn()
    assert [reader.bodies() for reader in readers] == [[b"held"]] * 2
    assert topic.depth == 0


def test_emptying_a_topic_leaves_its_channels_alone(house: House, topic: Topic) -> None:
    channel = house.channel(topic)
    house.publish(topic, b"a")
    house.turn()
    topic.pause(house.now, house.wall)
    house.publish(topic, b"b")
    house.turn()
    house.publish(topic, b"c")
    topic.empty(house.now, house.wall)
    house.turn()
    assert (topic.depth, channel.depth) == (0, 1)


def test_what_was_deferred_before_there_was_a_channel_waits_for_its_first_look(house: House, topic: Topic) -> None:
    house.publish(topic, b"deferred", delay=2)
    house.publish(topic, b"long", delay=30)
    house.publish(topic, b"over", delay=0.001)
    house.turn()
    house.pass_time(0.01)
    _, reader = consume(house.channel(topic))
    house.turn()
    assert reader.bodies() == [b"over"]
    house.pass_time(FIRST_LOOK - 0.1)
    assert reader.take() == []
    house.pass_time(0.2)
    assert reader.bodies() == [b"deferred"]
    house.pass_time(25)
    assert reader.bodies() == [b"long"]


def test_an_ephemeral_topic_goes_with_its_last_channel(house: House) -> None:
    topic = house.topic("t#ephemeral")
    house.channel(topic, "one")
    house.channel(topic, "two")
    assert topic.delete_channel("one") is False
    assert topic.delete_channel("two") is True


def test_an_ephemeral_topic_piles_up_no_more_than_its_limit() -> None:
    house = House(limit=10)
    topic = house.topic("t#ephemeral")
    for _ in range(5):
        house.publish(topic, *[b"x"] * 8)
        house.turn()
    assert (topic.depth, topic.dropped) == (16, 24)


def test_an_ephemeral_channel_gets_all_that_waited_in_its_topic() -> None:
    house = House(limit=10)
    topic = house.topic()
    for _ in range(5):
        house.publish(topic, *[b"x"] * 8)
        house.turn()
    assert house.channel(topic, "c#ephemeral").depth == 40


def test_emptying_a_topic_takes_nothing_from_its_channels() -> None:
    house = House()
    topic = house.topic()
    channel = house.channel(topic)
    house.publish(topic, b"a")
    topic.empty(house.now, house.wall)
    assert channel.depth == 1
    topic.pause(house.now, house.wall)
    house.publish(topic, b"b")
    topic.empty(house.now, house.wall)
    topic.unpause(house.now, house.wall)
    house.turn()
    assert channel.depth == 1


class SlowStore(MemoryStore):
    """Nothing is safe before the test says so."""

    durable = True

    def __init__(self) -> None:
        super().__init__()
        self.pending: Commit | None = Commit()
        self.appended: list[tuple[str, Block]] = []
        self.turns: list[Commit] = []

    def append(self, topic: str, block: Block) -> None:
        self.appended.append((topic, block))

    def end_turn(self, seal: Callable[[], None]) -> None:
        seal()
        assert self.pending is not None
        self.turns.append(self.pending)
        self.pending = Commit()


def test_nobody_sees_a_message_before_it_is_safe() -> None:
    store = SlowStore()
    house = House(store)
    topic = house.topic()
    _, reader = consume(house.channel(topic))
    first, second = house.publish(topic, b"a"), house.publish(topic, b"b", b"c")
    assert first is second is not None
    house.turn()
    third = house.publish(topic, b"d")
    house.turn()
    assert third is not first
    assert reader.take() == []
    assert [block.count for _, block in store.appended] == [3, 1]
    first.settle()
    house.turn()
    assert reader.bodies() == [b"a", b"b", b"c"]
    assert third is not None
    third.settle(OSError("no space left on device"))
    house.turn()
    assert reader.take() == []
    assert topic.messages == 3


def test_ephemeral_messages_never_reach_the_store() -> None:
    store = SlowStore()
    house = House(store)
    topic = house.topic("t#ephemeral")
    _, reader = consume(house.channel(topic))
    assert house.publish(topic, b"a") is None
    house.turn()
    assert reader.bodies() == [b"a"]
    assert store.appended == []
