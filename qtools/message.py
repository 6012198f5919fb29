"""A message, which is plain data, and a batch, which is messages read together and the way back.

A Message does not know where it came from. A Batch does: it remembers who handed the messages over
(an Origin: a connection, a file being read) and offers finish, requeue and touch for all of them or
for some, named by their places in the batch. One call each for a whole batch; nothing here waits.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


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


class Origin(Protocol):
    """Who handed messages over, and takes back what became of them. None of it waits.

    `topic` and `address` say where they came from ("" where there is no such thing). `ids` name the
    messages; an origin that only counts (a file being read) looks at how many there are.
    """

    @property
    def topic(self) -> str: ...
    @property
    def address(self) -> str: ...
    def finish(self, ids: Sequence[bytes]) -> None: ...
    def requeue(self, ids: Sequence[bytes], delay_ms: int) -> None: ...
    def touch(self, ids: Sequence[bytes]) -> None: ...


Parts = list[tuple[Origin, int, int]]


class Batch:
    """Messages read together, in the order they came.

    `parts` says which origin each run of them came from, as (origin, start, stop) without gaps; most
    batches have one. A batch that was read as bare bodies makes its `messages` only when asked, as
    making a million of them costs a fifth of a second that a plain copy need not spend.
    """

    __slots__ = ("_bodies", "_messages", "parts")

    def __init__(
        self, parts: Parts, *, messages: list[Message] | None = None, bodies: list[bytes] | None = None
    ) -> None:
        self.parts = parts
        self._messages = messages
        self._bodies = bodies

    @classmethod
    def of(cls, origin: Origin, messages: list[Message]) -> Batch:
        """A batch that came from one place."""
        return cls([(origin, 0, len(messages))], messages=messages)

    @classmethod
    def of_bodies(cls, origin: Origin, bodies: list[bytes]) -> Batch:
        """A batch of messages that have nothing but a body yet."""
        return cls([(origin, 0, len(bodies))], bodies=bodies)

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
        if all(batch._messages is None for batch in batches):
            return cls(parts, bodies=[body for batch in batches for body in batch.bodies])
        return cls(parts, messages=[message for batch in batches for message in batch.messages])

    def __len__(self) -> int:
        return self.parts[-1][2] if self.parts else 0

    @property
    def messages(self) -> list[Message]:
        if self._messages is None:
            self._messages = [Message(0, 0, b"", body) for body in self._bodies or ()]
        return self._messages

    @property
    def bodies(self) -> list[bytes]:
        if self._bodies is None:
            self._bodies = [message.body for message in self.messages]
        return self._bodies

    @property
    def ids(self) -> list[bytes]:
        """What names each message to its origin."""
        if self._messages is None:
            return self.bodies  # such an origin only counts
        return [message.id for message in self._messages]

    def pick(self, places: Sequence[int]) -> Batch:
        """The messages at `places` (ascending), as a batch of their own."""
        parts: Parts = []
        done = 0
        for origin, _, stop in self.parts:
            upto = bisect_left(places, stop)
            if upto > done:
                parts.append((origin, done, upto))
            done = upto
        if self._messages is None:
            bodies = self.bodies
            return Batch(parts, bodies=[bodies[place] for place in places])
        messages = self._messages
        return Batch(parts, messages=[messages[place] for place in places])

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
