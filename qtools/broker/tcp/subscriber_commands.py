"""The commands of a client that subscribes to a channel: SUB, RDY, FIN, REQ, TOUCH, CLS. In: a client, a command. Out:
calls to its channel; responses.

Each function executes one command, which the client may send in its state (client_states.py). A FIN is all FIN lines
that arrived together. The texts of errors are nsqd's.
"""

from __future__ import annotations

from typing import Protocol

from qtools.broker.core.broker import Broker
from qtools.broker.core.channel import Channel, TooMany
from qtools.broker.core.consumer import ChannelConsumer, Receiver
from qtools.broker.core.store import Commit
from qtools.broker.tcp.client_transport import ClientTransport
from qtools.engines.nsq.protocol.client_commands import Close, Command, Finish, Ready, Requeue, Sub, Touch
from qtools.engines.nsq.protocol.frames import CLOSE_WAIT, OK, RESPONSE, encode_frame
from qtools.engines.nsq.protocol.negotiate import NegotiatedClient

_OK = encode_frame(RESPONSE, OK)
_CLOSE_WAIT = encode_frame(RESPONSE, CLOSE_WAIT)


class SubscribingClient(Receiver, Protocol):
    """The client. channel, consumer: None before SUB."""

    broker: Broker
    transport: ClientTransport
    client: NegotiatedClient
    channel: Channel | None
    consumer: ChannelConsumer | None

    def is_authorized(self, name: str, command: Command, topic: str, channel: str) -> bool:
        """Whether the client may send `command`. If not, it was refused, or is authorized again first."""
        ...

    def answer(self, frame: bytes) -> None:
        """Send a response, after all that are pending."""
        ...

    def answer_after(self, commit: Commit, frame: bytes) -> None:
        """Send a response, and execute the next command, once `commit` is done, even if it fails."""
        ...

    def refuse(self, code: str, text: str) -> None:
        """Send an error and end the connection."""
        ...

    def report_failure(self, name: str, ident: bytes, why: str) -> None:
        """Send an error that does not end the connection."""
        ...

    def follow(self, command: type) -> None:
        """Enter the state after `command`."""
        ...


def sub(client: SubscribingClient, command: Sub) -> None:
    if client.transport.interval <= 0:
        client.refuse("E_INVALID", "cannot SUB with heartbeats disabled")
        return
    if not client.is_authorized("SUB", command, command.topic, command.channel):
        return
    broker = client.broker
    topic = broker.topics.get(command.topic)
    is_new = topic is None or command.channel not in topic.channels
    channel = broker.channel(command.topic, command.channel)
    consumer = ChannelConsumer(
        client,
        msg_timeout=client.client.msg_timeout / 1000,
        max_msg_timeout=broker.options.max_msg_timeout,
        sample_rate=client.client.sample_rate,
    )
    try:
        channel.add(consumer)
    except TooMany as error:
        client.refuse("E_SUB_FAILED", f"SUB failed {error}")
        return
    client.channel, client.consumer = channel, consumer
    client.follow(Sub)
    commit = broker.store.pending if is_new and not channel.ephemeral else None
    if commit is None:
        client.answer(_OK)  # the flush after it calls make_room
    else:
        # A channel whose SUB was confirmed must survive a crash, so that it misses nothing that is published
        # afterwards. If it cannot be stored now, its messages are delivered all the same.
        client.answer_after(commit, _OK)


def _subscription(client: SubscribingClient) -> tuple[Channel, ChannelConsumer]:
    """The channel and the consumer of a client in a state in which it has both."""
    assert client.channel is not None
    assert client.consumer is not None
    return client.channel, client.consumer


def ready(client: SubscribingClient, command: Ready) -> None:
    channel, consumer = _subscription(client)
    most = client.broker.options.max_rdy_count
    if command.count > most:
        client.refuse("E_INVALID", f"RDY count {command.count} out of range 0-{most}")
        return
    consumer.ready = command.count
    channel.schedule(consumer)


def finish(client: SubscribingClient, command: Finish) -> None:
    channel, consumer = _subscription(client)
    for ident, why in channel.finish_lines(consumer, command):
        client.report_failure("FIN", ident, why)


def requeue(client: SubscribingClient, command: Requeue) -> None:
    channel, consumer = _subscription(client)
    why = channel.requeue(consumer, command.ident, command.delay_ms / 1000, client.broker.now())
    if why:
        client.report_failure("REQ", command.ident, why)


def touch(client: SubscribingClient, command: Touch) -> None:
    channel, consumer = _subscription(client)
    why = channel.touch(consumer, command.ident, client.broker.now())
    if why:
        client.report_failure("TOUCH", command.ident, why)


def close(client: SubscribingClient, command: Close) -> None:
    _, consumer = _subscription(client)
    client.follow(Close)
    consumer.closing = True
    consumer.ready = 0
    client.answer(_CLOSE_WAIT)
