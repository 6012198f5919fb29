"""One client's stream, over HTTP or a WebSocket. In: batches. Out: bytes in a format, and acknowledgements.

    source.read ─▶ where, count ─▶ stream.send ─▶ ack=auto:   finished once the client's kernel has acknowledged them
                                                  ack=client: in flight until the client acknowledges them

A message is not finished if the transport has not taken its bytes (ClientGone), or the client's kernel has not
acknowledged them when the client disconnects. It is requeued when the source is closed, at once.
"""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Protocol

from qtools.errors import QtoolsError
from qtools.flow.gather import request_ends
from qtools.message import Batch
from qtools.pubsub_http.publish.publish_batcher import refusal_of
from qtools.pubsub_http.subscribe.rendered_batch import (
    DECODED,
    FORMATS,
    RenderedBatch,
    Where,
    event_pieces,
    render,
    with_json,
)
from qtools.pubsub_http.subscribe.sessions import AckSession
from qtools.web.request_body import Refusal, Send
from qtools.web.sender import ClientGone, Sender
from qtools.web.tracked_transport import TrackedTransport

log = logging.getLogger("qtools.pubsub")

# s between two checks of what the client's kernel has acknowledged: short at first, then the client is slow.
FIRST_LOOK = 0.002
LAST_LOOK = 0.1
PART_BYTES = 256 * 1024  # of bodies that are rendered at once: the event loop and the memory are not held for long
PATIENCE = 10.0  # s: the longest wait for the acknowledgement of the last bytes of a stream


Pieces = Callable[[Batch], list[bytes]]


class SourceFailed(Refusal):
    """Nothing more can be read because of `error`, which was logged. As a Refusal it is the answer to a request whose
    answer has not begun."""

    def __init__(self, error: Exception) -> None:
        refusal = refusal_of(error) if isinstance(error, QtoolsError) else Refusal(500, "INTERNAL_ERROR")
        super().__init__(refusal.status, refusal.word, refusal.detail, refusal.headers)


def log_failure(whose: str, error: Exception) -> None:
    """Log once that nothing more can be read for `whose`: an error of the broker or the network in one line, anything
    else as a defect."""
    if isinstance(error, QtoolsError):
        log.error("reading for %s failed: %s", whose, error)
    else:
        log.error("internal error while reading for %s: %s: %s", whose, type(error).__name__, error)
        log.debug("internal error", exc_info=error)


class DeliverySource(Protocol):
    """Where batches come from."""

    async def read(self) -> RenderedBatch | None:
        """The next batch; None at the end. SourceFailed when reading has failed."""

    def memory(self) -> int: ...
    def end(self) -> None: ...
    def discard(self) -> None: ...
    async def close(self) -> None: ...


class ClientStream(Protocol):
    """Where they go. taken: how many of the `written` bytes the client's kernel has acknowledged."""

    @property
    def written(self) -> int: ...
    @property
    def taken(self) -> int: ...
    @property
    def gone(self) -> bool: ...
    async def send(self, data: bytes, batch: Batch) -> None:
        """Write `data`, which is `batch` in the stream's form; returns when the transport has all of it.

        Raises ClientGone when it has not; `written` may have grown then by a part of `data`.
        """


class TrackedStream:
    """The common part of all streams to clients. tracked: None if the application runs without a server, as in tests:
    then all bytes count as taken."""

    def __init__(self, send: Send, tracked: TrackedTransport | None) -> None:
        self.gone = False
        self._sender = Sender(send, tracked)
        self._tracked = tracked
        self._bytes = 0

    async def _send(self, message: dict[str, Any]) -> None:
        """Send `message`, which does not end the answer; ClientGone when the transport has not taken it."""
        try:
            await self._sender.send(message)
        except ClientGone:
            self.gone = True
            raise

    @property
    def written(self) -> int:
        return self._bytes if self._tracked is None else self._tracked.written

    @property
    def taken(self) -> int:
        return self._bytes if self._tracked is None else self._tracked.taken


@dataclass(slots=True)
class DeliveryCounts:
    """What all streams of a gateway did, in messages."""

    sent: int = 0
    sent_bytes: int = 0
    finished: int = 0
    filtered: int = 0  # finished unsent, because `where` is not true for them
    undecided: int = 0  # of those, for how many `where` has no result


