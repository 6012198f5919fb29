"""What a channel does with messages and clients."""

from __future__ import annotations

import pytest

from qtools.broker.core.channel import NOT_IN_FLIGHT, NOT_THE_OWNER, Channel, TooMany
from qtools.broker.core.topic import Topic

from ..house import House, consume, ids


@pytest.fixture
def house() -> House:
    return House()


@pytest.fixture
def topic(house: House) -> Topic:
    return house.topic()


@pytest.fixture
def channel(house: House, topic: Topic) -> Channel:
    return house.channel(topic)


def counts(channel: Channel) -> tuple[int, int, int]:
    return channel.depth, channel.in_flight, channel.deferred


# ── the window ────────────────────────────────────────────────────────────────────────────────────


def test_no_more_is_in_flight_than_the_client_is_ready_for(house: House, topic: Topic, channel: Channel) -> None:
    consumer, reader = consume(channel, ready=2)
    house.publish(topic, b"a", b"b", b"c", b"d")
    house.turn()
    first = reader.take()
    assert [message.body for message in first] == [b"a", b"b"]
    assert counts(channel) == (2, 2, 0)
    assert channel.finish(consumer, ids(first)[:1]) == []
    house.turn()
    assert reader.bodies() == [b"c"]
    consumer.ready = 0
    channel.finish(consumer, ids(first)[1:])
    house.turn()
    assert reader.bodies() == []
    assert counts(channel) == (1, 1, 0)


def test_what_a_turn_delivers_leaves_block_by_block(house: House, topic: Topic, channel: Channel) -> None:
    _, reader = consume(channel, ready=2500)
    house.publish(topic, *[b"%d" % i for i in range(1000)])
    house.turn()
    assert reader.writes == 1
    assert len(reader.messages) == 1000


def test_a_client_without_room_gets_nothing_until_it_has_some(house: House, topic: Topic, channel: Channel) -> None:
    consumer, reader = consume(channel)
    consumer.room = 0
    house.publish(topic, b"x" * 100)
    house.turn()
    assert reader.take() == []
    consumer.room = 1  # less than a message: one at least
    channel.schedule(consumer)
    house.turn()
    assert len(reader.take()) == 1


def test_the_bytes_of_one_delivery_are_bounded(house: House, topic: Topic, channel: Channel) -> None:
    consumer, reader = consume(channel)
    consumer.room = reader.room = 5000
    house.publish(topic, *[b"x" * 1000] * 50)
    house.turn()
    assert 4000 <= sum(len(message.body) for message in reader.take()) <= 6000
    assert channel.depth > 40


def test_messages_are_shared_out_evenly_among_those_who_are_ready(house: House, topic: Topic, channel: Channel) -> None:
    readers = [consume(channel, ready=2500)[1] for _ in range(4)]
    house.publish(topic, *[b"%d" % i for i in range(400)])
    house.turn()
    assert [len(reader.messages) for reader in readers] == pytest.approx([100] * 4, abs=40)
    for _ in range(40):
        house.publish(topic, b"one")
        house.turn()
    assert sum(len(reader.messages) for reader in readers) == 440
    assert min(len(reader.messages) for reader in readers) >= 70


def test_a_narrow_window_is_not_starved_by_a_wide_one(house: House, topic: Topic, channel: Channel) -> None:
    wide, wide_reader = consume(channel, ready=2500)
    narrow, narrow_reader = consume(channel, ready=1)
    came = 0
    for _ in range(100):
        house.publish(topic, *[b"x"] * 10)
        house.turn()
        for consumer, reader in ((wide, wide_reader), (narrow, narrow_reader)):
            messages = reader.take()
            came += len(messages) if consumer is narrow else 0
            if messages:
                channel.finish(consumer, ids(messages))
        house.turn()
    assert came >= 90


# ── finishing ─────────────────────────────────────────────────────────────────────────────────────


def test_finishing_twice_or_for_another_fails_for_those_alone(house: House, topic: Topic, channel: Channel) -> None:
    consumer, reader = consume(channel, ready=2)
    other, other_reader = consume(channel, ready=2)
    house.publish(topic, b"a", b"b", b"c", b"d")
    house.turn()
    mine, theirs = ids(reader.take()), ids(other_reader.take())
    unknown = b"0123456789abcdef"
    failed = channel.finish(consumer, [mine[0], theirs[0], unknown, mine[1], mine[1]])
    assert failed == [(theirs[0], NOT_THE_OWNER), (unknown, NOT_IN_FLIGHT), (mine[1], NOT_IN_FLIGHT)]
    assert counts(channel) == (0, 2, 0)
    assert channel.finish(other, theirs) == []
    assert channel.held == 0


def test_runs_of_many_blocks_can_be_finished_in_any_order(house: House, topic: Topic, channel: Channel) -> None:
    consumer, reader = consume(channel, ready=2500)
    for number in range(50):
        house.publish(topic, *[b"%d" % number] * 7)
        house.turn()
    wanted = ids(reader.take())
    assert channel.finish(consumer, wanted[::-3]) == []
    rest = [ident for ident in wanted if ident not in set(wanted[::-3])]
    assert channel.in_flight == len(rest)
    assert channel.finish(consumer, rest) == []
    assert channel.held == 0
    assert consumer.next_deadline() is None
    assert consumer.finished == 350


def test_finished_messages_are_not_kept_by_one_that_is_slow(house: House, topic: Topic, channel: Channel) -> None:
    consumer, reader = consume(channel, ready=10)
    house.publish(topic, b"slow")
    house.turn()
    (slow,) = ids(reader.take())
    for _ in range(2000):
        house.publish(topic, b"x" * 100)
        house.turn()
        channel.finish(consumer, ids(reader.take()))
    assert len(consumer._runs) < 200
    assert channel.finish(consumer, [slow]) == []
    assert len(consumer._runs) == 0


