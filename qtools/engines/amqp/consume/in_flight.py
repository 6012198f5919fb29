"""What one channel has delivered, and what becomes of it. In: deliveries. Out: acks and nacks.

Delivery tags count up on a channel. Acks of the lowest unsettled messages are joined into one with `multiple`; those
behind a message that is not settled are single ones. When the channel or the connection is gone, the broker delivers
again what was not acknowledged, and late acknowledgements are ignored and counted.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Container, Sequence
from typing import Any, Protocol

from qtools.attributes import Attributes
from qtools.engines.amqp.connection import AmqpChannel
from qtools.engines.amqp.protocol.deliveries import Deliveries, Record
from qtools.engines.amqp.protocol.methods import encode_method
from qtools.engines.amqp.records import (
    attempts_of,
    attributes_of,
    decode_record,
    messages_of,
    with_tombstones,
)  # fmt: skip
from qtools.flow.ledger import Ledger
from qtools.message import Batch, Messages


class DeliveryOwner(Protocol):
    """Counts what is in flight, and delivers messages again later."""

    def settling(self, origin: ChannelDeliveries, tags: Sequence[int]) -> None:
        """Messages are acknowledged next, or go back to their queue; each lets the broker send another one."""

    def settled(self) -> None:
        """Those messages are not in flight any more."""

    def count_late(self, count: int) -> None:
        """As many acknowledgements came too late."""

    def deliver_later(self, origin: ChannelDeliveries, tags: Sequence[int], delay_ms: int) -> None:
        """Deliver messages again after `delay_ms`; they stay in flight until `acknowledge` or `give_back` is called."""


class ChannelDeliveries:
    """The Origin of the messages of one channel (message.RecordOrigin)."""

    def __init__(self, topic: str, channel: AmqpChannel, owner: DeliveryOwner, number: int) -> None:
        """number: tells the channels of a run apart, for the ids of messages that have none."""
        self.topic = topic
        self.is_lost = False
        self.in_flight = 0
        self.finished = 0
        self.next_tag = 1  # of the message that comes next
        self._channel = channel
        self._owner = owner
        self._number = number
        self._ledger = Ledger(1)
        self._kept: deque[Deliveries] = deque()  # of which something is in flight
        self._has_redelivered = False

    @property
    def address(self) -> str:
        return self._channel.connection.address

    def add(self, some: Deliveries, is_redelivered: bool) -> Batch:
        """What has arrived, as a batch; it is in flight from now on."""
        tags = some.tags
        self._ledger.add(tags.start, tags.stop)
        self.next_tag = tags.stop
        self._kept.append(some)
        self.in_flight += len(tags)
        self._has_redelivered = self._has_redelivered or is_redelivered
        if b"" in some.bodies:
            with_tombstones(some.records, some.bodies)
        return Batch([(self, 0, len(tags))], None, some.bodies, tags, some.records)

    def lose(self) -> None:
        """The channel is gone."""
        self.is_lost = True
        self.in_flight = 0
        self._kept.clear()

    def messages_at(self, tags: Sequence[int]) -> list[tuple[Record, bytes]]:
        """The records and bodies of messages that are in flight."""
        starts = [some.first for some in self._kept]
        found = []
        for tag in tags:
            some = self._kept[bisect_right(starts, tag) - 1]
            found.append((some.records[tag - some.first], some.bodies[tag - some.first]))
        return found

    # ── message.Origin ──

    def finish(self, ids: Sequence[int]) -> None:
        if self.is_lost:
            self._owner.count_late(len(ids))
        elif ids:
            self.acknowledge(ids)

    def requeue(self, ids: Sequence[int], delay_ms: int) -> None:
        if self.is_lost or not ids:
            return
        if delay_ms > 0:
            self._owner.deliver_later(self, ids, delay_ms)
        else:
            self.give_back(ids)

    def touch(self, ids: Sequence[int]) -> None:
        """Nothing to do: AMQP has no way to extend the consumer's time (consumer_timeout)."""

    def acknowledge(self, tags: Sequence[int]) -> None:
        """Acknowledge messages; ascending tags, at least one."""
        self._owner.settling(self, tags)
        self.finished += len(tags)
        self._send(tags, "basic.ack", {})

    def give_back(self, tags: Sequence[int]) -> None:
        """Let the broker deliver messages again at once; ascending tags."""
        if tags and not self.is_lost:
            self._owner.settling(self, tags)
            self._send(tags, "basic.nack", {"requeue": True})

    def _send(self, tags: Sequence[int], name: str, more: dict[str, Any]) -> None:
        ledger, number = self._ledger, self._channel.number
        ledger.finish(tags)
        # All unsettled messages below `confirmed` are in `tags`: the last of these stands for them.
        below = bisect_left(tags, ledger.confirmed)
        frames = []
        if below:
            frames.append(encode_method(number, name, delivery_tag=tags[below - 1], multiple=below > 1, **more))
        frames += [encode_method(number, name, delivery_tag=tag, **more) for tag in tags[below:]]
        self._channel.send_pieces(frames)
        self.in_flight -= len(tags)
        kept = self._kept
        while kept and kept[0].tags.stop <= ledger.confirmed:
            kept.popleft()
        self._owner.settled()

    # ── message.RecordOrigin ──

    def messages_of(self, records: Sequence[Record], bodies: list[bytes]) -> Messages:
        return messages_of(records, bodies, self._number)

    def attributes_of(self, records: Sequence[Record], only: Container[str] = Attributes._fields) -> Attributes:
        return attributes_of(records, only)

    def delivered_more_than(self, times: int, records: Sequence[Record]) -> dict[int, int]:
        if not self._has_redelivered:  # as nearly always
            return {}
        found: dict[int, int] = {}
        for place, record in enumerate(records):
            envelope = record[0]
            if envelope.redelivered or not envelope.exchange:
                attempts = attempts_of(envelope, decode_record(record))
                if attempts > times:
                    found[place] = attempts
        return found

    def __repr__(self) -> str:
        return f"<ChannelDeliveries {self.topic} {self.address} in_flight={self.in_flight}>"
