"""Publish requests in order over any open connection. In: requests. Out: the result of each request.

    submit ─▶ waiting, a heap by `order` ─▶ one sender task ─▶ connection.publish ─▶ OK: the request is done
                  ▲                                                 │
                  └── connection lost or refused: the request keeps its `order`, so it is sent first again

The request with the lowest order is always sent first. Nothing overtakes a request that has to be split again: the
sender task asks for the broker's limits, splits the request, and sends nothing else in the meantime. With one broker
the order of the requests is therefore the order in the topic, whatever is lost or refused on the way. A broker queues
nothing of a command that it refuses, and nothing that follows it on that connection, which the broker closes.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial

from qtools.engines.nsq.connection import Connection, PendingReplies
from qtools.engines.nsq.publish.batch_splitter import BatchSplitter, Group, PublishCommand
from qtools.engines.nsq.publish.load_balancing import LoadBalancer
from qtools.errors import BrokerError, ConnectionLost, MessageRefused, NetworkError, SizeError
from qtools.flow.contract import Refused

logger = logging.getLogger("qtools.client")

# Temporary refusals: the broker's disk is full, or the broker is about to stop. Every other refusal is final.
TRANSIENT = frozenset({"E_PUB_FAILED", "E_MPUB_FAILED", "E_DPUB_FAILED"})
TRANSIENT_PAUSE = 1.0  # s between a temporary refusal and the next attempt

OnPublished = Callable[[float, int], None]  # s from the write to its answer, messages in the write


@dataclass(slots=True)
class PublishCounters:
    """Totals over all queues of one publisher."""

    published: int = 0  # messages answered OK; with several queues once for each
    published_bytes: int = 0  # of the commands that were answered OK, before any compression
    resent: int = 0  # messages sent again because the answer was lost: they may be in the topic twice


class PublishRequest:
    """Commands that are sent in one write. `done` completes when the broker has accepted or refused all of them.

    groups: the messages as the caller passed them. commands: the commands that have no OK yet.
    refused: the messages that were refused, each with its error.
    confirmed: False if `done` completed because the queue was abandoned; the broker may not have the messages then.
    """

    __slots__ = ("commands", "confirmed", "delay_ms", "done", "groups", "is_split_final", "order", "refusal",
                 "refused", "sent", "sent_at", "submitted_at", "version")  # fmt: skip

    def __init__(
        self, order: int, groups: Sequence[Group], delay_ms: int, done: asyncio.Future[None], submitted_at: float
    ) -> None:
        self.order = order
        self.submitted_at = submitted_at  # loop time
        self.groups = groups
        self.delay_ms = delay_ms
        self.done = done
        self.commands: list[PublishCommand] = []
        self.refused: Refused = {}
        self.refusal: SizeError | None = None  # of commands[0], until the sender has split it again
        self.confirmed = True
        self.version = 0  # `BatchSplitter.version` at the time of the split
        self.is_split_final = False  # it was sent, or split by the brokers' own limits: `groups` is not split again
        self.sent = False
        self.sent_at = 0.0  # loop time

    def __lt__(self, other: PublishRequest) -> bool:
        return self.order < other.order


class PublishQueue:
    """Sends each request on one of `connections()`, the open connections; `balance` picks it.

    name: the broker or brokers, as log lines and errors name them.
    splitter: splits requests into commands. learn_limits: asks the brokers for their limits and updates `splitter`.
    on_published: called for each write that was answered OK.
    retry_timeout: s without a connection after which a waiting request fails with NetworkError, and s of nothing but
        temporary refusals after which it fails with that BrokerError, both since it was submitted; None for no limit.
    """

    def __init__(
        self,
        name: str,
        connections: Callable[[], list[Connection]],
        balance: LoadBalancer,
        splitter: BatchSplitter,
        learn_limits: Callable[[], Awaitable[None]],
        counters: PublishCounters,
        on_published: OnPublished | None,
        retry_timeout: float | None,
    ) -> None:
        self._name = name
        self._connections = connections
        self._balance = balance
        self._splitter = splitter
        self._learn_limits = learn_limits
        self._counters = counters
        self._on_published = on_published
        self._retry_timeout = retry_timeout
        self._waiting: list[PublishRequest] = []
        self._changed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._not_before = 0.0  # loop time of the next attempt after a temporary refusal
        self._refused_since: float | None = None  # loop time of the first temporary refusal since the last OK
        self._last_refusal = ""
        # Loop time and error of the last time that publishing was given up. A request that was submitted before that
        # time and is not accepted fails with this error, at once or when its last reply has come.
        self._given_up: tuple[float, BrokerError] | None = None
        self._cancelled = 0  # requests that were cancelled since `_forget_cancelled` removed some
        self._sender: asyncio.Task[None] | None = None
        self._defect: BaseException | None = None  # what ended the sender task
        self._abandoned = False

    def submit(self, order: int, groups: Sequence[Group], delay_ms: int) -> PublishRequest:
        """Add a request and return at once; the caller awaits its `done`.

        `done` raises NetworkError when no broker was reachable for `retry_timeout`, and BrokerError when brokers kept
        refusing for that long. Messages that are refused for good are in `refused` and raise nothing.
        """
        request = PublishRequest(order, groups, delay_ms, self._loop.create_future(), self._loop.time())
        if self._defect is not None:
            request.done.set_exception(self._defect)
            return request
        self._split(request)
        heapq.heappush(self._waiting, request)
        request.done.add_done_callback(self._forget_cancelled)
        self._changed.set()
        if self._sender is None:
            self._sender = asyncio.create_task(self._send_all())
            self._sender.add_done_callback(self._sender_ended)
        return request

    def notify(self) -> None:
        """Wake the sender: a connection was opened or lost, or is writable again."""
        self._changed.set()

    def abandon(self) -> None:
        """Give up the broker of this queue: complete every request as not confirmed, and end the sender task."""
        self._abandoned = True
        count = sum(len(command.bodies) for request in self._waiting for command in request.commands)
        if count:
            logger.warning("%s is gone and nsqlookupd no longer lists it: %d messages are not replicated to it",
                           self._name, count)  # fmt: skip
        for request in self._waiting:
            self._end_unconfirmed(request)
        self._waiting.clear()
        if self._sender is not None:
            self._sender.cancel()

    async def close(self) -> None:
        """End the sender task; requests that are not done stay so."""
        if self._sender is not None:
            self._sender.cancel()
            await asyncio.wait((self._sender,))

    # ── the sender ──

    async def _send_all(self) -> None:
        unreachable_since: float | None = None
        while True:
            while self._waiting and self._waiting[0].done.done():  # cancelled
                heapq.heappop(self._waiting)
            if not self._waiting:
                unreachable_since = None
                self._changed.clear()
                await self._changed.wait()
                continue
            request = self._waiting[0]
            if request.refusal is not None or (request.refused and not request.is_split_final):
                await self._split_by_broker_limits(request)
                continue
            if request.version != self._splitter.version:
                request.commands = self._splitter.split_again(request.commands, request.refused)
                request.version = self._splitter.version
            if not request.commands:
                request.done.set_result(None)
                continue
            open_connections = self._connections()
            writable = [connection for connection in open_connections if connection.is_writable]
            if writable:
                unreachable_since = None
                pause = self._not_before - self._loop.time()
                if pause > 0:
                    await asyncio.sleep(pause)
                else:
                    self._send(self._balance.pick(writable), request)
                    heapq.heappop(self._waiting)
                continue
            self._changed.clear()
            # A broker that is connected but not writable is not unreachable: missed heartbeats close its connection.
            if open_connections or self._retry_timeout is None:
                unreachable_since = None
                await self._changed.wait()
                continue
            unreachable_since = unreachable_since or self._loop.time()
            deadline = max(unreachable_since, request.submitted_at) + self._retry_timeout
            try:
                async with asyncio.timeout_at(deadline):
                    await self._changed.wait()
            except TimeoutError:
                error = NetworkError(self._name, f"no broker could be reached for {self._retry_timeout:.4g} s")
                self._fail_submitted_by(deadline - self._retry_timeout, error)

    def _send(self, connection: Connection, request: PublishRequest) -> None:
        parts = request.commands
        if request.sent:
            self._counters.resent += sum(len(part.bodies) for part in parts)
        request.sent = request.is_split_final = True
        request.sent_at = self._loop.time()
        encoded = parts[0].encode() if len(parts) == 1 else b"".join([part.encode() for part in parts])
        answers = connection.publish(encoded, len(parts))
        answers.done.add_done_callback(partial(self._answered, connection, request, answers, len(encoded)))

    def _answered(
        self,
        connection: Connection,
        request: PublishRequest,
        answers: PendingReplies,
        size: int,
        _: asyncio.Future[None],
    ) -> None:
        self._changed.set()  # the connection may have been lost
        error = answers.done.exception()
        parts = request.commands
        accepted = len(parts) if error is None else len(parts) - answers.left
        if accepted:
            self._refused_since, self._last_refusal, self._given_up = None, "", None
            count = sum(len(part.bodies) for part in parts[:accepted])
            self._counters.published += count
            self._counters.published_bytes += size * accepted // len(parts)  # exact if all were accepted
            seconds = self._loop.time() - request.sent_at
            self._balance.took(connection, seconds)
            if self._on_published is not None:
                self._on_published(seconds, count)
        if request.done.done():
            return
        if error is None:
            request.done.set_result(None)
            return
        request.commands = parts[accepted:]
        if isinstance(error, BrokerError):
            if isinstance(error, SizeError):
                request.refusal = error
            elif error.code not in TRANSIENT:
                self._refuse_topic(request, error)
            elif self._may_retry(request, error):
                self._not_before = self._loop.time() + TRANSIENT_PAUSE
            else:
                request.done.set_exception(error)
                assert self._retry_timeout is not None
                self._given_up = self._loop.time() - self._retry_timeout, error
                self._fail_submitted_by(*self._given_up)
                return
            request.sent = False  # the broker queued nothing of it: sending it again makes no duplicates
        elif not isinstance(error, ConnectionLost):
            request.done.set_exception(error)
            return
        if self._abandoned:
            self._end_unconfirmed(request)
        elif self._given_up is not None and request.submitted_at <= self._given_up[0]:
            request.done.set_exception(self._given_up[1])
        else:
            heapq.heappush(self._waiting, request)

    # ── refusals ──

    def _split(self, request: PublishRequest) -> None:
        """Split the groups of `request` into commands by the limits that are known now."""
        request.refused.clear()
        request.commands = self._splitter.split(request.groups, request.delay_ms, request.refused)
        request.version = self._splitter.version

    async def _split_by_broker_limits(self, request: PublishRequest) -> None:
        """Ask the brokers for their limits and split `request` again: a part of it exceeds the limits that were
        assumed, or a broker has refused its first command as too large.

        The request stays at the head of the queue in the meantime.
        """
        await self._learn_limits()
        error, request.refusal = request.refusal, None
        if error is None:
            self._split(request)
            request.is_split_final = True
            return
        command, *others = request.commands
        if len(command.bodies) > 1:
            request.commands = [*self._splitter.split_refused(command, request.refused), *others]
        else:
            reason = f"it has {len(command.bodies[0])} bytes, and {error.reason}"
            request.refused[command.group, command.places[0]] = MessageRefused(reason)
            request.commands = others

    def _refuse_topic(self, request: PublishRequest, error: BrokerError) -> None:
        """Remove the topic that the broker refused from `request`: all its messages are refused with `error`."""
        topic = request.commands[0].topic
        for command in request.commands:
            if command.topic == topic:
                request.refused.update(((command.group, place), error) for place in command.places)
        request.commands = [command for command in request.commands if command.topic != topic]

    def _may_retry(self, request: PublishRequest, error: BrokerError) -> bool:
        """Whether to try `request` again after a temporary refusal: unless brokers have accepted nothing for
        `retry_timeout` since it was submitted. Equal refusals are logged once until a broker accepts."""
        now = self._loop.time()
        if self._refused_since is None:
            self._refused_since = now
        refused_since = max(self._refused_since, request.submitted_at)
        if self._retry_timeout is not None and now - refused_since >= self._retry_timeout:
            return False
        if str(error) != self._last_refusal:
            self._last_refusal = str(error)
            logger.warning("%s; trying again", error)
        return True

    # ── ends ──

    def _end_unconfirmed(self, request: PublishRequest) -> None:
        request.confirmed = False
        if not request.done.done():
            request.done.set_result(None)

    def _forget_cancelled(self, done: asyncio.Future[None]) -> None:
        """Remove cancelled requests from the queue once they are half of it: they may have to wait for long until they
        are its head, and hold their messages. So each removal costs no more than a few comparisons."""
        if not done.cancelled():
            return
        self._cancelled += 1
        if 2 * self._cancelled >= len(self._waiting):
            self._cancelled = 0
            self._keep([request for request in self._waiting if not request.done.done()])

    def _keep(self, requests: list[PublishRequest]) -> None:
        """Let only `requests` wait."""
        heapq.heapify(requests)
        self._waiting = requests
        self._changed.set()

    def _fail_submitted_by(self, latest: float, error: BaseException) -> None:
        """Fail the waiting requests that were submitted at the loop time `latest` or before."""
        kept = []
        for request in self._waiting:
            if request.submitted_at > latest:
                kept.append(request)
            elif not request.done.done():
                request.done.set_exception(error)
        self._keep(kept)

    def _fail_all(self, error: BaseException) -> None:
        for request in self._waiting:
            if not request.done.done():
                request.done.set_exception(error)
        self._waiting.clear()

    def _sender_ended(self, sender: asyncio.Task[None]) -> None:
        """Fail every request, present and later, if the sender task raised: that is a defect of ours, and without this
        the callers would wait for ever."""
        if not sender.cancelled() and (error := sender.exception()) is not None:
            self._defect = error
            self._fail_all(error)

    def __repr__(self) -> str:
        return f"<PublishQueue {self._name} waiting={len(self._waiting)}>"