class _Sent:
    """A batch that was sent: `end` is where its last byte stands in the stream, counted from the connection's first."""

    __slots__ = ("_ends", "batch", "end", "size")

    def __init__(self, batch: Batch, size: int, end: int) -> None:
        self.batch = batch
        self.size = size
        self.end = end
        self._ends: list[int] | None = None  # of each message; what frames them is counted before them, to be sure

    def finish_upto(self, taken: int, pieces: Pieces) -> int:
        """Finish the messages of which every byte is among the first `taken`; how many these are."""
        if taken <= self.end - self.size:
            return 0
        if self._ends is None:
            lengths = [len(piece) for piece in pieces(self.batch)]
            self._ends = [self.end - self.size + end for end in accumulate(lengths)]
        count = bisect_right(self._ends, taken)
        if count:
            first, self.batch = self.batch.split(count)
            first.finish()
            self.size -= self._ends[count - 1] - (self.end - self.size)
            del self._ends[:count]
        return count


class StreamDelivery:
    """One stream's work.

    arrived: ids of messages that the client has already; they are finished unsent.
    suffix: what follows the message's id in the id of an event (form sse).
    """

    def __init__(
        self,
        source: DeliverySource,
        stream: ClientStream,
        form: str,
        counts: DeliveryCounts,
        *,
        where: Where | None = None,
        count: int | None = None,
        session: AckSession | None = None,
        arrived: set[bytes] | None = None,
        suffix: bytes = b"",
    ) -> None:
        self.sent = 0
        self._source = source
        self._stream = stream
        self._form = form
        self._counts = counts
        self._where = where
        self._left = count
        self._session = session
        self._arrived = arrived
        self._suffix = suffix
        self._pieces: Pieces = FORMATS[form].pieces
        if suffix:
            shows_json = form.startswith(DECODED)
            self._pieces = lambda batch: event_pieces(with_json(batch) if shows_json else batch, suffix)
        self._pending: deque[_Sent] = deque()  # not known to be taken
        self._sending = 0  # bytes of what is being sent
        self._later = 0  # bytes of what was read with it, and is sent after it
        self._interrupted: Batch | None = None  # its sending did not end: the client may have a part of it
        self._loop = asyncio.get_running_loop()
        self._look: asyncio.TimerHandle | None = None
        self._pause = FIRST_LOOK
        self._settled = asyncio.Event()
        self._has_warned = False

    async def run(self) -> None:
        """Until the source ends, the client is gone, or as many as asked for were sent. SourceFailed when reading has
        failed."""
        try:
            while not self._stream.gone and self._left != 0:
                rendered = await self._source.read()
                if rendered is None:
                    break
                await self._deliver_in_parts(rendered)
            await self._wait_settled()
        finally:
            if self._look is not None:
                self._look.cancel()
            self._settle(singly=True)

    def unsettled(self) -> list[bytes]:
        """The ids of what was sent, whole or in part, and not known to be taken, in order."""
        ids = [ident for sent in self._pending for ident in sent.batch.messages.ids]
        return ids if self._interrupted is None else [*ids, *self._interrupted.messages.ids]

    def expected(self) -> set[bytes]:
        """The ids of what the client has already, and what has not come again."""
        return self._arrived or set()

    def memory(self) -> int:
        """Bytes of what was read and is not known to be taken; without shared batches, which the fanout counts."""
        return self._sending + self._later + sum(sent.size for sent in self._pending)

    # ── out ──

    async def _deliver_in_parts(self, rendered: RenderedBatch) -> None:
        """Deliver a batch of any size; of a large one only a part at a time has a second copy in the client's form.
        A shared batch is rendered as a whole, once for all its clients."""
        batch = rendered.batch
        ends = [] if rendered.shared else request_ends(batch.bodies, len(batch), PART_BYTES)
        if len(ends) <= 1:
            await self._deliver(rendered)
            return
        self._later = rendered.size
        start = 0
        try:
            for end in ends:
                part = RenderedBatch(batch.pick(range(start, end)))
                self._later -= part.size
                await self._deliver(part)
                start = end
                if self._stream.gone:
                    return  # the rest goes back when the source is closed
                if self._left == 0 and end < len(batch):
                    batch.pick(range(end, len(batch))).requeue()
                    return
        finally:
            self._later = 0

    async def _deliver(self, rendered: RenderedBatch) -> None:
        batch = self._chosen(rendered)
        if not len(batch):
            return
        if self._left is not None:
            self._left -= len(batch)
        whole = len(batch) == len(rendered)
        if self._session is not None:
            sendable = self._session.add(batch, self._loop.time())
            whole = whole and sendable is batch
            batch = sendable
        if self._suffix:
            data = b"".join(self._pieces(batch))
        else:
            data = rendered.render(self._form) if whole else render(batch, self._form)
        self._sending = 0 if rendered.shared else rendered.size + len(data)
        self._interrupted = batch
        try:
            await self._stream.send(data, batch)
        except ClientGone:
            return  # the batch goes back when the source is closed
        finally:
            self._sending = 0
        self._interrupted = None
        self.sent += len(batch)
        self._counts.sent += len(batch)
        self._counts.sent_bytes += len(data)
        if self._session is None and not rendered.shared:
            self._pending.append(_Sent(batch, len(data), self._stream.written))
            self._settle()

    def _chosen(self, rendered: RenderedBatch) -> Batch:
        """The messages to send. Of the others, those that will not be sent later are finished."""
        batch = rendered.batch
        places: Sequence[int] = range(len(batch)) if self._where is None else rendered.passing(self._where)
        if self._arrived:
            places = self._without_arrived(batch, places)
        if len(places) == len(batch) and (self._left is None or self._left >= len(batch)):
            return batch
        upto = len(batch)
        if self._left is not None and len(places) > self._left:
            places = places[: self._left]
            upto = places[-1] + 1
        chosen = batch.pick(places)
        if not rendered.shared:
            seen, later = batch.split(upto)
            if len(later):
                later.requeue()
            skipped = seen.without(list(places))
            self._counts.filtered += len(skipped)
            if self._where is not None:
                self._note_undecided(batch, [place for place in rendered.undecided(self._where) if place < upto])
            skipped.finish()
        return chosen

    def _note_undecided(self, batch: Batch, places: Sequence[int]) -> None:
        """Count the messages at `places`, for which `where` has no result; the log names the first of a stream."""
        self._counts.undecided += len(places)
        if places and not self._has_warned and self._where is not None:
            self._has_warned = True
            ident, why = batch.messages.ids[places[0]].decode(), self._where.why_not(batch, places[0])
            log.warning(
                "where=%s has no answer for message %s (%s): it and others like it are finished unsent",
                self._where.text, ident, why,
            )  # fmt: skip

    def _without_arrived(self, batch: Batch, places: Sequence[int]) -> Sequence[int]:
        assert self._arrived is not None
        ids = batch.messages.ids
        new = [place for place in places if ids[place] not in self._arrived]
        self._arrived.difference_update(ids)
        return new

    # ── back ──

    def _settle(self, singly: bool = False) -> None:
        """Finish the messages that the client's kernel has acknowledged; check again soon if some are on their way.

        singly: also check each message of a batch that was taken in part; a slow client may take long for a batch.
        """
        if self._pending:
            taken = self._stream.taken
            done = 0
            while self._pending and self._pending[0].end <= taken:
                batch = self._pending.popleft().batch
                batch.finish()
                done += len(batch)
            if singly and self._pending:
                done += self._pending[0].finish_upto(taken, self._pieces)
            if done:
                self._counts.finished += done
                self._pause = FIRST_LOOK
        if not self._pending or self._stream.gone:
            self._settled.set()
        elif self._look is None:
            self._settled.clear()
            self._look = self._loop.call_later(self._pause, self._look_again)
            self._pause = min(LAST_LOOK, self._pause * 2)

    def _look_again(self) -> None:
        self._look = None
        self._settle(singly=self._pause >= LAST_LOOK)

    async def _wait_settled(self) -> None:
        """Until everything sent is taken, the client is gone, or PATIENCE has passed."""
        self._settle()
        if self._pending and not self._stream.gone:
            self._settled.clear()
            try:
                async with asyncio.timeout(PATIENCE):
                    await self._settled.wait()
            except TimeoutError:
                return
