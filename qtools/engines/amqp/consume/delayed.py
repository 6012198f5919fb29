"""Delivers messages again after a delay. In: messages that are in flight. Out: the same messages, later.

    up to HOLD     they stay in flight here, and then go back to their queue
    longer         a copy of each goes to a queue with a time to live (topology.delay_queue), from which it comes back;
                   the message itself is acknowledged when its copy is confirmed

So a long delay takes no room among what may be in flight, and outlives this process. If this process ends between the
confirm and the acknowledgement, a message comes twice.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from qtools.engines.amqp.connection import AmqpConnection
from qtools.engines.amqp.consume.in_flight import ChannelDeliveries
from qtools.engines.amqp.protocol.deliveries import Confirms, Record
from qtools.engines.amqp.protocol.publishes import Outgoing, encode_each
from qtools.engines.amqp.records import copy_properties
from qtools.engines.amqp.topology import ask_once, delay_queue
from qtools.errors import BrokerError, QtoolsError

logger = logging.getLogger("qtools.client")

HOLD = 1.0  # s; a message that waits in a queue takes two more writes to the broker's disk
AT_ONCE = 500  # copies that wait for their confirm together


class DelayedMessages:
    """The messages of a source that wait for their delay. until: loop time when the last of them is due."""

    def __init__(self) -> None:
        self.until = float("-inf")
        self._timers: set[asyncio.TimerHandle] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def add(
        self, connection: AmqpConnection, queue: str, origin: ChannelDeliveries, tags: Sequence[int], delay_ms: int
    ) -> None:
        """Deliver messages of `queue` again after `delay_ms`."""
        self.until = max(self.until, asyncio.get_running_loop().time() + delay_ms / 1000)
        if delay_ms <= HOLD * 1000:
            self._hold(origin, tags, delay_ms)
            return
        task = asyncio.create_task(self._copy(connection, queue, origin, tags, delay_ms))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _hold(self, origin: ChannelDeliveries, tags: Sequence[int], delay_ms: int) -> None:
        timer: asyncio.TimerHandle

        def give_back() -> None:
            self._timers.discard(timer)
            origin.give_back(tags)

        timer = asyncio.get_running_loop().call_later(delay_ms / 1000, give_back)
        self._timers.add(timer)

    async def _copy(
        self, connection: AmqpConnection, queue: str, origin: ChannelDeliveries, tags: Sequence[int], delay_ms: int
    ) -> None:
        name, arguments = delay_queue(queue, delay_ms, connection.version)
        left = tags
        try:
            # Each declaration begins the time anew after which the queue expires.
            await ask_once(connection, "queue.declare", queue=name, durable=True, arguments=arguments)
            while left:
                some = left[:AT_ONCE]
                messages = origin.messages_at(some)
                await _publish_copies(connection, name, messages)
                self.until = max(self.until, asyncio.get_running_loop().time() + delay_ms / 1000)
                left = left[AT_ONCE:]
                if origin.is_lost:  # they come twice
                    return
                origin.acknowledge(some)
        except QtoolsError as error:
            logger.warning(
                "the queue %s does not take what is to come again later: %s; it comes again now", name, error
            )
            origin.give_back(left)

    def are_back(self, settling: float) -> bool:
        """Whether all of them came back `settling` s ago, if they were on time."""
        return asyncio.get_running_loop().time() > self.until + settling

    async def close(self) -> None:
        """What waits here is given back when the connection is closed."""
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _publish_copies(connection: AmqpConnection, queue: str, messages: list[tuple[Record, bytes]]) -> None:
    """Return when the queue has confirmed all of `messages`; BrokerError when it did not take one."""
    channel = await connection.open_channel()
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    missing = set(range(1, len(messages) + 1))

    def fail(error: QtoolsError) -> None:
        if not done.done():
            done.set_exception(error)

    def confirm(confirms: Confirms) -> None:
        for tag in confirms.tags:
            missing.difference_update(range(1, 1 - tag) if tag < 0 else (tag,))
        if not missing and not done.done():
            done.set_result(None)

    channel.on_confirms = confirm
    channel.on_nack = lambda _tag, _multiple: fail(BrokerError("NACK", "the queue does not take them"))
    channel.on_returned = lambda _content: fail(BrokerError("NO_ROUTE", "the queue is gone"))
    channel.on_closed = fail
    try:
        await channel.ask("confirm.select")
        routing_key = queue.encode()
        outgoing = [Outgoing(routing_key, copy_properties(record).encode(), body) for record, body in messages]
        channel.send_pieces(encode_each(channel.number, "", connection.session.frame_max, outgoing))
        await done
    finally:
        channel.on_closed = None
        channel.close()
