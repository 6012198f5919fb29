"""Messages that come back: requeued, deferred, timed out."""

from __future__ import annotations

import pytest

from qtools.broker.core.channel import NOT_IN_FLIGHT, Channel
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


def test_what_is_requeued_comes_again_behind_what_waits(house: House, topic: Topic, channel: Channel) -> None:
    consumer, reader = consume(channel, ready=1)
    house.publish(topic, b"a", b"b")
    house.turn()
    (ident,) = ids(reader.take())
    assert channel.requeue(consumer, ident, 0, house.now) == ""
    house.turn()
    assert [(m.body, m.attempts) for m in reader.messages] == [(b"b", 1)]
    channel.finish(consumer, ids(reader.take()))
    house.turn()
    (again,) = reader.take()
    assert (again.body, again.attempts, again.id) == (b"a", 2, ident)
    assert (channel.requeued, consumer.requeued) == (1, 1)


def test_requeueing_what_is_not_in_flight_fails(house: House, topic: Topic, channel: Channel) -> None:
    consumer, _ = consume(channel)
    assert channel.requeue(consumer, b"0123456789abcdef", 0, house.now) == NOT_IN_FLIGHT
    assert channel.touch(consumer, b"0123456789abcdef", house.now) == NOT_IN_FLIGHT


def test_a_run_given_back_one_by_one_is_one_run_again(house: House, topic: Topic, channel: Channel) -> None:
    consumer, reader = consume(channel, ready=500)
    house.publish(topic, *[b"%d" % i for i in range(500)])
    house.turn()
    for ident in ids(reader.take()):
        channel.requeue(consumer, ident, 0, house.now)
    writes = reader.writes
    house.turn()
    assert reader.writes == writes + 1
    assert [(m.body, m.attempts) for m in reader.take()] == [(b"%d" % i, 2) for i in range(500)]


def test_deferred_messages_come_in_the_order_they_are_due(house: House, topic: Topic, channel: Channel) -> None:
    consumer, reader = consume(channel)
    house.publish(topic, b"late", delay=3)
    house.publish(topic, b"soon", delay=1)
    house.publish(topic, b"now", b"again")
    house.turn()
    messages = reader.take()
    assert [message.body for message in messages] == [b"now", b"again"]
    channel.finish(consumer, [messages[0].id])
    channel.requeue(consumer, messages[1].id, 2, house.now)
    assert counts(channel) == (0, 0, 3)
    house.pass_time(0.9)
    assert reader.take() == []
    came = []
    for _ in range(3):
        house.pass_time(1)
        came += [(message.body, message.attempts) for message in reader.take()]
    assert came == [(b"soon", 1), (b"again", 2), (b"late", 1)]
    assert counts(channel) == (0, 3, 0)


def test_a_whole_run_that_times_out_comes_again_as_one(house: House, topic: Topic, channel: Channel) -> None:
    _, reader = consume(channel, ready=200, msg_timeout=10)
    house.publish(topic, *[b"%d" % i for i in range(200)])
    house.turn()
    first = reader.take()
    house.pass_time(9.99)
    assert reader.take() == []
    house.pass_time(0.02)
    again = reader.take()
    assert ids(again) == ids(first)
    assert {message.attempts for message in again} == {2}
    assert reader.writes == 2
    assert channel.timed_out == 200


def test_only_what_is_left_of_a_run_times_out(house: House, topic: Topic, channel: Channel) -> None:
    consumer, reader = consume(channel, ready=10, msg_timeout=10)
    house.publish(topic, *[b"%d" % i for i in range(10)])
    house.turn()
    first = ids(reader.take())
    channel.finish(consumer, [first[0], first[4], first[5]])
    house.pass_time(5)
    channel.touch(consumer, first[7], house.now)
    house.pass_time(6)
    assert [message.body for message in reader.take()] == [b"1", b"2", b"3", b"6", b"8", b"9"]
    assert channel.finish(consumer, [first[1]]) == []  # in flight for the second time
    house.pass_time(5)
    assert reader.bodies() == [b"7"]
    assert channel.finish(consumer, first) == [(first[i], NOT_IN_FLIGHT) for i in (0, 1, 4, 5)]


def test_touching_does_not_go_past_the_limit(house: House, topic: Topic, channel: Channel) -> None:
    consumer, reader = consume(channel, ready=2, msg_timeout=10, max_msg_timeout=25)
    house.publish(topic, b"touched", b"other")
    house.turn()
    touched, other = ids(reader.take())
    for _ in range(2):
        house.pass_time(9)
        assert channel.touch(consumer, touched, house.now) == ""
        assert channel.touch(consumer, other, house.now) == ""
    channel.finish(consumer, [other])
    house.publish(topic, b"young")
    house.turn()  # delivered at 18, so due at 28: behind the touched one, whose end is at 25
    assert reader.bodies() == [b"young"]
    house.pass_time(6.9)
    assert reader.take() == []
    house.pass_time(0.2)
    assert [(message.body, message.attempts) for message in reader.take()] == [(b"touched", 2)]


def test_an_idle_channel_asks_for_no_alarm(house: House, topic: Topic, channel: Channel) -> None:
    consumer, reader = consume(channel)
    house.publish(topic, b"a")
    house.turn()
    channel.finish(consumer, ids(reader.take()))
    house.pass_time(61)
    assert house.alarms == {}
