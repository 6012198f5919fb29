"""Publishes to RabbitMQ, confirmed and mandatory. In: groups of bodies. Out: what was refused.

    publish ─▶ exchanges that exist ─▶ segments, in the order of the calls ─▶ PublishChannel ─▶ confirms

A message is safe when its queues have confirmed it: a quorum queue when a majority of its nodes has it on disk. What no
queue got comes back, and is refused. A connection that is lost is opened again, and what was not confirmed is sent once
more: it may be in a queue twice then, with the same message id.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
from collections.abc import Sequence

from qtools.engines.amqp.connection import AmqpChannel, AmqpConnection
from qtools.engines.amqp.kept_connection import KeptConnection
from qtools.engines.amqp.publish.exchanges import Exchanges
from qtools.engines.amqp.publish.publish_channel import PublishChannel
from qtools.engines.amqp.publish.request import PublishCall
from qtools.engines.amqp.settings import AmqpSettings
from qtools.engines.contract import PublisherOptions
from qtools.errors import (
    AuthError,
    BrokerError,
    ConnectionLost,
    MessageRefused,
    NetworkError,
    PeerError,
    QtoolsError,
    StartError,
)  # fmt: skip
from qtools.flow.contract import GroupAttributes, Refused

logger = logging.getLogger("qtools.client")

CONFIRM_INTERVAL = 1.0  # s between two looks whether confirms stay away
CHECK_INTERVAL = 0.2  # s between two looks for publishes whose time is over, while nothing can be published


class AmqpPublisher:
    """Publishes to one cluster; see engines/contract.py."""

    def __init__(self, settings: AmqpSettings, options: PublisherOptions) -> None:
        self.published = self.published_bytes = self.resent = 0
        self._settings = settings
        self._options = options
        self._exchanges = Exchanges(settings, options)
        self._sender = PublishChannel(
            self, settings.queue, options.on_published, options.batch_count, options.batch_bytes
        )
        self._calls: set[PublishCall] = set()  # that run
        self._next_id = secrets.randbits(59)  # a message id has 64 bits; each publisher counts from another place
        self._order = asyncio.Lock()  # one publish is queued after the other, in the order of the calls
        self._is_up = asyncio.Event()
        self._stuck_since: float | None = None  # loop time since which nothing can be published
        self._timer: asyncio.TimerHandle | None = None
        self._confirm_timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._kept = KeptConnection(settings, self._on_up, self._on_down, lambda _error: None)

    # ── what the contract asks ──

    async def start(self) -> None:
        await self._kept.start()
        self._look_after_confirms()
        connection = self._kept.connection
        for topic in self._options.topics:
            if connection is not None and (error := await self._exchanges.find(connection, topic)) is not None:
                raise error if isinstance(error, StartError) else StartError(str(error))
        if self._options.new_topics is not None or connection is None:
            return
        for topic in self._options.later_topics:
            if await self._exchanges.find(connection, topic) is not None:
                logger.warning(
                    "a message that cannot be delivered would go to the exchange %s, which does not exist, so that the"
                    " run would end: %s", topic, self._exchanges.how_to_create(),
                )  # fmt: skip

    async def publish(
        self,
        groups: Sequence[tuple[str, Sequence[bytes]]],
        delay_ms: int | None = None,
        *,
        attributes: GroupAttributes | None = None,
    ) -> Refused:
        """Publish all of `groups`; see the contract. Messages are refused with MessageRefused (too large, or more than
        AMQP can hold), TopicMissing, or BrokerError (no queue got it, a queue did not take it, no permission)."""
        loop = asyncio.get_running_loop()
        columns = attributes() if attributes is not None else None
        call = PublishCall(groups, columns, self._next_id, loop.create_future(), loop.time())
        if not call.count:
            return {}
        self._next_id += call.count
        self._calls.add(call)
        if self._stuck_since is not None:
            self._watch()
        try:
            async with self._order:
                for group, (topic, bodies) in enumerate(groups):
                    error = None if self._exchanges.is_known(topic) else await self._find(topic, call)
                    if error is not None:
                        call.refuse(group, range(len(bodies)), error)
                    else:
                        self._sender.add(call, group)
                self._sender.pump()
            await call.done
        finally:
            self._calls.discard(call)
            call.fail(ConnectionLost(str(self._settings), "the publish was given up"))
        return call.refused

    async def close(self) -> None:
        self._kept.begin_close()
        for timer in (self._timer, self._confirm_timer):
            if timer is not None:
                timer.cancel()
        for task in self._tasks:
            task.cancel()
        await self._kept.close()

    @property
    def unanswered(self) -> int:
        """Publishes that wait for confirms."""
        return len(self._calls)

    @property
    def connected(self) -> int:
        return int(self._kept.connection is not None)

    @property
    def reconnects(self) -> int:
        return self._kept.reconnects

    # ── the connection ──

    async def _on_up(self, connection: AmqpConnection) -> None:
        channel = await self._open(connection)
        connection.on_writable = self._sender.pump
        connection.on_blocked = self._on_blocked
        self._exchanges.forget()  # another node may know others, and a cluster may have been set up anew
        self._is_up.set()
        self._stuck_since = None
        self._sender.is_blocked = False
        self._sender.use(channel)

    async def _open(self, connection: AmqpConnection) -> AmqpChannel:
        channel = await connection.open_channel()
        await channel.ask("confirm.select")
        channel.on_closed = self._on_closed
        return channel

    def _on_down(self, _connection: AmqpConnection) -> None:
        self._is_up.clear()
        self._begin_stuck()

    def _on_blocked(self, reason: str) -> None:
        """RabbitMQ stops reading from connections that publish while it lacks memory or disk space."""
        self._sender.is_blocked = bool(reason)
        if reason:
            logger.warning("%s takes no messages now: %s; waiting", self._settings, reason)
            self._begin_stuck()
        else:
            logger.warning("%s takes messages again", self._settings)
            self._stuck_since = None
            self._sender.pump()

    # ── what the broker refuses ──

    def _on_closed(self, error: QtoolsError) -> None:
        """The channel is closed; what is not confirmed is sent again, except what the broker has refused."""
        self._sender.lose()
        if isinstance(error, NetworkError) or self._kept.is_closing:
            return
        assert isinstance(error, BrokerError)
        task = asyncio.create_task(self._recover(error))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _recover(self, error: BrokerError) -> None:
        connection = self._kept.connection
        if connection is None:
            return
        if not self._sender.waiting:
            await self._open_again(connection)
            return
        named = re.search(r"exchange '([^']*)' in vhost", error.text)
        first = self._sender.waiting[0]
        topic = named[1] if named else first.call.groups[first.group][0]
        try:
            if self._sender.learn_largest(error):
                logger.info("%s accepts messages of at most %s bytes", connection.address, self._sender.largest)
            elif error.code == "NOT_FOUND":
                self._exchanges.forget(topic)
                if (missing := await self._exchanges.find(connection, topic)) is not None:
                    self._sender.refuse(topic, missing)
            elif isinstance(error, AuthError):
                self._sender.refuse(topic, error)
            else:
                self._sender.waiting.popleft()
                first.call.refuse(first.group, first.places, MessageRefused(str(error), is_too_large=False))
        except NetworkError as failed:
            connection.abort(failed)
        else:
            await self._open_again(connection)

    async def _find(self, topic: str, call: PublishCall) -> QtoolsError | None:
        """As Exchanges.find, when the broker is connected. Raises what ends the publish before that."""
        while True:
            connection = self._kept.connection
            if connection is not None and self._is_up.is_set():
                try:
                    return await self._exchanges.find(connection, topic)
                except NetworkError:
                    self._is_up.clear()
            waits: list[asyncio.Future[object]] = [asyncio.ensure_future(self._is_up.wait()), call.done]  # type: ignore[list-item]
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                waits[0].cancel()
            if call.done.done():
                call.done.result()

    # ── confirms that stay away ──

    def _look_after_confirms(self) -> None:
        self._confirm_timer = asyncio.get_running_loop().call_later(CONFIRM_INTERVAL, self._look_after_confirms)
        channel = self._sender.channel
        if channel is None or not self._sender.has_no_answer():
            return
        logger.warning("%s confirms nothing: %d messages are sent again", self._settings, self._sender.window.count)
        channel.close()
        self._sender.lose()
        task = asyncio.create_task(self._open_again(channel.connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _open_again(self, connection: AmqpConnection) -> None:
        try:
            self._sender.use(await self._open(connection))
        except (NetworkError, PeerError) as failed:
            connection.abort(failed)  # it is opened again after growing pauses

    # ── publishes whose time is over ──

    def _begin_stuck(self) -> None:
        if self._stuck_since is None:
            self._stuck_since = asyncio.get_running_loop().time()
        self._watch()

    def _watch(self) -> None:
        if self._timer is None and self._options.retry_timeout is not None and not self._kept.is_closing:
            self._timer = asyncio.get_running_loop().call_later(CHECK_INTERVAL, self._check)

    def _check(self) -> None:
        self._timer = None
        limit, since = self._options.retry_timeout, self._stuck_since
        if since is None or limit is None:
            return
        now = asyncio.get_running_loop().time()
        connection = self._kept.connection
        for call in list(self._calls):
            if now - max(since, call.submitted_at) < limit:
                continue
            if connection is not None and connection.blocked:
                call.fail(BrokerError("BLOCKED", f"it takes no messages for {limit:.4g} s: {connection.blocked}"))
            else:
                call.fail(NetworkError(str(self._settings), f"RabbitMQ could not be reached for {limit:.4g} s"))
        if self._calls:
            self._watch()

    def __repr__(self) -> str:
        return f"<AmqpPublisher {self._settings} connected={self.connected} calls={len(self._calls)}>"
