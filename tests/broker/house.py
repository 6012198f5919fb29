"""Topics and channels without a broker round them: time is what the test says. In: calls. Out: what was sent."""

from __future__ import annotations

from qtools.broker.core.channel import Channel
from qtools.broker.core.clock import Clock
from qtools.broker.core.consumer import ChannelConsumer
from qtools.broker.core.memory_store import MemoryStore
from qtools.broker.core.store import Commit, Store
from qtools.broker.core.topic import Topic
from qtools.engines.nsq.protocol.frames import FrameReader
from qtools.message import Message

FIRST = 0x1000


class Reader:
    """Stands behind a consumer: takes what it is sent, as much as it has room for."""

    def __init__(self, room: int = 1 << 30) -> None:
        self.messages: list[Message] = []
        self.writes = 0
        self.shut_down = False
        self.room = room
        self._frames = FrameReader()

    def deliver(self, frames: bytes) -> int:
        self.messages += self._frames.read(frames)[0]
        self.writes += 1
        self.room -= len(frames)
        return self.room

    def close_after_responses(self) -> None:
        self.shut_down = True

    def take(self) -> list[Message]:
        """What came since the last call."""
        messages, self.messages = self.messages, []
        return messages

    def bodies(self) -> list[bytes]:
        return [message.body for message in self.take()]


class House:
    """A host: a clock that stands still, and turns that end when the test says so."""

    def __init__(self, store: Store | None = None, limit: int = 10_000, max_consumers: int = 0) -> None:
        self.store: Store = store if store is not None else MemoryStore()
        self.now = 100.0
        self.stirred: dict[Channel, None] = {}
        self.alarms: dict[Channel, float] = {}
        self.topics: list[Topic] = []
        self.limit, self.max_consumers = limit, max_consumers

    @property
    def clock(self) -> Clock:
        return Clock(lambda: self.now, self.wall)

    @property
    def wall(self) -> int:
        return 1_700_000_000 * 10**9 + round(self.now * 1e9)

    def schedule(self, channel: Channel) -> None:
        self.stirred[channel] = None

    def alarm(self, channel: Channel, when: float) -> None:
        self.alarms[channel] = when

    def gathered(self, topic: Topic) -> None:
        self.topics.append(topic)

    def topic(self, name: str = "t") -> Topic:
        return Topic(name, self, first_id=FIRST, limit=self.limit, max_consumers=self.max_consumers)

    def channel(self, topic: Topic, name: str = "c") -> Channel:
        return topic.channel(name, self.now, self.wall)

    def publish(self, topic: Topic, *bodies: bytes, delay: float = 0.0) -> Commit | None:
        due = self.wall + round(delay * 1e9) if delay else 0
        return topic.publish(bodies, self.now, self.wall, due)

    def seal(self) -> None:
        topics, self.topics = self.topics, []
        for topic in topics:
            topic.seal(self.now, self.wall)

    def turn(self) -> None:
        self.store.end_turn(self.seal)
        while self.stirred:
            channels, self.stirred = self.stirred, {}
            for channel in channels:
                channel.deliver(self.now)

    def pass_time(self, seconds: float) -> None:
        """Let time pass; every alarm rings at its time."""
        end = self.now + seconds
        while self.alarms and min(self.alarms.values()) <= end:
            channel = min(self.alarms, key=lambda one: self.alarms[one])
            self.now = max(self.now, self.alarms.pop(channel))
            channel.wake(self.now)
            self.turn()
        self.now = end


def consume(
    channel: Channel,
    ready: int = 100,
    *,
    msg_timeout: float = 60.0,
    max_msg_timeout: float = 900.0,
    sample_rate: int = 0,
) -> tuple[ChannelConsumer, Reader]:
    """A client on `channel`."""
    reader = Reader()
    consumer = ChannelConsumer(
        reader, msg_timeout=msg_timeout, max_msg_timeout=max_msg_timeout, sample_rate=sample_rate
    )
    consumer.room = reader.room
    channel.add(consumer)
    consumer.ready = ready
    channel.schedule(consumer)
    return consumer, reader


def ids(messages: list[Message]) -> list[bytes]:
    return [message.id for message in messages]
