"""A consumer: one client's subscription to a channel, with its ready count and its messages in flight.

In: ranges to deliver, ids that it finishes, the time. Out: frames to its receiver; ranges that are requeued. No socket,
no clock, no event loop: the receiver reads and writes.

Most clients finish messages in the order of delivery. As long as one does, the lines that it will send are known: they
are compared with the bytes received, and no message is handled separately. After the first message out of order, the
messages in flight are put into a dict from id to the range of the delivery, until none is left. Even then ranges are
not searched: finishing is `dict.pop` mapped over the ids, and a count.

The deadlines of one client are in order, so they are a queue and not a heap. Only a message that was touched until it
meets the limit is out of that order.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from itertools import groupby, repeat
from typing import Protocol

from qtools.broker.core.block import NOTHING, Block, MessageRange
from qtools.broker.core.deadlines import Deadlines
from qtools.engines.nsq.protocol.client_commands import FIN_LENGTH

Done = tuple[Block, range | Sequence[bytes]]  # places in a block, or ids


class Receiver(Protocol):
    """The connection of a consumer."""

    def deliver(self, frames: bytes) -> int:
        """Send frames. Returns how many more bytes it can take in this turn; 0 or less: none for now."""
        ...

    def close_after_responses(self) -> None:
        """End the connection, because the channel was deleted."""
        ...


class ChannelConsumer:
    """One client of a channel. After the client has left, it keeps the messages in flight until they time out."""

    __slots__ = (
        "_by_id",
        "_capped",
        "_in_order",
        "_runs",
        "closing",
        "finished",
        "in_flight",
        "max_msg_timeout",
        "msg_timeout",
        "queued",
        "ready",
        "receiver",
        "requeued",
        "room",
        "sample_rate",
        "sent",
    )

    def __init__(
        self, receiver: Receiver, *, msg_timeout: float = 60.0, max_msg_timeout: float = 900.0, sample_rate: int = 0
    ) -> None:
        self.receiver = receiver
        self.msg_timeout = msg_timeout
        self.max_msg_timeout = max_msg_timeout
        self.sample_rate = sample_rate
        self.ready = 0
        self.room = 1  # bytes that it can take in this turn; 0 while its socket is full
        self.closing = False
        self.queued = False  # whether it is in the channel's queue of consumers that may take more
        self.in_flight = 0  # messages
        self.sent = self.finished = self.requeued = 0
        # In order: messages were finished in the order of delivery, and `_by_id` is empty.
        self._in_order = True
        self._by_id: dict[bytes, MessageRange] = {}
        self._runs: deque[MessageRange] = deque()
        self._capped: Deadlines[MessageRange] = Deadlines()

    @property
    def window(self) -> int:
        """How many messages it can take now."""
        if self.room <= 0 or self.closing:
            return 0
        return self.ready - self.in_flight

    def has(self, ident: bytes) -> bool:
        """Whether the message is in flight."""
        return ident in self._ids()

    def _ids(self) -> dict[bytes, MessageRange]:
        """The messages in flight, by id. From now on they are not handled in order."""
        if self._in_order:
            self._in_order = False
            for run in self._runs:
                run.fins = b""
                self._by_id.update(dict.fromkeys(run.block.ids(run.stop - run.left, run.stop), run))
        return self._by_id

    def deliver(self, run: MessageRange, now: float) -> list[bytes]:
        """Send `run`. Returns the ids of the messages that its sample rate drops."""
        block, start, stop = run.block, run.start, run.stop
        run.attempts += 1
        run.sent = now
        run.deadline = now + self.msg_timeout
        if not self.in_flight and not self._in_order:
            self._in_order = True
            self._runs.clear()
        if self.sample_rate:
            return self._deliver_some(run)
        run.left = stop - start
        if self._in_order:
            run.fins = block.fins(start, stop)
        else:
            self._by_id.update(dict.fromkeys(block.ids(start, stop), run))
        self._runs.append(run)
        self.sent += stop - start
        self.in_flight += stop - start
        self.room = self.receiver.deliver(block.deliver(start, stop, run.attempts))
        return []

    def _deliver_some(self, run: MessageRange) -> list[bytes]:
        # nsqd compares with `>`, so that 1 means 2 % there; here 1 means 1 %.
        rate, draw = self.sample_rate / 100, random.random
        block, start, attempts = run.block, run.start, run.attempts
        kept: list[bytes] = []
        frames: list[bytes] = []
        dropped: list[bytes] = []
        for place, ident in enumerate(block.ids(start, run.stop), start):
            if draw() < rate:
                kept.append(ident)
                frames.append(block.deliver(place, place + 1, attempts))
            else:
                dropped.append(ident)
        if kept:
            run.left = len(kept)
            self._ids().update(dict.fromkeys(kept, run))
            self._runs.append(run)
            self.sent += len(kept)
            self.in_flight += len(kept)
        # Dropped messages count too, so that a small rate does not go through a whole backlog in one turn.
        self.room = min(self.receiver.deliver(b"".join(frames)), self.room - block.size(start, run.stop))
        return dropped

    def finish_in_order(self, lines: bytes) -> list[Done] | None:
        """Finish the messages that were delivered first, if `lines` say exactly that. Returns None otherwise."""
        if not self._in_order:
            return None
        ends: list[tuple[MessageRange, int]] = []
        at, end = 0, len(lines)
        for run in self._runs:
            begin = len(run.fins) - run.left * FIN_LENGTH
            size = min(len(run.fins) - begin, end - at)
            if lines[at : at + size] != run.fins[begin : begin + size]:
                return None
            ends.append((run, size // FIN_LENGTH))
            at += size
            if at == end:
                break
        else:
            return None
        done: list[Done] = []
        for run, count in ends:
            start = run.stop - run.left
            done.append((run.block, range(start, start + count)))
            self._count_down(run, count)
            self.finished += count
        self._tidy()
        return done

    def finish(self, ids: Sequence[bytes]) -> tuple[list[Done], list[bytes]]:
        """Finish the messages `ids`. Returns those that were in flight, by block, and those that were not."""
        runs = map(self._ids().pop, ids, repeat(None))
        done: list[Done] = []
        missing: list[bytes] = []
        at = 0
        # Messages delivered together are mostly finished together, in long stretches of one range.
        for run, stretch in groupby(runs):
            stop = at + len(list(stretch))
            if run is None:
                missing += ids[at:stop]
            else:
                done.append((run.block, ids[at:stop]))
                self._count_down(run, stop - at)
                self.finished += stop - at
            at = stop
        self._tidy()
        return done, missing

    def take_back(self, ident: bytes) -> MessageRange | None:
        """Remove one message in flight. Returns it as a range of its own, or None when it is not in flight."""
        run = self._ids().pop(ident, None)
        if run is None:
            return None
        place = run.block.place(ident)
        single = MessageRange(run.block, place, place + 1, run.attempts)
        single.sent = run.sent
        self._count_down(run, 1)
        self._tidy()
        return single

    def touch(self, ident: bytes, now: float) -> MessageRange | None:
        """Restart the timeout of a message in flight, up to its limit.

        Returns the message as a range of its own, or None when it is not in flight.
        """
        single = self.take_back(ident)
        if single is None:
            return None
        single.left = 1
        latest = single.sent + self.max_msg_timeout
        single.deadline = min(now + self.msg_timeout, latest)
        self._ids()[ident] = single
        self.in_flight += 1
        if not self._runs or self._runs[-1].deadline <= single.deadline:
            self._runs.append(single)
        else:
            self._capped.add(single.deadline, single)
        return single

    def expire(self, now: float) -> list[MessageRange]:
        """Remove and return the messages that have timed out."""
        back: list[MessageRange] = []
        runs = self._runs
        while runs and (not runs[0].left or runs[0].deadline <= now):
            run = runs.popleft()
            if run.left:
                back += self._whole_or_parts(run)
        for run in self._capped.take_due(now):
            if run.left:
                back += self._whole_or_parts(run)
        return back

    def next_deadline(self) -> float | None:
        """When `expire` should be called next; None when nothing is in flight."""
        while self._runs and not self._runs[0].left:
            self._runs.popleft()
        first = self._runs[0].deadline if self._runs else None
        capped = self._capped.next()
        if first is None or (capped is not None and capped < first):
            return capped
        return first

    def clear(self) -> None:
        """Forget the messages in flight, because the channel was emptied."""
        for run in self._runs:
            run.left = 0
        self._by_id.clear()
        self.in_flight = 0
        self._runs.clear()
        self._capped.clear()

    def _whole_or_parts(self, run: MessageRange) -> list[MessageRange]:
        """Remove what is left of a range, as few ranges as possible."""
        self.in_flight -= run.left
        if self._in_order:
            return [MessageRange(run.block, run.stop - run.left, run.stop, run.attempts)]
        ids = run.block.ids(run.start, run.stop)
        by_id = self._by_id
        if run.left == len(ids):
            for ident in ids:
                del by_id[ident]
            return [MessageRange(run.block, run.start, run.stop, run.attempts)]
        parts: list[MessageRange] = []
        for place, ident in enumerate(ids, run.start):
            if by_id.get(ident) is run:
                del by_id[ident]
                if parts and parts[-1].stop == place:
                    parts[-1].stop = place + 1
                else:
                    parts.append(MessageRange(run.block, place, place + 1, run.attempts))
        return parts

    def _count_down(self, run: MessageRange, count: int) -> None:
        self.in_flight -= count
        run.left -= count
        if not run.left:
            run.block = NOTHING  # an earlier range may keep this one in the queue for a while: its bytes are freed now

    def _tidy(self) -> None:
        """Remove finished ranges from the front of the queue, and from the middle once they are most of it."""
        runs = self._runs
        while runs and not runs[0].left:
            runs.popleft()
        if len(runs) > 64 + 2 * self.in_flight:
            self._runs = deque(run for run in runs if run.left)

    def __repr__(self) -> str:
        return f"<Consumer in_flight={self.in_flight}/{self.ready} finished={self.finished}>"
