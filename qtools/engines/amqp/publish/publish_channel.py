"""The channel on which messages are published. In: segments. Out: confirmed ones, returned and refused messages.

    pump: segments ─▶ frames, as long as the socket takes them and the window has room ─▶ confirms ─▶ pump

After a message that the broker refuses it closes the channel; what was not confirmed is sent again on the next one. A
message that may be larger than the broker accepts is sent alone, so that no other one is in doubt then.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from qtools.attributes import TOMBSTONE, Attributes
from qtools.engines.amqp.connection import AmqpChannel
from qtools.engines.amqp.protocol.deliveries import Confirms
from qtools.engines.amqp.protocol.frames import Content
from qtools.engines.amqp.protocol.properties import PERSISTENT, Properties, decode_properties
from qtools.engines.amqp.protocol.publishes import BatchEncoder, Outgoing, encode_each
from qtools.engines.amqp.publish.confirm_window import ConfirmWindow, Segment
from qtools.engines.amqp.publish.request import PublishCall
from qtools.engines.amqp.records import LONGEST_KEY, outgoing_properties
from qtools.errors import BrokerError, MessageRefused, ProtocolError, QtoolsError

WINDOW = 5000  # messages without a confirm; more make RabbitMQ no faster
SEGMENT_COUNT = 1000  # messages that are encoded in one piece
SEGMENT_BYTES = 512 * 1024  # bytes of bodies in one piece
FIRST_CONFIRM = 3.0  # s that the first confirm on a channel may take; doubled each time that it does not come
LATER_CONFIRM = 60.0  # s without any confirm, once there was one
SURE_SIZE = 64 * 1024  # bytes of a message that every broker accepts


class PublishCounts(Protocol):
    """What a publisher counts."""

    published: int
    published_bytes: int
    resent: int


class PublishChannel:
    """Sends segments in order. queue: publish to this queue and not to exchanges. on_published: as PublisherOptions.

    waiting: segments that are to be sent; the first one first. largest: the most bytes of a body, once it is known
    from a refusal.
    """

    def __init__(
        self,
        counts: PublishCounts,
        queue: str,
        on_published: Callable[[float, int], None] | None,
        batch_count: int,
        batch_bytes: int,
    ) -> None:
        self.waiting: deque[Segment] = deque()
        self.channel: AmqpChannel | None = None
        self.window = ConfirmWindow()
        self.largest: int | None = None
        self.is_blocked = False
        self._counts = counts
        self._queue = queue
        self._on_published = on_published
        self._most_count, self._most_bytes = min(SEGMENT_COUNT, batch_count), min(SEGMENT_BYTES, batch_bytes)
        self._accepted = SURE_SIZE  # bytes of a body that this broker has accepted
        self._sent_alone = False  # the only segment in the window is one large message
        self._is_proven = False  # something was confirmed on this channel
        self._patience = FIRST_CONFIRM
        self._quiet_since = 0.0  # when the last confirm came, or the window was empty (time.monotonic)
        self._encoders: dict[str, BatchEncoder] = {}  # by topic; for this channel and this second
        self._second = 0

    def use(self, channel: AmqpChannel) -> None:
        """Publish on `channel`, on which confirms are selected."""
        self.channel = channel
        self._is_proven = False
        self._encoders.clear()
        channel.on_confirms = self._on_confirms
        channel.on_nack = self._on_nack
        channel.on_returned = self._on_returned
        self.pump()

    def lose(self) -> None:
        """The channel is gone: what is not confirmed is sent again, before all else."""
        self.channel = None
        self._sent_alone = False
        again = self.window.take_all()
        self._counts.resent += sum(map(len, again))
        self.waiting.extendleft(reversed(again))
        self.window = ConfirmWindow()

    def has_no_answer(self) -> bool:
        """Whether confirms stay away for longer than a broker takes that works. Called now and then; True once for each
        channel, on which nothing more will come then.

        A quorum queue without a leader, as just after the start of a node, drops what is published to it without a word
        (RabbitMQ 3.10): it has to be published again.
        """
        if self.channel is None or not self.window.count or self.is_blocked:
            return False
        if time.monotonic() - self._quiet_since < (LATER_CONFIRM if self._is_proven else self._patience):
            return False
        self._patience = min(LATER_CONFIRM, 2 * self._patience)
        return True

    def add(self, call: PublishCall, group: int) -> None:
        """Publish a group of a call behind all that waits; `pump` sends it."""
        if bodies := call.groups[group][1]:
            self.waiting.append(Segment(call, group, range(len(bodies))))

    def refuse(self, topic: str, error: QtoolsError) -> None:
        """Refuse all messages of a topic that wait."""
        kept: deque[Segment] = deque()
        for segment in self.waiting:
            if segment.call.groups[segment.group][0] == topic:
                segment.call.refuse(segment.group, segment.places, error)
            else:
                kept.append(segment)
        self.waiting = kept

    # ── sending ──

    def pump(self) -> None:
        """Send what can be sent now."""
        channel = self.channel
        while (
            self.waiting
            and channel is not None
            and channel.is_open
            and not self.is_blocked
            and not self._sent_alone
            and self.window.count < (WINDOW if self._is_proven else 1)
            and channel.connection.is_writable
        ):
            if self.waiting[0].call.done.done():  # it was cancelled, or has failed
                self.waiting.popleft()
            elif not self._send_next(channel):
                return

    def _send_next(self, channel: AmqpChannel) -> bool:
        """Send a part of the first segment. False if it has to wait until all others are confirmed."""
        segment = self.waiting[0]
        call, group = segment.call, segment.group
        bodies = call.groups[group][1]
        part, rest, is_large = self._cut(segment, bodies)
        if is_large and len(bodies[part.places[0]]) > (self.largest or self._accepted):
            if self.largest is not None:
                size = len(bodies[part.places[0]])
                error = MessageRefused(
                    f"it has {size:,} bytes, and RabbitMQ accepts {self.largest:,} (max_message_size)"
                )
                self._replace_first(rest)
                call.refuse(group, part.places, error)
                return True
            if self.window.count:
                return False
            self._sent_alone = True
        self._replace_first(rest)
        pieces = self._encode(channel, part)
        if len(part):
            part.size = sum(map(len, pieces))
            part.sent_at = time.perf_counter()
            if not self.window.count:
                self._quiet_since = time.monotonic()
            self.window.add(part)
            channel.send_pieces(pieces, part.size)
        return True

    def _replace_first(self, rest: Segment | None) -> None:
        if rest is None:
            self.waiting.popleft()
        else:
            self.waiting[0] = rest

    def _cut(self, segment: Segment, bodies: Sequence[bytes]) -> tuple[Segment, Segment | None, bool]:
        """As much of a segment as is sent in one piece, the rest of it, and whether the piece is one large message."""
        places = segment.places[: self._most_count]
        sizes = [len(bodies[place]) for place in places]
        count, limit = len(sizes), self._accepted
        if sum(sizes) > self._most_bytes or max(sizes) > limit:
            if sizes[0] > limit:
                return (*_split(segment, 1), True)
            count, total = 1, sizes[0]
            for size in sizes[1:]:
                total += size
                if total > self._most_bytes or size > limit:
                    break
                count += 1
        return (*_split(segment, count), False)

    def _encode(self, channel: AmqpChannel, part: Segment) -> list[bytes]:
        """The frames of a segment; messages that AMQP cannot hold are refused, and taken out of it."""
        call, group = part.call, part.group
        topic, bodies = call.groups[group]
        attributes = call.columns[group] if call.columns is not None else Attributes()
        keys, headers, timestamps = attributes[:3]
        now = time.time()
        places, first = part.places, call.id_of(group, part.places[0])
        is_run = isinstance(places, range)
        if is_run and keys is None and headers is None and timestamps is None:
            some = bodies[places.start : places.stop] if len(places) != len(bodies) else bodies  # type: ignore[attr-defined]
            if b"" not in some or not any(body is TOMBSTONE for body in some):
                return self._encoder(channel, topic, int(now)).encode(first, some)
        outgoing: list[Outgoing] = []
        kept: list[int] = []
        now_ns = int(now) * 1_000_000_000
        for place in places:
            key = keys[place] if keys is not None else None
            try:
                routing_key, properties = outgoing_properties(
                    bodies[place], key, headers[place] if headers is not None else (),
                    timestamps[place] if timestamps is not None else now_ns, b"%016x" % call.id_of(group, place),
                    0 if self._queue else LONGEST_KEY,
                )  # fmt: skip
            except MessageRefused as error:
                call.refuse(group, (place,), error)
                continue
            outgoing.append(Outgoing(self._queue.encode() or routing_key, properties, bodies[place]))
            kept.append(place)
        part.places = places if len(kept) == len(places) else kept
        frame_max = channel.connection.session.frame_max
        return encode_each(channel.number, "" if self._queue else topic, frame_max, outgoing)

    def _encoder(self, channel: AmqpChannel, topic: str, second: int) -> BatchEncoder:
        if second != self._second:
            self._encoders.clear()
            self._second = second
        encoder = self._encoders.get(topic)
        if encoder is None:
            exchange = "" if self._queue else topic
            given = Properties(delivery_mode=PERSISTENT, timestamp=second)
            frame_max = channel.connection.session.frame_max
            encoder = BatchEncoder(channel.number, exchange, frame_max, self._queue.encode(), given)
            self._encoders[topic] = encoder
        return encoder

    # ── what the broker says ──

    def _on_confirms(self, confirms: Confirms) -> None:
        now = time.perf_counter()
        self._quiet_since = time.monotonic()
        self._is_proven, self._patience = True, FIRST_CONFIRM
        for segment in self.window.confirm(confirms.tags):
            count = len(segment)
            self._counts.published += count
            self._counts.published_bytes += segment.size
            if self._sent_alone:
                self._sent_alone = False
                self._accepted = max(self._accepted, len(segment.call.groups[segment.group][1][segment.places[0]]))
            if self._on_published is not None:
                self._on_published(now - segment.sent_at, count)
            segment.call.settle(count)
        self.pump()

    def _on_nack(self, tag: int, multiple: bool) -> None:
        error = BrokerError(
            "NACK", "a queue did not take it: it is full (x-overflow reject-publish), or could not store it"
        )
        for segment, place in self.window.places_of(tag, multiple):
            self._refuse_sent(segment.call, segment.group, place, error)
        channel = self.channel
        if channel is not None:
            self._on_confirms(Confirms(channel.number, [-tag if multiple else tag]))

    def _on_returned(self, returned: Content) -> None:
        """A message that no queue got; its confirm follows."""
        try:
            number = int(decode_properties(returned.properties).message_id or b"", 16)
        except (ValueError, ProtocolError):
            return
        given = returned.method.arguments
        for segment in self.window.segments:
            if (found := segment.call.place_of(number)) is not None:
                key = given["routing_key"]
                with_key = f" for the key {key.decode('utf-8', 'replace')!r}" if key else ""
                exchange = given["exchange"].decode("utf-8", "replace")
                what = f"the exchange {exchange}" if exchange else "that name"
                text = f"no queue is bound to {what}{with_key}, so that the message would be lost"
                self._refuse_sent(
                    segment.call, *found, BrokerError("NO_ROUTE", f"{text}: bind one, or read a channel of it")
                )
                return

    def _refuse_sent(self, call: PublishCall, group: int, place: int, error: QtoolsError) -> None:
        """A message that is in the window: its segment still counts it."""
        if (group, place) not in call.refused:
            call.refused[group, place] = error
            self._counts.published -= 1  # it is counted with its segment

    def learn_largest(self, error: BrokerError) -> bool:
        """Whether the broker has closed the channel as a message was too large."""
        found = re.search(r"message size (\d+)\D+ max size (\d+)", error.text)
        if found is None:
            return False
        self.largest = int(found[2])
        self._accepted = self.largest
        return True


def _split(segment: Segment, count: int) -> tuple[Segment, Segment | None]:
    if count == len(segment):
        return segment, None
    call, group, places = segment.call, segment.group, segment.places
    return Segment(call, group, places[:count]), Segment(call, group, places[count:])
