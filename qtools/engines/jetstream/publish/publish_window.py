"""Messages that are not confirmed yet, in the order in which they are sent. No I/O.

    add ─▶ queued ─▶ take ─▶ sent ─▶ answered, given back, or lost with the connection (then queued again)

Each message has a number, which the server's answer names. A run is the messages of one topic in one publish; nearly
always the server answers them in their order, and then no single number is looked up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence

WINDOW_COUNT = 4096  # messages without an answer; a stream of nats-server buffers 10,000 for all its publishers
WINDOW_BYTES = 16 * 1024 * 1024
PIECE = 512  # messages that are encoded and written together


class PublishRun:
    """Messages of one topic. number: of the first one. blocks: the header block of each, or None if none has headers.
    places: of each message in its group. left: how many are not answered. answered: 1 for each that is."""

    __slots__ = (
        "answered",
        "blocks",
        "bodies",
        "is_given_up",
        "left",
        "number",
        "on_answered",
        "places",
        "sent",
        "topic",
    )

    def __init__(
        self,
        topic: bytes,
        bodies: Sequence[bytes],
        blocks: Sequence[bytes] | None,
        places: Sequence[int],
        on_answered: Callable[[int], None],
    ) -> None:
        self.topic = topic
        self.bodies = bodies
        self.blocks = blocks
        self.places = places
        self.on_answered = on_answered
        self.number = 0
        self.sent = 0
        self.left = len(bodies)
        self.answered = bytearray(len(bodies))
        self.is_given_up = False

    def size_of(self, start: int, stop: int) -> int:
        """Bytes of bodies and headers of a range of messages."""
        size = sum(map(len, self.bodies[start:stop]))
        return size if self.blocks is None else size + sum(map(len, self.blocks[start:stop]))


class PublishWindow:
    """unanswered, unanswered_bytes: of the messages that were sent on the present connection."""

    def __init__(self) -> None:
        self.unanswered = 0
        self.unanswered_bytes = 0
        self._runs: deque[PublishRun] = deque()  # with messages that are not answered, by number
        self._unsent: deque[PublishRun] = deque()
        self._next_number = 1

    def add(self, run: PublishRun) -> None:
        """Queue a run that has messages."""
        run.number = self._next_number
        self._next_number += len(run.bodies)
        self._runs.append(run)
        self._unsent.append(run)

    def take(self) -> tuple[PublishRun, int, int] | None:
        """The next messages to be sent, as a run and a range in it; they count as sent. None while the window is full,
        or nothing is queued. Messages of the range that are answered are not to be sent."""
        unsent = self._unsent
        while unsent and (unsent[0].is_given_up or unsent[0].sent == len(unsent[0].bodies)):
            unsent.popleft()
        room = WINDOW_COUNT - self.unanswered
        if not unsent or room <= 0 or self.unanswered_bytes >= WINDOW_BYTES:
            return None
        run = unsent[0]
        start = run.sent
        stop = min(start + min(room, PIECE), len(run.bodies))
        size = run.size_of(start, stop)
        while size > WINDOW_BYTES // 4 and stop - start > 1:  # large messages leave in smaller pieces
            stop = start + (stop - start + 1) // 2
            size = run.size_of(start, stop)
        run.sent = stop
        self.unanswered += run.answered.count(0, start, stop)
        self.unanswered_bytes += size
        return run, start, stop

    def confirm(self, numbers: list[int]) -> None:
        """The messages with these numbers are answered. Numbers that are not known, or were answered, are ignored."""
        first, last = numbers[0], numbers[-1]
        if last - first + 1 == len(numbers) and numbers == list(range(first, last + 1)):
            for run in self._overlapping(first, last):
                start = max(0, first - run.number)
                self._answer(run, start, min(len(run.bodies), last + 1 - run.number))
        else:
            for number in numbers:
                if (found := self.find(number)) is not None:
                    self._answer(found[0], found[1], found[1] + 1)
        while self._runs and not self._runs[0].left:
            self._runs.popleft()

    def find(self, number: int) -> tuple[PublishRun, int] | None:
        """The run of a message that is not answered, and its place there; None if there is none of this number."""
        for run in self._overlapping(number, number):
            if not run.answered[number - run.number]:
                return run, number - run.number
        return None

    def give_back(self, run: PublishRun, place: int) -> None:
        """A message that was sent was refused for now: it is not on its way until `resend`."""
        self.unanswered -= 1
        self.unanswered_bytes -= run.size_of(place, place + 1)

    def resend(self, run: PublishRun, place: int) -> bool:
        """A message that was given back is sent again; False if it need not be."""
        if run.answered[place] or run.is_given_up or place >= run.sent:
            return False
        self.unanswered += 1
        self.unanswered_bytes += run.size_of(place, place + 1)
        return True

    def lose_connection(self) -> int:
        """Queue all messages again that were sent and are not answered; returns how many."""
        resent = self.unanswered
        self._runs = deque(run for run in self._runs if run.left and not run.is_given_up)
        for run in self._runs:
            run.sent = 0
        self._unsent = deque(self._runs)
        self.unanswered = self.unanswered_bytes = 0
        return resent

    def of_topic(self, topic: bytes) -> Iterator[tuple[PublishRun, list[int]]]:
        """The runs of `topic`, and the numbers of their messages that are not answered."""
        for run in list(self._runs):
            if run.topic == topic and run.left:
                yield run, [run.number + place for place, done in enumerate(run.answered) if not done]

    def _overlapping(self, first: int, last: int) -> Iterator[PublishRun]:
        for run in self._runs:
            if run.number > last:
                return
            if run.number + len(run.bodies) > first:
                yield run

    def _answer(self, run: PublishRun, start: int, stop: int) -> None:
        new = run.answered.count(0, start, stop)
        if not new:
            return
        on_the_way = run.answered.count(0, start, min(stop, run.sent)) if start < run.sent else 0
        self.unanswered = max(0, self.unanswered - on_the_way)
        self.unanswered_bytes = max(0, self.unanswered_bytes - run.size_of(start, min(stop, run.sent)))
        run.answered[start:stop] = b"\1" * (stop - start)
        run.left -= new
        if not self.unanswered:
            self.unanswered_bytes = 0
        run.on_answered(new)
