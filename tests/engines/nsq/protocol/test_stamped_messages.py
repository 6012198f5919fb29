"""Messages whose timestamps and attempts are kept as they came behave as any others."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from qtools.engines.nsq.protocol.stamped_messages import StampedMessages
from qtools.message import Message, Messages

# The low byte of 257 is 1, that of 256 is 0.
attempts = st.sampled_from([0, 1, 1, 1, 2, 5, 255, 256, 257, 258, 513, 65535])
any_message = st.builds(
    Message, st.integers(-(2**63), 2**63 - 1), attempts, st.binary(min_size=16, max_size=16), st.binary()
)
not_negative = st.builds(Message, st.integers(0, 2**63 - 1), attempts, st.binary(min_size=16, max_size=16), st.binary())


def test_a_stamp_is_the_timestamp_and_the_attempts_as_on_the_wire() -> None:
    messages = StampedMessages([], [], [])
    messages.append(Message(1, 2, b"a" * 16, b"x"))
    assert messages.stamps == [b"\x00\x00\x00\x00\x00\x00\x00\x01\x00\x02"]
    assert (messages.ids, messages.bodies) == ([b"a" * 16], [b"x"])


@given(st.lists(any_message, max_size=6))
def test_they_look_like_a_list_of_them(single: list[Message]) -> None:
    messages = StampedMessages.of(single)
    assert isinstance(messages, StampedMessages)
    assert messages == single == Messages.of(single)
    assert [messages[place] for place in range(len(single))] == single
    assert messages[1:3] == single[1:3]
    assert messages.pick(range(0, len(single), 2)) == single[::2]
    assert messages.timestamps() == [each.timestamp for each in single]
    assert messages.attempts() == [each.attempts for each in single]
    assert messages.with_bodies([b"x"] * len(single)).bodies == [b"x"] * len(single)
    for times in (0, 1, 256, 257):
        assert messages.delivered_more_than(times) == Messages.of(single).delivered_more_than(times)
    more = Messages.of(single)
    more.extend(messages)
    messages.extend(StampedMessages.of(single))
    messages.extend(Messages.of(single))
    assert messages == single * 3
    assert more == single * 2
    assert Messages.joined([messages, more]) == single * 5


@given(st.lists(not_negative.filter(lambda each: each.attempts > 0), min_size=1, max_size=20))
def test_the_first_the_last_and_those_that_came_again(single: list[Message]) -> None:
    messages, other = StampedMessages.of(single), Messages.of(single)
    assert messages.redelivered() == other.redelivered() == sum(each.attempts > 1 for each in single)
    assert messages.first_and_last() == other.first_and_last()
    assert messages.last_timestamp() == other.last_timestamp() == single[-1].timestamp
