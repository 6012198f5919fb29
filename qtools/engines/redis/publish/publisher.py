"""Publishes to Redis: pipelined XADDs, each confirmed by its reply. In: groups of bodies. Out: what was refused.

    publish ─▶ chunks ─▶ AddQueue, bounded in bytes ─▶ one connection ─▶ a reply for each message

Publishes are queued in the order of their calls, and a server executes commands in their order. After a lost
connection, what was not answered is sent again: it may be in the stream twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Sequence

from qtools.attributes import Attributes
from qtools.backoff import next_delay
from qtools.engines.connections.keep_connected import ConnectionKeeper
from qtools.engines.contract import PublisherOptions
from qtools.engines.redis.connect import connect
from qtools.engines.redis.connection import PendingCommands, RedisConnection
from qtools.engines.redis.protocol import commands
from qtools.engines.redis.protocol.replies import ErrorReply, Reply
from qtools.engines.redis.publish.add_queue import AddChunk, AddQueue
from qtools.engines.redis.server_errors import ELSEWHERE, RedisRefused, error_of
from qtools.engines.redis.server_info import ServerSettings, log_durability, read_settings
from qtools.engines.redis.settings import RedisSettings
from qtools.errors import MessageRefused, NetworkError, PeerError, QtoolsError, StartError, TopicMissing
from qtools.flow.contract import GroupAttributes, Refused
from qtools.flow.gather import request_ends

log = logging.getLogger("qtools.redis")

_NO_ATTRIBUTES = Attributes()
_WRONG_TYPE = ErrorReply("WRONGTYPE the key is no stream")


class RedisPublisher:
    """Publishes to one server; see engines/contract.py."""

    def __init__(self, settings: RedisSettings, options: PublisherOptions) -> None:
        self.published = self.published_bytes = self.resent = 0
        self._settings = settings
        self._options = options
        self._server = ServerSettings()
        self._queue = AddQueue()
        self._requests: dict[int, PendingCommands] = {}  # by the id of their chunk
        self._enqueue_lock = asyncio.Lock()
        self._changed = asyncio.Event()  # the queue has become shorter, or a connection is up or down
        self._trouble_since: float | None = None  # nothing is confirmed since then, by the event loop's time
        self._trouble: QtoolsError | None = None
        self._failures = 0  # in a row, of messages that were refused for now
        self._retry: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._has_logged_durability = False
        self._keeper: ConnectionKeeper[RedisConnection] = ConnectionKeeper(
            str(settings), lambda: connect(settings), self._up, self._down, self._failed
        )
        options_of_add: list[commands.Word] = [] if options.new_topics is not None else ["NOMKSTREAM"]
        if settings.max_length:
            options_of_add += ["MAXLEN", "~", settings.max_length]
        self._add_options = tuple(options_of_add)

    # ── what the contract asks ──

    async def start(self) -> None:
        """Connect; StartError when no server accepts writes, TopicMissing."""
        self._task = asyncio.ensure_future(self._keeper.run())
        while self._keeper.connection is None and self._keeper.first_error is None:
            self._changed.clear()
            await self._wait_for_change(None)
        self._raise_if_ended()
        if self._keeper.connection is None:
            raise StartError(str(self._keeper.first_error)) from self._keeper.first_error
        self._keeper.is_started = True
        await self._look_at_topics(self._keeper.connection)

    async def publish(
        self,
        groups: Sequence[tuple[str, Sequence[bytes]]],
        delay_ms: int | None = None,
        *,
        attributes: GroupAttributes | None = None,
    ) -> Refused:
        """Publish all of `groups`; see the contract. Messages are refused with MessageRefused (too large) or
        BrokerError (the topic does not exist, is no stream, or this user may not use it)."""
        refused: Refused = {}
        chunks: list[AddChunk] = []
        begun, begun_at = time.perf_counter(), asyncio.get_running_loop().time()
        columns = attributes() if attributes is not None else [Attributes()] * len(groups)
        try:
            async with self._enqueue_lock:  # one publish after the other, in the order of their calls
                for number, (topic, bodies) in enumerate(groups):
                    for chunk in self._chunks_of(number, topic, bodies, columns[number], refused):
                        while self._queue.is_full:
                            self._changed.clear()
                            await self._wait_for_change(begun_at)
                        chunks.append(chunk)
                        self._queue.put(chunk)
                        self._pump()
            for chunk in chunks:
                while not chunk.done.done():
                    if self._trouble_since is None and self._options.retry_timeout is None:
                        await asyncio.wait([chunk.done])
                    else:
                        self._changed.clear()
                        await self._wait_for_change(begun_at)
        finally:
            self._queue.drop([chunk for chunk in chunks if not chunk.done.done()])
            self._changed.set()
        count = sum(len(bodies) for _, bodies in groups) - len(refused)
        self.published += count
        self.published_bytes += sum(sum(map(len, bodies)) for _, bodies in groups)
        if self._options.on_published is not None and count:
            self._options.on_published(time.perf_counter() - begun, count)
        return refused

    async def close(self) -> None:
        """Close the connection; publishes that still run are not completed."""
        self._keeper.is_closing = True
        if self._retry is not None:
            self._retry.cancel()
        if self._keeper.connection is not None:
            await self._keeper.connection.close()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError, QtoolsError):
                await self._task

    @property
    def unanswered(self) -> int:
        """Requests that wait for replies."""
        return len(self._queue.sent)

    @property
    def connected(self) -> int:
        return int(self._keeper.connection is not None)

    @property
    def reconnects(self) -> int:
        return self._keeper.reconnects

    # ── chunks ──

    def _chunks_of(
        self, number: int, topic: str, bodies: Sequence[bytes], attributes: Attributes, refused: Refused
    ) -> list[AddChunk]:
        """The messages of a group in pieces of the size of a request; those that are too large are refused."""
        places: Sequence[int] = range(len(bodies))
        most = self._server.largest
        if bodies and max(map(len, bodies)) > most:
            places = [place for place, body in enumerate(bodies) if len(body) <= most]
            for place, body in enumerate(bodies):
                if len(body) > most:
                    refused[number, place] = MessageRefused(
                        f"it has {len(body):,} bytes, and {self._where} accepts {most:,} (proto-max-bulk-len)"
                    )
        if not places:
            return []

        def encode(some: Sequence[int]) -> bytes:
            picked = bodies[some.start : some.stop] if isinstance(some, range) else [bodies[place] for place in some]
            own = attributes if attributes == _NO_ATTRIBUTES else attributes.pick(some)
            return commands.add_entries(topic, picked, own, self._add_options)

        def settle(_: int, place: int, reply: Reply) -> None:
            refused[number, place] = self._error_of(topic, bodies[place], reply)

        sizes = bodies if isinstance(places, range) else [bodies[place] for place in places]
        made, start = [], 0
        for end in request_ends(sizes, self._options.batch_count, self._options.batch_bytes):
            made.append(AddChunk(topic, number, places[start:end], encode, settle))
            start = end
        return made

    def _error_of(self, topic: str, body: bytes, reply: Reply) -> QtoolsError:
        """The error of a message to `topic` that was answered with `reply`."""
        if reply is None:
            return self._no_such_topic(topic)
        if isinstance(reply, ErrorReply):
            if reply.text.startswith("Protocol error: invalid bulk length"):
                return MessageRefused(f"it has {len(body):,} bytes, and {self._where} accepts fewer ({reply})")
            return error_of(reply, self._where, topic)
        return error_of(ErrorReply("ERR a reply that is no id"), self._where, topic)

    # ── topics ──

    def _no_such_topic(self, topic: str) -> RedisRefused:
        flag = self._options.new_topics_flag
        how = f"create it, or use {flag} default" if flag else "create it"
        return RedisRefused(ErrorReply("NOSTREAM"), f"there is no such stream: {how}", self._where, topic)

    async def _look_at_topics(self, connection: RedisConnection) -> None:
        for topic in self._options.topics:
            kind = await connection.ask("TYPE", topic)
            if kind == b"none" and self._options.new_topics is None:
                raise TopicMissing(str(self._no_such_topic(topic)))
            if isinstance(kind, bytes) and kind not in (b"none", b"stream"):
                raise StartError(str(error_of(_WRONG_TYPE, self._where, topic)))
            if kind == b"none":
                (made, _) = await connection.request(commands.create_stream(topic), 2).done
                if isinstance(made, ErrorReply) and made.code != "BUSYGROUP":
                    raise StartError(str(error_of(made, self._where, topic)))
        if self._options.new_topics is not None:
            return
        for topic in self._options.later_topics:
            if await connection.ask("TYPE", topic) == b"none":
                log.warning(
                    "a message that cannot be delivered would go to the topic %s, which does not exist, so that the run"
                    " would end: %s", topic, self._no_such_topic(topic).reason.partition(": ")[2],
                )  # fmt: skip

    @property
    def _where(self) -> str:
        connection = self._keeper.connection
        return connection.address if connection is not None else str(self._settings)

    # ── sending ──

    def _pump(self) -> None:
        """Send what may be sent now."""
        connection = self._keeper.connection
        if connection is None:
            return
        while connection.is_writable and (chunk := self._queue.next_chunk()) is not None:
            request = connection.request(chunk.data, len(chunk.places))
            self._requests[id(chunk)] = request
            request.done.add_done_callback(self._answered)

    def _answered(self, done: asyncio.Future[list[Reply]]) -> None:
        if done.cancelled() or done.exception() is not None:
            return  # _down looks at what came before
        chunk = self._queue.answered(done.result())
        self._requests.pop(id(chunk), None)
        held = self._queue.held
        if held is None:
            self._trouble_since, self._failures = None, 0
        elif not self._queue.sent:
            self._hold(held)
        self._changed.set()
        self._pump()

    def _hold(self, error: ErrorReply) -> None:
        """Nothing is accepted for now: try again later."""
        self._failures += 1
        where = self._where
        if self._trouble_since is None:
            log.warning("%s; trying again", error_of(error, where))
        self._note_trouble(error_of(error, where))
        connection = self._keeper.connection
        if error.code in ELSEWHERE and connection is not None:
            connection.abort(error_of(error, where))  # the address may lead elsewhere
            return
        self._retry = asyncio.get_running_loop().call_later(min(5.0, next_delay(self._failures)), self._send_again)

    def _send_again(self) -> None:
        self._retry = None
        self._queue.release()
        self._pump()

    # ── the connection ──

    async def _up(self, connection: RedisConnection) -> None:
        self._server = await read_settings(connection)
        if not self._has_logged_durability:
            self._has_logged_durability = True
            log_durability(self._server, connection.address)
        connection.on_writable = self._pump
        asyncio.get_running_loop().call_soon(self._pump)  # the keeper has the connection then
        asyncio.get_running_loop().call_soon(self._changed.set)

    def _down(self, connection: RedisConnection) -> None:
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        first = self._requests.get(id(self._queue.sent[0])) if self._queue.sent else None
        self.resent += self._queue.lost(first.replies if first is not None else ())
        self._requests.clear()
        lost = connection.lost.result() if connection.lost.done() else None
        self._note_trouble(lost or NetworkError(connection.address, "the connection is closed"))
        self._changed.set()

    def _failed(self, error: QtoolsError) -> None:
        self._note_trouble(error)
        self._changed.set()

    def _note_trouble(self, error: QtoolsError) -> None:
        self._trouble = error
        if self._trouble_since is None:
            self._trouble_since = asyncio.get_running_loop().time()

    async def _wait_for_change(self, begun: float | None) -> None:
        """Wait until something has changed. begun: when the publish began that waits, by the event loop's time; it
        raises NetworkError or BrokerError when nothing was confirmed for as long as it may wait."""
        limit, loop = self._options.retry_timeout, asyncio.get_running_loop()
        end = None if begun is None or limit is None else max(begun, self._trouble_since or begun) + limit
        try:
            async with asyncio.timeout_at(end):
                await self._changed.wait()
        except TimeoutError:
            since = self._trouble_since
            if since is None or begun is None or limit is None or loop.time() < max(begun, since) + limit:
                return
            if isinstance(self._trouble, NetworkError | PeerError):
                raise self._trouble.with_traceback(None) from None
            raise NetworkError(str(self._settings), str(self._trouble)) from None
        self._raise_if_ended()

    def _raise_if_ended(self) -> None:
        """Raise the defect that ended the keeper."""
        if self._task is not None and self._task.done() and not self._task.cancelled():
            self._task.result()
