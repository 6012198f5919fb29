"""A message, which is plain data, and a batch, which is messages read together and the way back.

Many messages are kept by column (Messages): ids, bodies, stamps. Most work looks at one column, a million
Message objects cost a third of a second, and who wants them gets them by looking.

A Message does not know where it came from. A Batch does: it remembers who handed the messages over
(an Origin: a connection, a file being read) and offers finish, requeue and touch for all of them or
for some, named by their places in the batch. One call each for a whole batch; nothing here waits.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, overload


@dataclass(slots=True)
class Message:
    """One message as a broker delivers it.

    timestamp: when the broker accepted it, ns since 1970 (int64); 0 where it never was in a broker.
    attempts: deliveries so far, 1 on the first (uint16).
    id: 16 bytes, ASCII hex, unique only within one (nsqd, topic); empty where there is none.
    """

    timestamp: int
    attempts: int
    id: bytes
    body: bytes


_STAMP = struct.Struct(">qH")
NO_STAMP = bytes(_STAMP.size)


def timestamp_of(stamp: bytes) -> int:
    """The timestamp in one of `Messages.stamps`, ns."""
    timestamp: int = _STAMP.unpack(stamp)[0]
    return timestamp


def redelivered(messages: Messages) -> int:
    """How many of `messages` are not on their first delivery. 10 ns a message: no stamp is looked at by itself."""
    joined = b"".join(messages.stamps)
    first = joined[9::10].count(1)
    # The low byte is 1 on the 257th delivery too; where the high byte tells of such, all are looked at.
    if joined[8::10].count(0) != len(messages):
        first = sum(stamp[8:] == b"\0\1" for stamp in messages.stamps)
    return len(messages) - first


class Messages(Sequence[Message]):
    """Messages by column, all of one length; looked at like a list of Message.

    ids: 16 bytes each. bodies. stamps: timestamp and attempts as they stand on the wire, 10 bytes each.
    """

    __slots__ = ("bodies", "ids", "stamps")

    def __init__(self, ids: list[bytes], bodies: list[bytes], stamps: list[bytes]) -> None:
        self.ids = ids
        self.bodies = bodies
        self.stamps = stamps

    @classmethod
    def of(cls, messages: Iterable[Message]) -> Messages:
        """Messages from single ones."""
        made = cls([], [], [])
        for message in messages:
            made.append(message)
        return made

    def append(self, message: Message) -> None:
        self.ids.append(message.id)
        self.bodies.append(message.body)
        self.stamps.append(_STAMP.pack(message.timestamp, message.attempts))

    def extend(self, others: Messages) -> None:
        self.ids += others.ids
        self.bodies += others.bodies
        self.stamps += others.stamps

    def pick(self, places: Sequence[int]) -> Messages:
        """Those at `places`."""
        ids, bodies, stamps = self.ids, self.bodies, self.stamps
        return Messages([ids[i] for i in places], [bodies[i] for i in places], [stamps[i] for i in places])

    def timestamps(self) -> list[int]:
        """When a broker accepted each message, ns since 1970."""
        return [timestamp_of(stamp) for stamp in self.stamps]

    def first_and_last(self) -> tuple[int, int]:
        """The earliest and the latest timestamp, ns; ValueError if there are no messages."""
        # A stamp begins with the timestamp, big-endian: stamps sort like their timestamps.
        return timestamp_of(min(self.stamps)), timestamp_of(max(self.stamps))

    def delivered_more_than(self, times: int) -> dict[int, int]:
        """The messages with more than `times` deliveries: place → deliveries."""
        limit = times.to_bytes(2, "big")
        return {place: int.from_bytes(stamp[8:]) for place, stamp in enumerate(self.stamps) if stamp[8:] > limit}

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, place: int) -> Message: ...
    @overload
    def __getitem__(self, place: slice) -> Messages: ...
    def __getitem__(self, place: int | slice) -> Message | Messages:
        if isinstance(place, slice):
            return Messages(self.ids[place], self.bodies[place], self.stamps[place])
        timestamp, attempts = _STAMP.unpack(self.stamps[place])
        return Message(timestamp, attempts, self.ids[place], self.bodies[place])

    def __iter__(self) -> Iterator[Message]:
        unpack = _STAMP.unpack
        for stamp, ident, body in zip(self.stamps, self.ids, self.bodies, strict=True):
            timestamp, attempts = unpack(stamp)
            yield Message(timestamp, attempts, ident, body)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Messages({list(self)!r})"


class Origin(Protocol):
    """Who handed messages over, and takes back what became of them. None of it waits.

    `topic` and `address` say where they came from ("" where there is no such thing). `ids` name the
    messages: those of the broker, or the numbers that the origin gave them (`Batch.of_bodies`).
    """

    @property
    def topic(self) -> str: ...
    @property
    def address(self) -> str: ...
    @property
    def is_lost(self) -> bool:
        """Whether its messages cannot be acknowledged any more, as the connection that delivered them is lost."""

    def finish(self, ids: Sequence[Any]) -> None: ...
    def requeue(self, ids: Sequence[Any], delay_ms: int) -> None: ...
    def touch(self, ids: Sequence[Any]) -> None: ...


Parts = list[tuple[Origin, int, int]]


class Batch:
    """Messages read together, in the order they came.

    `parts` says which origin each run of them came from, as (origin, start, stop) without gaps. A batch of
    messages that have only a body so far (lines of a file) makes their `messages` when they are asked for; its origin
    knows them by numbers.
    """

    __slots__ = ("_messages", "_numbers", "bodies", "parts")

    def __init__(
        self, parts: Parts, messages: Messages | None, bodies: list[bytes], numbers: Sequence[Any] | None = None
    ) -> None:
        self.parts = parts
        self.bodies = bodies
        self._messages = messages
        self._numbers = numbers  # what names each message to its origin; None where the message's id does

    @classmethod
    def of(cls, origin: Origin, messages: Messages) -> Batch:
        """A batch that came from one place."""
        return cls([(origin, 0, len(messages))], messages, messages.bodies)

    @classmethod
    def of_bodies(cls, origin: Origin, bodies: list[bytes], start: int = 0) -> Batch:
        """A batch of messages that have only a body. `origin` knows them by the numbers from `start` on."""
        return cls([(origin, 0, len(bodies))], None, bodies, range(start, start + len(bodies)))

    @classmethod
    def empty(cls) -> Batch:
        return cls([], None, [], ())

    @classmethod
    def joined(cls, batches: Sequence[Batch]) -> Batch:
        """Several batches as one, in order."""
        if len(batches) == 1:
            return batches[0]
        parts: Parts = []
        base = 0
        for batch in batches:
            parts += [(origin, base + start, base + stop) for origin, start, stop in batch.parts]
            base += len(batch)
        numbers = None
        if any(batch._numbers is not None for batch in batches):
            numbers = [ident for batch in batches for ident in batch.ids]
        if all(batch._messages is None for batch in batches):
            return cls(parts, None, [body for batch in batches for body in batch.bodies], numbers)
        messages = Messages([], [], [])
        for batch in batches:
            messages.extend(batch.messages)
        return cls(parts, messages, messages.bodies, numbers)

    def __len__(self) -> int:
        return len(self.bodies)

    @property
    def messages(self) -> Messages:
        if self._messages is None:
            count = len(self.bodies)
            self._messages = Messages([b""] * count, self.bodies, [NO_STAMP] * count)
        return self._messages

    @property
    def ids(self) -> Sequence[Any]:
        """What names each message to its origin: the broker's id, 16 bytes, or the number that the origin gave it."""
        return self.messages.ids if self._numbers is None else self._numbers

    def pick(self, places: Sequence[int]) -> Batch:
        """The messages at `places` (ascending), as a batch of their own."""
        parts: Parts = []
        done = 0
        for origin, _, stop in self.parts:
            upto = bisect_left(places, stop)
            if upto > done:
                parts.append((origin, done, upto))
            done = upto
        numbers = self._numbers
        if numbers is not None:
            if isinstance(places, range) and places.step == 1:
                numbers = numbers[places.start : places.stop]  # of a range, which stays one
            else:
                numbers = [numbers[place] for place in places]
        if self._messages is None:
            bodies = self.bodies
            return Batch(parts, None, [bodies[place] for place in places], numbers)
        messages = self._messages.pick(places)
        return Batch(parts, messages, messages.bodies, numbers)

    def with_bodies(self, bodies: list[bytes]) -> Batch:
        """The same messages with other bodies, one for each."""
        if self._messages is None:
            return Batch(self.parts, None, bodies, self._numbers)
        messages = Messages(self._messages.ids, bodies, self._messages.stamps)
        return Batch(self.parts, messages, bodies, self._numbers)

    def without(self, places: Sequence[int]) -> Batch:
        """All messages but those at `places`."""
        out = set(places)
        return self.pick([place for place in range(len(self)) if place not in out])

    def split(self, count: int) -> tuple[Batch, Batch]:
        """The first `count` messages, and the rest."""
        return self.pick(range(min(count, len(self)))), self.pick(range(count, len(self)))

    def finish(self) -> None:
        """Tell every origin that its messages are done with."""
        ids = self.ids
        for origin, start, stop in self.parts:
            origin.finish(ids[start:stop])

    def requeue(self, delay_ms: int = 0) -> None:
        """Give every message back, to come again after `delay_ms`."""
        ids = self.ids
        for origin, start, stop in self.parts:
            origin.requeue(ids[start:stop], delay_ms)

    def touch(self) -> None:
        """Ask for more time for every message."""
        ids = self.ids
        for origin, start, stop in self.parts:
            origin.touch(ids[start:stop])

    def __repr__(self) -> str:
        places = ", ".join(f"{stop - start} from {origin!r}" for origin, start, stop in self.parts)
        return f"<Batch {len(self)} messages: {places}>"
