"""One consumer of JetStream. In: permission to ask for messages. Out: batches; acknowledgements to the server.

    ask(count) ─▶ request ─▶ server ─▶ messages, or a status when the request is over ─▶ on_batch
    Batch.finish ─▶ JetStreamDelivery.finish ─▶ finish ─▶ one write for all

A request names how many messages it is for. `asked` is how many may still come: what the server delivers is subtracted,
and so is the rest of a request that is over. Acknowledgements are published to a subject of each message: they may be
sent over another connection than the one that delivered it.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Sequence

from qtools.engines.connections.in_flight import InFlightLedger
from qtools.engines.jetstream.client import NatsClient
from qtools.engines.jetstream.consume.delivery import JetStreamDelivery
from qtools.engines.jetstream.protocol import commands
from qtools.engines.jetstream.protocol.ack_subject import is_ack_subject, parse_ack_subject, redelivered
from qtools.engines.jetstream.protocol.attributes import with_tombstones
from qtools.engines.jetstream.protocol.headers import status_of
from qtools.engines.jetstream.protocol.server_reader import NatsMessages
from qtools.message import Batch
from qtools.names import Subscription

log = logging.getLogger("qtools.nats")

EXPIRES = 30.0  # s until a request is over that was not served
SHORT_EXPIRES = 0.5  # s: the same, while several consumers share few messages
HEARTBEAT = 5.0  # s between two signs of life of the server while a request waits
REQUEST_BYTES = 16 * 1024 * 1024  # of messages that one request brings; the server ends it then
IDLE_HEARTBEAT, NO_MESSAGES, REQUEST_OVER, CONFLICT, NO_RESPONDERS = 100, 404, 408, 409, 503


class PullConsumer:
    """Reads the consumer `name` of `stream`; the origin of its messages is JetStreamDelivery.

    on_batch: called with a batch, the bytes of its bodies and the number of redelivered messages. on_changed: called
    when there may be room to ask for more. on_gone: called when the consumer may not exist any more.
    """

    def __init__(
        self,
        client: NatsClient,
        subscription: Subscription,
        stream: str,
        name: str,
        subject: bytes,
        ack_wait: float,
        on_batch: Callable[[PullConsumer, Batch, int, int], None],
        on_changed: Callable[[], None],
        on_gone: Callable[[PullConsumer], None],
    ) -> None:
        self.subscription = subscription
        self.topic = subscription.topic
        self.stream = stream
        self.name = name
        self.ack_wait = ack_wait
        self.asked = 0
        self.last_sequence = 0  # of the stream: of the newest message that arrived
        self.last_timestamp = 0  # ns since 1970, of the same
        self.pending = 0  # messages that the consumer had not delivered when it delivered the last one
        self.last_batch_at = float("-inf")  # loop time
        self.ledger = InFlightLedger(self, JetStreamDelivery)
        self._client = client
        self._subject = subject
        self._on_batch = on_batch
        self._on_changed = on_changed
        self._on_gone = on_gone
        self._loop = asyncio.get_running_loop()
        self._sid = b""
        self._inbox = b""
        self._requests: dict[bytes, int] = {}  # by the subject of the answers: how many messages they are for
        self._last_request = 0
        self._heard_at = self._loop.time()
        self._has_large = False  # the next message is larger than REQUEST_BYTES
        self._is_cancelled = False  # on a server that does not forget requests
        self._late: list[bytes] = []  # ack subjects of messages that came after that
        self._changed = asyncio.Event()
        self._kept: list[bytes] = []  # acknowledgements that wait for a connection

    @property
    def address(self) -> str:
        """Of the server, for messages."""
        connection = self._client.connection
        return connection.address if connection is not None else str(self._client.settings)

    @property
    def in_flight(self) -> int:
        return self.ledger.count

    # ── messages in ──

    def begin(self) -> None:
        """Listen for messages; nothing is asked for."""
        self._is_cancelled = False
        self._client.send(commands.answer_all(self._late, commands.NAK))
        self._late.clear()
        if self._sid:
            return
        self._last_request += 1
        self._inbox = b"%bc%b.%d." % (self._client.inbox, self._tag, self._last_request)
        self._sid = self._client.subscribe(self._inbox + b"*", self._arrived)

    @property
    def _tag(self) -> bytes:
        return b"%x" % (id(self) & 0xFFFFFFFF)

    def ask(self, count: int, *, is_short: bool = False) -> None:
        """Ask for `count` messages more. is_short: the request is over soon if it is not served."""
        is_short = is_short or not self._client.info.forgets_requests
        expires = SHORT_EXPIRES if is_short else EXPIRES
        wish: dict[str, int] = {"batch": count, "expires": round(expires * 1e9)}
        if not is_short:
            wish["idle_heartbeat"] = round(HEARTBEAT * 1e9)
        if self._has_large:
            wish["batch"] = count = 1
            self._has_large = False
        else:
            wish["max_bytes"] = REQUEST_BYTES
        self._last_request += 1
        reply = self._inbox + b"%d" % self._last_request
        if not self.asked:
            self._requests.clear()
            self._heard_at = self._loop.time()
        if self._client.send(commands.publish(self._subject, json.dumps(wish).encode(), reply)):
            self._requests[reply] = count
            self.asked += count

    def cancel(self) -> None:
        """Ask for nothing more, and let the server forget the requests; what still comes is given back. A server that
        does not forget them is let to serve them, or to end them (`asked` is 0 then)."""
        if self.asked and not self._client.info.forgets_requests:
            self._is_cancelled = True
            return
        if self._sid:
            self._client.unsubscribe(self._sid)
            self._sid = b""
        self.asked = 0
        self._requests.clear()

    async def wait_cancelled(self) -> None:
        """After `cancel`: return when no request is open, or after a time."""
        try:
            async with asyncio.timeout(2 * SHORT_EXPIRES):
                while self._is_cancelled and self.asked:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            log.info("%s: the last request was not ended in time", self.subscription)

    def _settle_cancelled(self) -> None:
        """After `cancel`: give back what has come since, once no request is open that would bring it again."""
        self._changed.set()
        if self._is_cancelled and not self.asked:
            self._client.send(commands.answer_all(self._late, commands.NAK))
            self._late.clear()

    def move(self, name: str, subject: bytes) -> None:
        """Read another consumer from now on, which replaces this one."""
        self.name, self._subject = name, subject
        self.lost_connection()

    def lost_connection(self) -> None:
        """The server has forgotten all requests; what is in flight can still be acknowledged."""
        self.asked = 0
        self._requests.clear()
        self._settle_cancelled()

    def is_silent(self, now: float) -> bool:
        """Whether the server has given no sign of life although a request waits."""
        return bool(self.asked) and now - self._heard_at > max(3 * HEARTBEAT, 2 * SHORT_EXPIRES)

    def _arrived(self, messages: NatsMessages) -> None:
        self._heard_at = self._loop.time()
        replies, bodies, headers = messages.replies, messages.bodies, messages.headers
        if headers is not None and not all(map(is_ack_subject, replies)):
            places = []
            for place, (block, reply) in enumerate(zip(headers, replies, strict=True)):
                if is_ack_subject(reply):
                    places.append(place)
                elif block:
                    self._handle_status(messages.subjects[place], block)
            if not places:
                return
            replies, bodies = [replies[place] for place in places], [bodies[place] for place in places]
            headers = [headers[place] for place in places]
        if self._is_cancelled:
            self.asked = max(0, self.asked - len(replies))
            self._late += replies
            self._settle_cancelled()
            return
        if messages.sid != self._sid:  # `cancel` was called: the server delivers them again, here or to others
            self._client.send(commands.answer_all(replies, commands.NAK))
            return
        self._deliver(replies, bodies, headers)

    def _deliver(self, replies: list[bytes], bodies: list[bytes], headers: list[bytes] | None) -> None:
        count = len(bodies)
        self.asked = max(0, self.asked - count)
        self.last_batch_at = self._heard_at
        told = parse_ack_subject(replies[-1])
        self.last_sequence = max(self.last_sequence, told.stream_sequence)
        self.last_timestamp, self.pending = told.timestamp, told.pending
        delivery = self.ledger.add(replies, self._heard_at)
        records: list[bytes] | list[tuple[bytes, bytes]] = replies
        if headers is not None and any(headers):
            bodies = with_tombstones(bodies, headers)
            records = list(zip(replies, headers, strict=True))
        batch = Batch([(delivery, 0, count)], None, bodies, replies, records)
        self._on_batch(self, batch, sum(map(len, bodies)), redelivered(replies))

    def _handle_status(self, subject: bytes, block: bytes) -> None:
        """A request is over, wholly or in part, or waits."""
        status = status_of(block)
        if status.code == IDLE_HEARTBEAT:
            return
        if subject not in self._requests:
            return  # of a request that was served, or cancelled
        count = self._requests.pop(subject)
        if not self._requests:
            self.asked = 0  # nothing else can be on its way
        else:
            self.asked = max(0, self.asked - (count if status.pending is None else status.pending))
        self._settle_cancelled()
        text = status.text.lower()
        if status.code == CONFLICT and "maxbytes" in text.replace(" ", ""):
            self._has_large = bool(count) and status.pending == count  # it brought nothing
        elif status.code == NO_RESPONDERS or (status.code == CONFLICT and "deleted" in text):
            self._on_gone(self)
            return
        elif status.code not in (NO_MESSAGES, REQUEST_OVER):
            log.info("%s: a request for messages was refused: %d %s", self.subscription, status.code, status.text)
            self._loop.call_later(SHORT_EXPIRES, self._on_changed)
            return
        self._on_changed()

    # ── what becomes of messages (connections.in_flight.Acknowledger) ──

    def finish(self, ids: Sequence[bytes]) -> None:
        self._acknowledge(commands.finish_all(ids))

    def requeue(self, ids: Sequence[bytes], delay_ms: int) -> None:
        self._acknowledge(commands.answer_all(ids, commands.nak_later(delay_ms) if delay_ms else commands.NAK))

    def touch(self, ids: Sequence[bytes]) -> None:
        self._client.send(commands.answer_all(ids, commands.TOUCH))

    def _acknowledge(self, data: bytes) -> None:
        if data and not self._client.send(data):
            self._kept.append(data)
        self._on_changed()

    def send_kept(self) -> None:
        """A connection is up again: send the acknowledgements that waited for it."""
        kept, self._kept = self._kept, []
        self._client.send(b"".join(kept))

    def touch_due(self, now: float) -> None:
        """Touch what is in flight for longer than half of the time that the server waits."""
        for ids in self.ledger.take_due(now, self.ack_wait / 2):
            self.touch(ids)

    def give_all_back(self) -> None:
        """At the end: what is not finished is delivered again at once."""
        for ids in self.ledger.take_all():
            self._client.send(commands.answer_all(ids, commands.NAK))

    def __repr__(self) -> str:
        return f"<PullConsumer {self.subscription} in_flight={self.in_flight} asked={self.asked}>"
