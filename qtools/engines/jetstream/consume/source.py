"""Reads channels of JetStream, which are durable consumers; see engines/contract.py. In: subscriptions. Out: batches.

    room for messages ─▶ PullConsumer.ask ─▶ messages ─▶ read(): one batch ─▶ finish() ─▶ acknowledgements

One connection for all channels. What is in flight survives a lost connection: it is acknowledged over the next one.
What may be in flight is shared among the consumers; an idle one keeps a small part of it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence

from qtools.engines.connections.flow_control import share
from qtools.engines.connections.in_flight import merge_deliveries
from qtools.engines.contract import SourceOptions
from qtools.engines.jetstream.api import JetStreamApi
from qtools.engines.jetstream.client import NatsClient
from qtools.engines.jetstream.connection import NatsConnection
from qtools.engines.jetstream.consume.pull_consumer import PullConsumer
from qtools.engines.jetstream.consume.subscriptions import Found, find, make
from qtools.engines.jetstream.settings import JetStreamSettings
from qtools.engines.run_end import PolledRunEnd
from qtools.errors import BrokerError, NetworkError, QtoolsError, SourceDeleted, StartError
from qtools.message import Batch
from qtools.names import Subscription, is_ephemeral

log = logging.getLogger("qtools.nats")

UNREAD_BYTES = 32 * 1024 * 1024  # of bodies that were not read; no more is asked for beyond that
ACTIVE = 1.0  # s since its last message for which a consumer counts as active
LINGER = 3.0  # s that the server may take to read the last acknowledgements
TICK = 0.1  # s: the shortest time between two looks at what has to be touched


class JetStreamSource(PolledRunEnd):
    """Reads `subscriptions` over one connection."""

    def __init__(
        self, subscriptions: Sequence[Subscription], settings: JetStreamSettings, options: SourceOptions
    ) -> None:
        super().__init__(options.ends, str(settings))
        self.subscriptions = list(subscriptions)
        self.on_received: Callable[[int], None] | None = None
        self.received = self.redelivered = self.unread_bytes = 0
        self.acknowledgements_failed = None  # the server does not answer acknowledgements
        self.lag = 0.0
        self._settings = settings
        self._options = options
        self._limit = options.limit
        self._client = NatsClient(settings)
        self._client.on_up, self._client.on_down = self._is_up, self._is_down
        self._api = JetStreamApi(self._client)
        self._found: list[Found] = []
        self._consumers: list[PullConsumer] = []
        self._targets: dict[PullConsumer, int] = {}  # the newest message of each topic, at the start
        self._unread: deque[Batch] = deque()
        self._changed = asyncio.Event()
        self._error: QtoolsError | None = None
        self._is_ended = self._is_resting = False
        self._average = 1.0  # bytes of a message, of late
        self._turn = 0
        self._ask_due = False
        self._timer: asyncio.TimerHandle | None = None
        self._checks: set[asyncio.Task[None]] = set()

    # ── what the contract asks ──

    async def prepare(self) -> None:
        await self._client.start()
        self._found = [await self._look_up(each) for each in self.subscriptions]

    async def _look_up(self, subscription: Subscription) -> Found:
        try:
            return await find(self._api, subscription, self._options, str(self._settings))
        except (NetworkError, BrokerError) as error:
            raise StartError(f"{self._settings}: {error}") from error

    async def start(self) -> None:
        if not self._found:
            await self.prepare()
        for found in self._found:
            await self._subscribe(found)
        if self._options.ends.until_now:
            for consumer in self._consumers:
                self._targets[consumer] = await self._api.last_sequence(consumer.stream, consumer.topic)
        self._tick()
        self._ask()

    async def add(self, subscription: Subscription) -> None:
        await self._client.start()
        await self._subscribe(await self._look_up(subscription))
        self.subscriptions.append(subscription)
        self._ask()

    async def _subscribe(self, found: Found) -> None:
        try:
            state = found.state or await make(self._api, found, self._options, self._settings)
        except (NetworkError, BrokerError) as error:
            raise StartError(f"{found.subscription}: {error}") from error
        consumer = PullConsumer(
            self._client, found.subscription, found.stream, state.name,
            self._api.next_subject(found.stream, state.name), state.ack_wait, self._arrived, self._ask_soon, self._gone,
        )  # fmt: skip
        consumer.pending = state.left
        consumer.begin()
        self._consumers.append(consumer)

    async def read(self) -> Batch | None:
        while True:
            if self._error is not None:
                raise self._error
            if self._unread:
                batch = Batch.joined(list(self._unread))
                if len(self._unread) > 1:
                    merge_deliveries(batch)
                self._unread.clear()
                self.unread_bytes = 0
                self._ask_soon()
                return batch
            if self._is_ended or (self._limit is not None and self.received >= self._limit):
                return None
            self._changed.clear()
            await self._changed.wait()

    def end(self) -> None:
        self._is_ended = True
        for consumer in self._consumers:
            consumer.cancel()
        self._changed.set()

    def discard(self) -> None:
        self._give_unread_back()
        self.end()

    def rest(self) -> None:
        self._is_resting = True
        self._give_unread_back()
        for consumer in self._consumers:
            consumer.cancel()

    def resume(self, limit: int | None) -> None:
        self._limit = None if limit is None else self.received + limit
        self._is_resting = False
        for consumer in self._consumers:
            consumer.begin()
        self._ask()

    @property
    def may_resume(self) -> bool:
        return self._client.connection is not None and not self._is_ended

    async def close(self) -> None:
        """Give back what is not finished, and close the connection once the server has read all acknowledgements."""
        self._is_ended = True
        self._changed.set()
        if self._timer is not None:
            self._timer.cancel()
        for task in self._checks:
            task.cancel()
        await asyncio.gather(*self._checks, return_exceptions=True)
        connection = self._client.connection
        for consumer in self._consumers:
            consumer.cancel()
            await consumer.wait_cancelled()
        if connection is not None:
            try:
                async with asyncio.timeout(LINGER):
                    await connection.flush()  # what the server had delivered before has arrived, and is given back too
                    for consumer in self._consumers:
                        consumer.give_all_back()
                    await self._delete_temporary()
            except (TimeoutError, NetworkError, BrokerError) as error:
                log.info("%s: the end of the run was not acknowledged: %s", self._settings, error)
                connection.abort()
        await self._client.close()

    async def _delete_temporary(self) -> None:
        for consumer in self._consumers:
            if is_ephemeral(consumer.subscription.channel):
                await self._api.delete_consumer(consumer.stream, consumer.name)

    def _give_unread_back(self) -> None:
        for batch in self._unread:
            batch.requeue()
            self.received -= len(batch)
        self._unread.clear()
        self.unread_bytes = 0

    # ── when the run ends by itself ──

    async def is_finished(self, *, at_start: bool) -> bool:
        try:
            for consumer in self._consumers:
                state = await self._api.consumer(consumer.stream, consumer.name)
                if state is None:
                    raise SourceDeleted("channel", str(consumer.subscription), consumer.address)
                if state.left and not (at_start and state.ack_floor >= self._targets.get(consumer, 0)):
                    return False
        except BrokerError as error:  # as of a cluster that elects a leader
            raise NetworkError(str(self._settings), str(error)) from error
        return True

    # ── what is counted ──

    @property
    def in_flight(self) -> int:
        return sum(consumer.in_flight for consumer in self._consumers)

    @property
    def connected(self) -> int:
        return int(self._client.connection is not None and bool(self._consumers))

    @property
    def reconnects(self) -> int:
        return self._client.reconnects

    @property
    def lag_messages(self) -> int:
        """By what the server told with the last message of each consumer."""
        return sum(consumer.pending + consumer.in_flight for consumer in self._consumers)

    @property
    def acknowledgement_timeout(self) -> float | None:
        return min((consumer.ack_wait for consumer in self._consumers), default=None)

    # ── what is asked for ──

    def _ask_soon(self) -> None:
        if not self._ask_due and not self._is_ended:
            self._ask_due = True
            asyncio.get_running_loop().call_soon(self._ask)

    def _ask(self) -> None:
        """Ask for as many messages as there is room for: seldom for few, unless there are no others on their way."""
        self._ask_due = False
        consumers = self._consumers
        if self._is_ended or self._is_resting or self._client.connection is None or not consumers:
            return
        count = len(consumers)
        window, asked = self._options.max_in_flight, sum(consumer.asked for consumer in consumers)
        room = window - self.in_flight - asked
        is_short = count > window
        if self._limit is not None:
            left = self._limit - self.received - asked
            room = min(room, left)
            # Few messages are left: a consumer that has none must not keep them from the others for long.
            is_short = is_short or (count > 1 and self._limit - self.received < window)
        free = UNREAD_BYTES - self.unread_bytes - round(asked * self._average)
        room = min(room, max(1, round(free / self._average))) if free > 0 else 0
        if room <= 0:
            return
        if count == 1:
            consumer = consumers[0]
            if not consumer.asked or room >= window // 4:
                consumer.ask(room)
            return
        self._turn += 1
        now = asyncio.get_running_loop().time()
        active = [now - consumer.last_batch_at < ACTIVE for consumer in consumers]
        most = min(window, room + asked + self.in_flight)
        shares = share(most, active, [most] * count, self._turn)
        for place in range(count):
            consumer = consumers[(place + self._turn) % count]
            own = shares[(place + self._turn) % count] - consumer.in_flight - consumer.asked
            wish = min(room, own)
            if wish > 0 and (not consumer.asked or wish >= max(1, window // (4 * count))):
                consumer.ask(wish, is_short=is_short)
                room -= wish

    def _arrived(self, consumer: PullConsumer, batch: Batch, size: int, redelivered: int) -> None:
        count = len(batch)
        self.received += count
        self.redelivered += redelivered
        self.unread_bytes += size
        self._average = max(1.0, size / count)
        self.lag = max(0.0, time.time() - consumer.last_timestamp / 1e9)
        self._unread.append(batch)
        if self.on_received is not None:
            self.on_received(size)
        self._changed.set()

    # ── the connection ──

    def _is_up(self, connection: NatsConnection) -> None:
        for consumer in self._consumers:
            consumer.send_kept()
        self._ask_soon()
        for consumer in self._consumers:
            if is_ephemeral(consumer.subscription.channel):
                self._gone(consumer)  # a server that was restarted may have lost it

    def _is_down(self) -> None:
        for consumer in self._consumers:
            consumer.lost_connection()

    def _tick(self) -> None:
        """Touch what is in flight for long, and look for consumers whose server is silent."""
        now = asyncio.get_running_loop().time()
        for consumer in self._consumers:
            consumer.touch_due(now)
            if consumer.is_silent(now):
                consumer.lost_connection()
                self._gone(consumer)
        shortest = min((consumer.ack_wait for consumer in self._consumers), default=4.0)
        self._timer = asyncio.get_running_loop().call_later(max(TICK, min(shortest / 8, 1.0)), self._tick)
        self._ask_soon()

    def _gone(self, consumer: PullConsumer) -> None:
        """The consumer may not exist any more."""
        if self._is_ended:
            return
        task = asyncio.create_task(self._check(consumer))
        self._checks.add(task)
        task.add_done_callback(self._checks.discard)

    async def _check(self, consumer: PullConsumer) -> None:
        """Go on with a consumer that still exists; create a temporary one again; fail otherwise."""
        try:
            error = await self._deleted(consumer)
        except (NetworkError, BrokerError) as failed:
            log.info("%s: %s; asked again", consumer.subscription, failed)
            asyncio.get_running_loop().call_later(1.0, self._gone, consumer)
            return
        if error is not None and not self._is_ended:
            self._error = error
            self._changed.set()
        self._ask_soon()

    async def _deleted(self, consumer: PullConsumer) -> SourceDeleted | None:
        """The error of a consumer that does not exist any more, and cannot be replaced."""
        subscription = consumer.subscription
        if await self._api.consumer(consumer.stream, consumer.name) is not None:
            return None
        info = await self._api.stream_info(consumer.stream)
        if info is None:
            return SourceDeleted("topic", subscription.topic, consumer.address)
        if not is_ephemeral(subscription.channel):
            return SourceDeleted("channel", str(subscription), consumer.address)
        found = Found(subscription, consumer.stream, str(info["config"].get("retention", "limits")), None)
        begin_at = consumer.last_sequence + 1 if consumer.last_sequence else 0
        state = await make(self._api, found, self._options, self._settings, begin_at)
        consumer.move(state.name, self._api.next_subject(consumer.stream, state.name))
        return None
