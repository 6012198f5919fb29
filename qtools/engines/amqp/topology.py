"""Exchanges and queues: what they are called, and how they are looked for and declared. In: names. Out: methods.

    topic      TOPIC                     an exchange of that name
    channel    TOPIC/CHANNEL             a queue of that name, bound to the exchange
    temporary  TOPIC/CHANNEL.RANDOM      a queue that the broker deletes with its connection
    delayed    QUEUE.delay.MS            a queue whose messages go back to QUEUE after MS, and that expires by itself

What exists is taken as it is. A refusal closes the channel on which it happens, so each question has one of its own.
"""

from __future__ import annotations

import re
import secrets
from typing import Any, NamedTuple

from qtools.engines.amqp.connection import AmqpConnection
from qtools.engines.amqp.protocol.methods import Method
from qtools.engines.amqp.protocol.values import Table
from qtools.engines.amqp.settings import AmqpSettings
from qtools.errors import BrokerError, TopicMissing, UsageError
from qtools.names import Subscription, is_ephemeral

NOT_FOUND, PRECONDITION_FAILED, RESOURCE_LOCKED = "NOT_FOUND", "PRECONDITION_FAILED", "RESOURCE_LOCKED"
KEEPS = 600_000  # ms that a queue of delayed messages is kept behind the delay, after it was used last
ALL_KEYS = "#"  # binds a queue of a topic exchange for every key; other types that bind it so ignore keys, or refuse


class QueueName(NamedTuple):
    """A queue, and whether this program may create it."""

    name: str
    is_temporary: bool = False
    is_ours: bool = True


def queue_of(subscription: Subscription, settings: AmqpSettings) -> QueueName:
    """The queue of a subscription; of a temporary channel another one in each call."""
    if settings.queue:
        return QueueName(settings.queue, is_ours=False)
    if is_ephemeral(subscription.channel):
        return QueueName(f"{subscription.topic}/{subscription.channel}.{secrets.token_hex(4)}", is_temporary=True)
    return QueueName(f"{subscription.topic}/{subscription.channel}")


async def ask_once(connection: AmqpConnection, name: str, **arguments: Any) -> Method:
    """The answer to one method, on a channel of its own. BrokerError when it is refused."""
    channel = await connection.open_channel()
    try:
        return await channel.ask(name, **arguments)
    finally:
        channel.close()


async def exchange_exists(connection: AmqpConnection, exchange: str) -> bool:
    try:
        await ask_once(connection, "exchange.declare", exchange=exchange, passive=True)
    except BrokerError as error:
        if error.code == NOT_FOUND:
            return False
        raise
    return True


async def count_ready(connection: AmqpConnection, queue: str) -> int | None:
    """How many messages of a queue are not delivered to any consumer; None if there is no such queue."""
    try:
        answer = await ask_once(connection, "queue.declare", queue=queue, passive=True)
    except BrokerError as error:
        if error.code == NOT_FOUND:
            return None
        raise
    count: int = answer.arguments["message_count"]
    return count


async def delete_queue(connection: AmqpConnection, queue: str) -> None:
    """Delete a queue with its messages; nothing happens if there is none."""
    await ask_once(connection, "queue.delete", queue=queue)


async def delete_exchange(connection: AmqpConnection, exchange: str) -> None:
    """Delete an exchange; nothing happens if there is none."""
    await ask_once(connection, "exchange.delete", exchange=exchange)


async def create_exchange(connection: AmqpConnection, exchange: str, settings: AmqpSettings) -> None:
    """Create an exchange that does not exist, durable."""
    await ask_once(connection, "exchange.declare", exchange=exchange, type=settings.exchange_type, durable=True)


def no_exchange(topic: str, settings: AmqpSettings, advice: str) -> TopicMissing:
    return TopicMissing(f"{settings}: there is no exchange {topic} in the vhost {settings.vhost} (NOT_FOUND): {advice}")


async def declare_queue(
    connection: AmqpConnection, queue: QueueName, subscription: Subscription, settings: AmqpSettings
) -> None:
    """Create the queue of a subscription and bind it, unless it exists. TopicMissing, UsageError, BrokerError."""
    if not queue.is_temporary and await count_ready(connection, queue.name) is not None:
        return  # its bindings are its owner's
    if not queue.is_ours:
        raise TopicMissing(f"{settings}: there is no queue {queue.name} in the vhost {settings.vhost} (NOT_FOUND)")
    topic = subscription.topic
    if not await exchange_exists(connection, topic):
        raise no_exchange(topic, settings, "create it, or publish to it with --create-topics default")
    if await _type_of(connection, topic) == "direct":
        raise UsageError(
            f"{settings}: {topic} is a direct exchange, whose messages a queue gets by their key: bind a queue to it"
            " and read it with --engine-option queue=NAME"
        )
    if queue.is_temporary:
        await ask_once(connection, "queue.declare", queue=queue.name, exclusive=True, auto_delete=True)
    else:
        arguments = queue_arguments(settings.queue_type, connection.version)
        await ask_once(connection, "queue.declare", queue=queue.name, durable=True, arguments=arguments)
    await _bind(connection, queue.name, topic)


async def _bind(connection: AmqpConnection, queue: str, exchange: str) -> None:
    await ask_once(connection, "queue.bind", queue=queue, exchange=exchange, routing_key=ALL_KEYS)


async def _type_of(connection: AmqpConnection, exchange: str) -> str:
    """The type of an exchange that exists; "" if the broker does not tell it. AMQP has no question for it, but the
    refusal of a declaration with another type names it."""
    try:
        await ask_once(connection, "exchange.declare", exchange=exchange, type="direct", durable=True)
    except BrokerError as error:
        if error.code != PRECONDITION_FAILED:
            return ""
        found = re.search(r"inequivalent arg 'type' .* current is '([^']*)'", error.text)
        return found[1] if found else "direct"
    return "direct"


def queue_arguments(queue_type: str, version: tuple[int, ...]) -> Table:
    """The arguments of a queue that is created."""
    arguments: Table = [("x-queue-type", queue_type)]
    if queue_type == "quorum" and version >= (4,):
        arguments.append(("x-delivery-limit", -1))  # otherwise a message is dropped after 20 deliveries
    return arguments


def delay_queue(queue: str, delay_ms: int, version: tuple[int, ...]) -> tuple[str, Table]:
    """The name and the arguments of the queue whose messages go to `queue` after `delay_ms`.

    A quorum queue hands its dead letters over with a confirm; it has a time to live since RabbitMQ 3.10.
    """
    arguments: Table = [
        ("x-message-ttl", delay_ms), ("x-expires", delay_ms + KEEPS), ("x-dead-letter-exchange", b""),
        ("x-dead-letter-routing-key", queue.encode()),
    ]  # fmt: skip
    if version >= (3, 10):
        arguments += [
            ("x-queue-type", b"quorum"), ("x-dead-letter-strategy", b"at-least-once"),
            ("x-overflow", b"reject-publish"),
        ]  # fmt: skip
    return f"{queue}.delay.{delay_ms}", arguments
