"""The commands that a publisher has sent or will send, in their order. In: chunks of messages, replies. Out: what to
send next; what became of each message. No I/O of its own.

    put ─▶ queued ─▶ next_chunk ─▶ sent ─▶ replies ─▶ settled, by message
              ▲                      │
              └── refused for now ◀──┘ lost with its connection

A server answers in the order of the commands. What it refuses for now (server_errors.PASSING) holds up all that
follows: once the last reply is there, the refused messages are sent again, before the others.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from qtools.engines.redis.protocol.replies import ErrorReply, Reply
from qtools.engines.redis.server_errors import PASSING

WINDOW_BYTES = 8 * 1024 * 1024  # of commands that are queued or not answered; a publish waits beyond that


class AddChunk:
    """Messages of one group of a publish, sent in one piece.

    group: the group's number in its publish. places: of the messages in the group. encode: makes the commands for some
    places. settle: called with the group, a place and its reply for each
    message that was not simply added. done: completes when
    each message was added, or settled.
    """

    __slots__ = ("data", "done", "encode", "group", "is_dropped", "places", "settle", "topic")

    def __init__(
        self,
        topic: str,
        group: int,
        places: Sequence[int],
        encode: Callable[[Sequence[int]], bytes],
        settle: Callable[[int, int, Reply], None],
    ) -> None:
        self.topic = topic
        self.group = group
        self.places = places
        self.encode = encode
        self.settle = settle
        self.data = encode(places)
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.is_dropped = False

    def answer(self, replies: Sequence[Reply]) -> ErrorReply | None:
        """The replies to the first messages. Those that were not answered, or were refused for now, remain; returns
        the last error that passes by itself."""
        if len(replies) == len(self.places) and all(reply.__class__ is bytes for reply in replies):
            self.places = ()
            return None
        left: list[int] = []
        passing: ErrorReply | None = None
        for place, reply in zip(self.places, replies, strict=False):
            if reply.__class__ is bytes:
                continue
            if isinstance(reply, ErrorReply) and reply.code in PASSING:
                left.append(place)
                passing = reply
            else:
                self.settle(self.group, place, reply)
        self.places = [*left, *self.places[len(replies) :]]
        return passing

    def finish(self) -> None:
        if not self.done.done():
            self.done.set_result(None)


class AddQueue:
    """queued, sent: chunks, the oldest first. held: a chunk was refused for now; nothing is sent meanwhile."""

    def __init__(self) -> None:
        self.queued: deque[AddChunk] = deque()
        self.sent: deque[AddChunk] = deque()
        self.size = 0  # bytes of all chunks
        self.held: ErrorReply | None = None
        self._again: list[AddChunk] = []  # refused for now, while others wait for their replies

    def put(self, chunk: AddChunk) -> None:
        self.queued.append(chunk)
        self.size += len(chunk.data)

    @property
    def is_full(self) -> bool:
        return self.size >= WINDOW_BYTES

    def next_chunk(self) -> AddChunk | None:
        """The chunk to be sent now; it counts as sent."""
        if self.held is not None or not self.queued:
            return None
        chunk = self.queued.popleft()
        self.sent.append(chunk)
        return chunk

    def answered(self, replies: Sequence[Reply]) -> AddChunk:
        """All replies to the oldest chunk that was sent. `held` is set if some of it has to be sent again."""
        chunk = self.sent.popleft()
        passing = chunk.answer(replies)
        if passing is not None:
            self.held = passing
        self._settle(chunk)
        return chunk

    def lost(self, replies: Sequence[Reply]) -> int:
        """The connection was lost after `replies`, some of those to the oldest chunk that was sent. What was not
        answered is to be sent again; returns how many messages that are."""
        count = 0
        if self.sent:
            self.sent[0].answer(replies)
        while self.sent:
            chunk = self.sent.popleft()
            count += 0 if chunk.is_dropped else len(chunk.places)
            self._settle(chunk)
        self.release()
        return count

    def release(self) -> None:
        """What was refused for now is to be sent again, before all else."""
        self.held = None
        self.queued.extendleft(reversed(self._again))
        self._again.clear()

    def drop(self, chunks: Sequence[AddChunk]) -> None:
        """Forget chunks: their publish is given up."""
        given_up = set(map(id, chunks))
        for chunk in chunks:
            chunk.is_dropped = True
        for each in (self.queued, self._again):
            for chunk in [chunk for chunk in each if id(chunk) in given_up]:
                each.remove(chunk)
                self.size -= len(chunk.data)

    def _settle(self, chunk: AddChunk) -> None:
        if not chunk.places or chunk.is_dropped:
            self.size -= len(chunk.data)
            chunk.finish()
            return
        before = len(chunk.data)
        chunk.data = chunk.encode(chunk.places)
        self.size += len(chunk.data) - before
        self._again.append(chunk)