# ── clients come and go ───────────────────────────────────────────────────────────────────────────


def test_what_a_client_leaves_behind_waits_for_its_timeout(house: House, topic: Topic, channel: Channel) -> None:
    gone, gone_reader = consume(channel, msg_timeout=10)
    house.publish(topic, b"a", b"b")
    house.turn()
    left = ids(gone_reader.take())
    assert channel.remove(gone) is True
    other, reader = consume(channel, msg_timeout=10)
    house.turn()
    assert reader.take() == []
    assert channel.in_flight == 2
    assert channel.finish(other, left[:1]) == [(left[0], NOT_THE_OWNER)]
    house.pass_time(11)
    assert [(message.body, message.attempts) for message in reader.take()] == [(b"a", 2), (b"b", 2)]
    assert gone_reader.take() == []
    assert channel.finish(other, left) == []
    assert channel.held == 0


def test_no_more_clients_than_allowed(topic: Topic) -> None:
    house = House(max_consumers=2)
    channel = house.channel(house.topic())
    first, _ = consume(channel)
    consume(channel)
    with pytest.raises(TooMany, match="consumers for t:c exceeds limit of 2"):
        consume(channel)
    channel.remove(first)
    consume(channel)


def test_a_client_that_closes_gets_nothing_more(house: House, topic: Topic, channel: Channel) -> None:
    consumer, reader = consume(channel)
    consumer.closing = True
    house.publish(topic, b"a")
    house.turn()
    assert reader.take() == []


# ── sampling, pausing, emptying ───────────────────────────────────────────────────────────────────


def test_a_sample_is_kept_and_the_rest_counts_as_finished(house: House, topic: Topic, channel: Channel) -> None:
    consumer, reader = consume(channel, ready=2500, sample_rate=20)
    for _ in range(10):
        house.publish(topic, *[b"x"] * 1000)
        house.turn()
        messages = reader.take()
        assert 100 < len(messages) < 320
        channel.finish(consumer, ids(messages))
        house.turn()
        channel.finish(consumer, ids(reader.take()) or [b"-" * 16])
    assert channel.held == 0
    assert 1600 < consumer.finished < 2400


def test_sampled_messages_time_out_one_by_one(house: House, topic: Topic, channel: Channel) -> None:
    consumer, reader = consume(channel, ready=1000, sample_rate=50, msg_timeout=10)
    house.publish(topic, *[b"%d" % i for i in range(100)])
    house.turn()
    first = ids(reader.take())
    consumer.sample_rate = 0
    house.pass_time(10.1)
    assert ids(reader.take()) == first


def test_a_small_sample_does_not_go_through_everything_in_one_turn(
    house: House, topic: Topic, channel: Channel
) -> None:
    for _ in range(100):
        house.publish(topic, *[b"x" * 100] * 100)
        house.turn()
    consumer, _ = consume(channel, ready=2500, sample_rate=1)
    consumer.room = 134 * 1000
    house.turn()
    assert 8000 < channel.depth <= 9000


def test_a_paused_channel_holds_its_messages(house: House, topic: Topic, channel: Channel) -> None:
    _, reader = consume(channel)
    channel.pause()
    house.publish(topic, b"a")
    house.turn()
    assert reader.take() == []
    channel.unpause()
    house.turn()
    assert reader.bodies() == [b"a"]


def test_emptying_drops_everything_and_opens_the_window(house: House, topic: Topic, channel: Channel) -> None:
    consumer, reader = consume(channel, ready=2, msg_timeout=10)
    house.publish(topic, b"a", b"b", b"c")
    house.publish(topic, b"later", delay=5)
    house.turn()
    in_flight = ids(reader.take())
    channel.empty()
    assert counts(channel) == (0, 0, 0)
    house.publish(topic, b"new")
    house.turn()
    assert reader.bodies() == [b"new"]
    assert channel.finish(consumer, in_flight) == [(ident, NOT_IN_FLIGHT) for ident in in_flight]
    house.pass_time(9)
    assert reader.take() == []


def test_deleting_hangs_up_on_the_clients(house: House, topic: Topic, channel: Channel) -> None:
    _, reader = consume(channel)
    topic.delete_channel("c")
    assert reader.shut_down


# ── ephemeral ─────────────────────────────────────────────────────────────────────────────────────


def test_with_a_limit_of_0_an_ephemeral_channel_has_what_its_consumers_are_ready_for() -> None:
    house = House(limit=0)
    topic = house.topic()
    channel = house.channel(topic, "c#ephemeral")
    house.publish(topic, b"nobody is there")
    house.turn()
    assert (channel.depth, channel.dropped) == (0, 1)
    consumer, reader = consume(channel, ready=2)
    for body in (b"a", b"b", b"c"):
        house.publish(topic, body)
        house.turn()
    messages = reader.take()
    assert [message.body for message in messages] == [b"a", b"b"]
    assert (channel.depth, channel.dropped) == (0, 2)
    channel.finish(consumer, [messages[0].id])
    house.publish(topic, b"d")
    house.turn()
    assert reader.bodies() == [b"d"]


def test_an_ephemeral_channel_piles_up_no_more_than_its_limit() -> None:
    house = House(limit=100)
    topic = house.topic()
    short, whole = house.channel(topic, "short#ephemeral"), house.channel(topic, "whole")
    for _ in range(5):
        house.publish(topic, *[b"x"] * 60)
        house.turn()
    assert (short.depth, short.dropped, short.messages) == (120, 180, 120)
    assert whole.depth == 300
