"""The unfinished messages of clients with ack=client. In: batches, ids, the time. Out: acknowledgements.

    add ─▶ finish │ requeue │ touch          a message for which none of them comes in time is requeued

A session has a name that cannot be guessed, belongs to the caller that opened it, and ends with its stream; its
unfinished messages are requeued then.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from qtools.message import Batch, Origin
from qtools.pubsub_http.api.tokens import Caller
from qtools.web.request_body import Refusal

SWEEP_SECONDS = 0.25
ELSEWHERE_MS = 1000  # until a message comes again whose id a message of another broker has, which is unfinished

_NO_SESSION = (
    "there is no such session: it ends when its client hangs up or, where the stream ended in order (count, timeout,"
    " until_empty), when all its messages are acknowledged, or after msg_timeout"
)

Result = tuple[int, list[str]]  # how many messages were acknowledged, and the ids of those that are not in flight


class AckSession:
    """One stream's unfinished messages. `timeout`: s from delivery or touch until one goes back. Pure."""

    def __init__(self, name: str, caller: Caller, timeout: float) -> None:
        self.name = name
        self.caller = caller
        self.finished = 0
        self.requeued = 0
        self.timed_out = 0
        self.on_less: Callable[[], None] = lambda: None  # called when fewer are in flight
        self._timeout = timeout
        # By the message's id: its origin, its handle there, and when it goes back; the soonest is first.
        self._in_flight: dict[bytes, tuple[Origin, Any, float]] = {}

    def __len__(self) -> int:
        return len(self._in_flight)

    def add(self, batch: Batch, now: float) -> Batch:
        """Remember `batch`, which is about to be sent; return the messages of it that may be sent.

        An id is unique within one broker only: of two messages with the same id the second is requeued."""
        in_flight, until = self._in_flight, now + self._timeout
        clashing: list[int] = []
        ids, handles = batch.messages.ids, batch.ids
        for origin, start, stop in batch.parts:
            for place in range(start, stop):
                before = in_flight.pop(ids[place], None)
                if before is not None and before[0].address != origin.address and not before[0].is_lost:
                    in_flight[ids[place]] = before
                    clashing.append(place)
                else:  # a redelivery: the first one timed out, or its connection is lost
                    in_flight[ids[place]] = (origin, handles[place], until)
        if not clashing:
            return batch
        batch.pick(clashing).requeue(ELSEWHERE_MS)
        return batch.without(clashing)

    def finish(self, ids: Iterable[str]) -> Result:
        count, unknown = self._take(ids, lambda origin, some: origin.finish(some))
        self.finished += count
        return count, unknown

    def requeue(self, ids: Iterable[str], delay_ms: int) -> Result:
        count, unknown = self._take(ids, lambda origin, some: origin.requeue(some, delay_ms))
        self.requeued += count
        return count, unknown

    def touch(self, ids: Iterable[str], now: float) -> Result:
        """Extend the time of messages in this session. The source extends the broker's until they are acknowledged."""
        in_flight, until = self._in_flight, now + self._timeout
        unknown = []
        count = 0
        for text in ids:
            ident = text.encode("latin-1", "replace")
            found = in_flight.pop(ident, None)
            if found is None or found[0].is_lost:
                unknown.append(text)
            else:
                in_flight[ident] = (found[0], found[1], until)
                count += 1
        return count, unknown

    def expire(self, now: float) -> int:
        """Requeue the messages whose time is over; return their number."""
        expired: list[str] = []
        for ident, (_, _, until) in self._in_flight.items():
            if until > now:
                break
            expired.append(ident.decode("latin-1"))
        if not expired:
            return 0
        count, _ = self._take(expired, lambda origin, some: origin.requeue(some, 0))
        self.timed_out += count
        return count

    def release(self) -> None:
        """Requeue all messages: the stream has ended, and other streams may go on to use its connections."""
        ids = [ident.decode("latin-1") for ident in self._in_flight]
        if ids:
            self._take(ids, lambda origin, some: origin.requeue(some, 0))

    def _take(self, ids: Iterable[str], acknowledge: Callable[[Origin, Sequence[Any]], None]) -> Result:
        unknown: list[str] = []
        by_origin: dict[int, tuple[Origin, list[Any]]] = {}
        for text in ids:
            ident = text.encode("latin-1", "replace")
            found = self._in_flight.pop(ident, None)
            if found is None or found[0].is_lost:
                unknown.append(text)
            else:
                by_origin.setdefault(id(found[0]), (found[0], []))[1].append(found[1])
        count = 0
        for origin, some in by_origin.values():
            acknowledge(origin, some)
            count += len(some)
        self.on_less()
        return count, unknown


class AckSessions:
    """The sessions of one gateway process. prefix: of their names; tells other workers which worker has them."""

    def __init__(self, prefix: str) -> None:
        self.finished = 0
        self.requeued = 0
        self.timed_out = 0
        self._prefix = prefix
        self._open: dict[str, AckSession] = {}
        self._sweeping: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    def open(self, caller: Caller, timeout: float) -> AckSession:
        session = AckSession(f"{self._prefix}{secrets.token_urlsafe(24)}", caller, timeout)
        self._open[session.name] = session
        if self._sweeping is None:
            self._sweeping = self._loop.call_later(SWEEP_SECONDS, self._sweep)
        return session

    def close(self, session: AckSession) -> None:
        if self._open.pop(session.name, None) is not None:
            session.release()
            self.finished += session.finished
            self.requeued += session.requeued
            self.timed_out += session.timed_out

    def find(self, name: str, caller: Caller) -> AckSession:
        """The session of that name; Refusal 404 unless it is the caller's."""
        session = self._open.get(name)
        if session is None or session.caller is not caller:
            raise Refusal(404, "SESSION_NOT_FOUND", _NO_SESSION)
        return session

    def __len__(self) -> int:
        return len(self._open)

    def totals(self) -> tuple[int, int, int]:
        """How many messages were finished, requeued, and timed out."""
        opened = self._open.values()
        return (
            self.finished + sum(each.finished for each in opened),
            self.requeued + sum(each.requeued for each in opened),
            self.timed_out + sum(each.timed_out for each in opened),
        )

    def _sweep(self) -> None:
        now = self._loop.time()
        for session in self._open.values():
            session.expire(now)
        self._sweeping = self._loop.call_later(SWEEP_SECONDS, self._sweep) if self._open else None
