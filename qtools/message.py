"""Messages, which are plain data, and batches, which are messages that were read together and can be acknowledged.

Messages are stored by column (class Messages): ids, bodies, timestamps, attempts. Most code needs one column only, and
a million Message objects take a third of a second to create; they are created when one is accessed.

A Message does not know its origin. A Batch refers to the Origin of its messages (a connection, a file being read), and
offers finish, requeue and touch for all of them, which do not wait. To acknowledge some of them, pick them first.

The records of other engines than NSQ are kept as they were read; ids, timestamps, keys and headers are made from them
on the first access (class RecordOrigin).
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast, overload

from qtools.attributes import Attributes


@dataclass(slots=True)
class Message:
    """One message as a broker delivers it.

    timestamp: when the broker accepted it, ns since 1970 (int64); 0 for a message that was never in a broker.
    attempts: the number of deliveries, this one included (uint16): 1 on the first.
    id: 16 bytes of ASCII hex, unique only within one topic of one nsqd; empty if the message has none.
    """

    timestamp: int
    attempts: int
    id: bytes
    body: bytes


class Messages(Sequence[Message]):
    """Messages by column; it is a sequence of Message. All columns have the same length.

    ids: bytes each, "" for a message without an id. bodies. timestamps(), attempts(): as in Message; an engine that
    receives them packed makes them when they are asked for, in a class of its own (NSQ's StampedMessages).
    """

    __slots__ = ("_attempts", "_timestamps", "bodies", "ids")

    def __init__(self, ids: list[bytes], bodies: list[bytes], timestamps: list[int], attempts: list[int]) -> None:
        self.ids = ids
        self.bodies = bodies
        self._timestamps = timestamps
        self._attempts = attempts

    @classmethod
    def of_nothing(cls) -> Messages:
        """No messages, of the same class."""
        return cls([], [], [], [])

    @classmethod
    def of(cls, messages: Iterable[Message]) -> Messages:
        """The columns of `messages`."""
        made = cls.of_nothing()
        for message in messages:
            made.append(message)
        return made

    @staticmethod
    def joined(parts: Sequence[Messages]) -> Messages:
        """The messages of all `parts`, in new columns."""
        made = parts[0].of_nothing() if parts else Messages.of_nothing()
        for part in parts:
            made.extend(part)
        return made

    def append(self, message: Message) -> None:
        self.ids.append(message.id)
        self.bodies.append(message.body)
        self._timestamps.append(message.timestamp)
        self._attempts.append(message.attempts)

    def extend(self, others: Messages) -> None:
        self.ids += others.ids
        self.bodies += others.bodies
        self._timestamps += others.timestamps()
        self._attempts += others.attempts()

    def pick(self, places: Sequence[int]) -> Messages:
        """The messages at the indices `places`, in that order."""
        ids, bodies, timestamps, attempts = self.ids, self.bodies, self._timestamps, self._attempts
        return Messages(
            [ids[i] for i in places], [bodies[i] for i in places], [timestamps[i] for i in places],
            [attempts[i] for i in places],
        )  # fmt: skip

    def pick_slice(self, places: slice) -> Messages:
        """The messages of a slice."""
        return Messages(self.ids[places], self.bodies[places], self._timestamps[places], self._attempts[places])

    def with_bodies(self, bodies: list[bytes]) -> Messages:
        """The same messages with other bodies, one for each message."""
        return Messages(self.ids, bodies, self._timestamps, self._attempts)

    def timestamps(self) -> list[int]:
        """When a broker accepted each message, ns since 1970; not to be changed."""
        return self._timestamps

    def attempts(self) -> list[int]:
        """How often each message was delivered; not to be changed."""
        return self._attempts

    def last_timestamp(self) -> int:
        """The timestamp of the last message."""
        return self._timestamps[-1]

    def first_and_last(self) -> tuple[int, int]:
        """The earliest and the latest timestamp, ns; ValueError if there are no messages."""
        return min(self._timestamps), max(self._timestamps)

    def redelivered(self) -> int:
        """How many messages were delivered before."""
        return sum(attempts > 1 for attempts in self._attempts)

    def delivered_more_than(self, times: int) -> dict[int, int]:
        """The messages with more than `times` deliveries: index → deliveries."""
        return {place: attempts for place, attempts in enumerate(self._attempts) if attempts > times}

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, place: int) -> Message: ...
    @overload
    def __getitem__(self, place: slice) -> Messages: ...
    def __getitem__(self, place: int | slice) -> Message | Messages:
        if isinstance(place, slice):
            return self.pick_slice(place)
        return Message(self._timestamps[place], self._attempts[place], self.ids[place], self.bodies[place])

    def __iter__(self) -> Iterator[Message]:
        return map(Message, self._timestamps, self._attempts, self.ids, self.bodies)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Messages({list(self)!r})"


class Origin(Protocol):
    """Where messages were read from, and where they are acknowledged. No method waits.

    topic, address: of the messages; "" if the origin has none. ids: the ids that the broker gave to the messages, or
    the handles that the origin gave to them (`Batch.of_bodies`).
    """

    @property
    def topic(self) -> str: ...
    @property
    def address(self) -> str: ...
    @property
    def is_lost(self) -> bool:
        """Whether the connection that delivered the messages is lost, so that they cannot be acknowledged any more."""

    def finish(self, ids: Sequence[Any]) -> None: ...
    def requeue(self, ids: Sequence[Any], delay_ms: int) -> None: ...
    def touch(self, ids: Sequence[Any]) -> None: ...


class RecordOrigin(Origin, Protocol):
    """An Origin whose batches have `records`, one for each message, which only it can read."""

    def messages_of(self, records: Sequence[Any], bodies: list[bytes]) -> Messages:
        """Ids, timestamps, attempts and `bodies` as messages."""

    def attributes_of(self, records: Sequence[Any], only: Container[str] = Attributes._fields) -> Attributes:
        """Keys, headers and the like. only: the columns that are made; the others are None."""

    def delivered_more_than(self, times: int, records: Sequence[Any]) -> dict[int, int]:
        """The messages with more than `times` deliveries: index in `records` → deliveries. Called for each batch."""


class PartitionOrigin(RecordOrigin, Protocol):
    """A RecordOrigin that is one partition of a log, as long as this process alone reads it (capability
    `exclusive_partitions`). The ids of its messages are their offsets; they ascend, and may have gaps.

    number: of the partition. commit_limit: what is finished from there on is not committed, as the sink has not stored
    it yet; None for no limit. note: a short text, committed with offsets. ownership_lock: while locked, `is_lost` does
    not change. topic_id: as Kafka's; "" for none; waits, or raises OSError."""

    number: int
    commit_limit: int | None
    ownership_lock: threading.Lock
    note: str

    def topic_id(self) -> str: ...
    def read_again(self) -> None:
        """Treat this partition as lost, and read it again from the committed offset on, with another origin."""


Parts = list[tuple[Origin, int, int]]  # (origin, start, stop): the messages from index start to before stop


class Batch:
    """Messages that were read together, in the order of their arrival.

    parts: the origin of each range of messages, without gaps.
    messages: all columns; None if there are only `bodies` so far (lines of a file, or records).
    handles: what names each message to its origin; None if the messages have ids of a broker.
    records: the messages as the engine's client returned them; every origin is a RecordOrigin then. keys: in place of
    those of the records.
    """

    __slots__ = ("_handles", "_keys", "_messages", "_records", "bodies", "parts")

    def __init__(
        self,
        parts: Parts,
        messages: Messages | None,
        bodies: list[bytes],
        handles: Sequence[Any] | None = None,
        records: Sequence[Any] | None = None,
        keys: Sequence[bytes | None] | None = None,
    ) -> None:
        self.parts = parts
        self.bodies = bodies
        self._messages = messages
        self._handles = handles
        self._records = records
        self._keys = keys

    @classmethod
    def of(cls, origin: Origin, messages: Messages) -> Batch:
        """A batch of messages that all have the same origin."""
        return cls([(origin, 0, len(messages))], messages, messages.bodies)

    @classmethod
    def of_bodies(
        cls, origin: Origin, bodies: list[bytes], start: int = 0, records: Sequence[Any] | None = None
    ) -> Batch:
        """A batch of messages that have only a body, or also `records`. `origin` has numbered them from `start` on."""
        return cls([(origin, 0, len(bodies))], None, bodies, range(start, start + len(bodies)), records)

    @classmethod
    def empty(cls) -> Batch:
        return cls([], None, [], ())

    @classmethod
    def joined(cls, batches: Sequence[Batch]) -> Batch:
        """Join batches into one, in their order."""
        if len(batches) == 1:
            return batches[0]
        parts: Parts = []
        base = 0
        batches = [batch for batch in batches if batch.bodies]
        for batch in batches:
            parts += [(origin, base + start, base + stop) for origin, start, stop in batch.parts]
            base += len(batch)
        handles = records = keys = None
        if any(batch._handles is not None for batch in batches):
            handles = [ident for batch in batches for ident in batch.ids]
        if batches and all(batch._records is not None for batch in batches):
            records = [record for batch in batches for record in batch._records or ()]
            if any(batch._keys is not None for batch in batches):
                columns = [batch.attributes(("keys",)) for batch in batches]
                keys = [key for column in columns if column is not None for key in column.keys or ()]
        if all(batch._messages is None for batch in batches):
            return cls(parts, None, [body for batch in batches for body in batch.bodies], handles, records, keys)
        messages = Messages.joined([batch.messages for batch in batches])
        return cls(parts, messages, messages.bodies, handles, records, keys)

    def __len__(self) -> int:
        return len(self.bodies)

    @property
    def messages(self) -> Messages:
        messages = self._messages
        if messages is None:
            records, bodies, count = self._records, self.bodies, len(self.bodies)
            if records is None:
                messages = Messages([b""] * count, bodies, [0] * count, [0] * count)
            else:
                made = [
                    cast("RecordOrigin", origin).messages_of(records[start:stop], bodies[start:stop])
                    for origin, start, stop in self.parts
                ]
                messages = made[0] if len(made) == 1 else Messages.joined(made)
                messages.bodies = bodies
            self._messages = messages
        return messages

    def delivered_more_than(self, times: int) -> dict[int, int]:
        """The messages with more than `times` deliveries: place → deliveries."""
        records = self._records
        if records is None or self._messages is not None:
            return self.messages.delivered_more_than(times)
        found: dict[int, int] = {}
        for origin, start, stop in self.parts:
            some = cast("RecordOrigin", origin).delivered_more_than(times, records[start:stop])
            found.update({start + place: deliveries for place, deliveries in some.items()})
        return found

    @property
    def has_attributes(self) -> bool:
        """Whether the engine's messages have keys, headers and the like."""
        return self._records is not None

    def attributes(self, only: Container[str] = Attributes._fields) -> Attributes | None:
        """Keys, headers and the like of all messages; None if they have none. Made anew by each call. only: the columns
        that are made; the others are None."""
        records = self._records
        if records is None:
            return None
        made = Attributes.joined(
            [
                (cast("RecordOrigin", origin).attributes_of(records[start:stop], only), stop - start)
                for origin, start, stop in self.parts
            ]
        )
        return made if self._keys is None or "keys" not in only else made._replace(keys=list(self._keys))

    def with_keys(self, keys: Sequence[bytes | None]) -> Batch:
        """The same messages, which have records, with other keys, one for each message."""
        return Batch(self.parts, self._messages, self.bodies, self._handles, self._records, keys)

    @property
    def ids(self) -> Sequence[Any]:
        """What `origin.finish` and the like take for each message: the broker's id (16 bytes), or the handle that
        the origin gave to it."""
        return self.messages.ids if self._handles is None else self._handles

    def pick(self, places: Sequence[int]) -> Batch:
        """The messages at the indices `places` (ascending), as a new batch."""
        parts: Parts = []
        done = 0
        for origin, _, stop in self.parts:
            upto = bisect_left(places, stop)
            if upto > done:
                parts.append((origin, done, upto))
            done = upto
        others = (_picked(column, places) for column in (self._handles, self._records, self._keys))
        if self._messages is None:
            bodies = self.bodies
            return Batch(parts, None, [bodies[place] for place in places], *others)
        messages = self._messages.pick(places)
        return Batch(parts, messages, messages.bodies, *others)

    def with_bodies(self, bodies: list[bytes]) -> Batch:
        """The same messages with other bodies, one for each message."""
        if self._messages is None:
            return Batch(self.parts, None, bodies, self._handles, self._records, self._keys)
        messages = self._messages.with_bodies(bodies)
        return Batch(self.parts, messages, bodies, self._handles, self._records, self._keys)

    def without(self, places: Sequence[int]) -> Batch:
        """All messages except those at the indices `places`."""
        out = set(places)
        return self.pick([place for place in range(len(self)) if place not in out])

    def split(self, count: int) -> tuple[Batch, Batch]:
        """The first `count` messages, and the rest."""
        return self.pick(range(min(count, len(self)))), self.pick(range(count, len(self)))

    def finish(self) -> None:
        """Acknowledge all messages: their origins do not deliver them again."""
        ids = self.ids
        for origin, start, stop in self.parts:
            origin.finish(ids[start:stop])

    def requeue(self, delay_ms: int = 0) -> None:
        """Give all messages back to their origins, which deliver them again after `delay_ms`."""
        ids = self.ids
        for origin, start, stop in self.parts:
            origin.requeue(ids[start:stop], delay_ms)

    def touch(self) -> None:
        """Restart the message timeout of all messages."""
        ids = self.ids
        for origin, start, stop in self.parts:
            origin.touch(ids[start:stop])

    def __repr__(self) -> str:
        places = ", ".join(f"{stop - start} from {origin!r}" for origin, start, stop in self.parts)
        return f"<Batch {len(self)} messages: {places}>"


def _picked(values: Sequence[Any] | None, places: Sequence[int]) -> Sequence[Any] | None:
    if values is None:
        return None
    if isinstance(places, range) and places.step == 1:
        return values[places.start : places.stop]  # a slice of a range is a range, without copying
    return [values[place] for place in places]
