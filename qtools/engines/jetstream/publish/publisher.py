"""Publishes to JetStream; see engines/contract.py. In: groups of messages. Out: what was refused; all else is safe.

    publish ─▶ PublishWindow ─▶ pieces of many PUB commands ─▶ server
    answers of the streams ─▶ PublishWindow.confirm ─▶ the publish is over

A message is safe when its stream has answered. What was not answered when a connection was lost is sent again, in its
order: it may be in the stream twice then, unless it has a message id, by which the server finds duplicates.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence

from qtools.attributes import TOMBSTONE, Attributes
from qtools.engines.contract import PublisherOptions
from qtools.engines.jetstream.api import JetStreamApi
from qtools.engines.jetstream.client import NatsClient
from qtools.engines.jetstream.connection import NatsConnection
from qtools.engines.jetstream.protocol import commands
from qtools.engines.jetstream.protocol.attributes import header_block
from qtools.engines.jetstream.protocol.pub_acks import PubRefusal, read_pub_acks
from qtools.engines.jetstream.protocol.server_info import ServerRefusal
from qtools.engines.jetstream.protocol.server_reader import NatsMessages
from qtools.engines.jetstream.publish.publish_window import PublishRun, PublishWindow
from qtools.engines.jetstream.publish.refusals import error_of, is_for_now, is_no_stream
from qtools.engines.jetstream.publish.topic_streams import TopicStreams
from qtools.engines.jetstream.settings import JetStreamSettings
from qtools.errors import BrokerError, MessageRefused, NetworkError, QtoolsError, StartError, TopicMissing
from qtools.flow.contract import GroupAttributes, Refused

log = logging.getLogger("qtools.nats")

AGAIN_AFTER = 0.25  # s until a message is sent again that was refused for now
SILENCE = 30.0  # s without an answer of any stream, after which what is not answered is sent again


class _PublishRequest:
    """One call of `publish`. done: completes with the last answer. last_refusal: why messages were refused for now."""

    __slots__ = ("done", "last_refusal", "left", "refused", "runs")

    def __init__(self) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.left = 0
        self.refused: Refused = {}
        self.runs: list[tuple[PublishRun, int]] = []  # with the number of the group
        self.last_refusal: QtoolsError | None = None

    def answered(self, count: int) -> None:
        self.left -= count
        if not self.left and not self.done.done():
            self.done.set_result(None)


class JetStreamPublisher:
    """Publishes over one connection. duplicates: messages that the server had already, by their message ids."""

    def __init__(self, settings: JetStreamSettings, options: PublisherOptions) -> None:
        self.published = self.published_bytes = self.resent = self.duplicates = 0
        self._settings = settings
        self._options = options
        self._client = NatsClient(settings)
        self._client.on_up, self._client.on_down = self._is_up, self._is_down
        self._client.on_refusal = self._not_permitted
        self._api = JetStreamApi(self._client)
        self._window = PublishWindow()
        self._inbox = self._client.inbox + b"p."
        self._streams = TopicStreams(self._api, settings, options)
        self._requests: set[_PublishRequest] = set()
        self._enqueue_lock = asyncio.Lock()
        self._changed = asyncio.Event()
        self._postponed: list[tuple[PublishRun, int]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._answered_at = 0.0
        self._checks: set[asyncio.Task[None]] = set()
        self._checked: set[str] = set()  # topics whose stream is being looked for again

    # ── what the contract asks ──

    async def start(self) -> None:
        """Connect, and create the streams that messages will go to, if that was asked for. StartError when no server
        can be used or a stream cannot be created, TopicMissing."""
        self._client.subscribe_to_answers(self._inbox, self._answered, self._confirmed)
        await self._client.start()
        for topic in self._options.topics:
            try:
                error = await self._streams.find(topic)
            except (NetworkError, BrokerError) as failed:
                raise StartError(f"{self._settings}: {failed}") from failed
            if error is not None:
                raise (TopicMissing if self._options.new_topics is None else StartError)(str(error)) from error
        if self._options.new_topics is None:
            await self._streams.warn_of_missing(self._options.later_topics)

    async def publish(
        self,
        groups: Sequence[tuple[str, Sequence[bytes]]],
        delay_ms: int | None = None,
        *,
        attributes: GroupAttributes | None = None,
    ) -> Refused:
        """Publish all of `groups`; see the contract. Messages are refused with MessageRefused (too large, or a header
        that cannot be carried) or BrokerError (no stream, its limits, permissions)."""
        begun = time.perf_counter()
        limit = self._options.retry_timeout
        request = _PublishRequest()
        self._requests.add(request)
        try:
            async with asyncio.timeout(limit):
                columns = attributes() if attributes is not None else None
                async with self._enqueue_lock:  # one publish after the other, in the order of their calls
                    for number, (topic, bodies) in enumerate(groups):
                        await self._enqueue(request, number, topic, bodies, columns[number] if columns else None)
                if request.left:
                    self._pump()
                    await request.done
        except TimeoutError:
            raise self._timed_out(request, limit or 0.0) from None
        finally:
            self._requests.discard(request)
            for run, _ in request.runs:
                run.is_given_up = bool(run.left)
        count = sum(len(bodies) for _, bodies in groups) - len(request.refused)
        self.published += count
        self.published_bytes += sum(sum(map(len, bodies)) for _, bodies in groups)
        if self._options.on_published is not None and count:
            self._options.on_published(time.perf_counter() - begun, count)
        return request.refused

    async def close(self) -> None:
        for handle in (self._timer, self._watch):
            if handle is not None:
                handle.cancel()
        for task in self._checks:
            task.cancel()
        await asyncio.gather(*self._checks, return_exceptions=True)
        await self._client.close()
        if self.duplicates:
            log.info("%s: had %d messages already, by their ids", self._settings, self.duplicates)
        for request in list(self._requests):
            if not request.done.done():
                request.done.set_exception(NetworkError(str(self._settings), "the publisher was closed"))
                request.done.exception()

    @property
    def unanswered(self) -> int:
        """Publishes that wait for a confirmation."""
        return len(self._requests)

    @property
    def connected(self) -> int:
        return int(self._client.connection is not None)

    @property
    def reconnects(self) -> int:
        return self._client.reconnects

    def _timed_out(self, request: _PublishRequest, limit: float) -> QtoolsError:
        if request.last_refusal is not None and self.connected:
            return BrokerError("REFUSED", f"everything was refused for {limit:.4g} s: {request.last_refusal}")
        what = "no confirmation" if self.connected else "not connected, and no confirmation"
        return NetworkError(str(self._settings), f"{what} within {limit:.4g} s")

    # ── messages in ──

    async def _enqueue(
        self, request: _PublishRequest, number: int, topic: str, bodies: Sequence[bytes], columns: Attributes | None
    ) -> None:
        """Queue the messages of one group; those that cannot be sent are added to `request.refused`."""
        if topic not in self._streams.found and (error := await self._find_when_connected(topic)) is not None:
            request.refused.update({(number, place): error for place in range(len(bodies))})
            return
        places: Sequence[int] = range(len(bodies))
        blocks = self._header_blocks(request, number, bodies, columns)
        limit = self._client.info.max_payload
        if blocks is not None or (bodies and max(map(len, bodies)) > limit):
            for place, body in enumerate(bodies):
                size = len(body) + (len(blocks[place]) if blocks is not None else 0)
                if size > limit and (number, place) not in request.refused:
                    request.refused[number, place] = MessageRefused(
                        f"it has {size:,} bytes with its headers, and the server accepts {limit:,} (max_payload)"
                    )
            places = [place for place in places if (number, place) not in request.refused]
            if len(places) < len(bodies):
                bodies = [bodies[place] for place in places]
                blocks = None if blocks is None else [blocks[place] for place in places]
        if bodies:
            run = PublishRun(topic.encode(), bodies, blocks, places, request.answered)
            request.left += len(bodies)
            request.runs.append((run, number))
            self._window.add(run)

    @staticmethod
    def _header_blocks(
        request: _PublishRequest, number: int, bodies: Sequence[bytes], columns: Attributes | None
    ) -> list[bytes] | None:
        """The header block of each message; None if no message has headers."""
        has_tombstones = b"" in bodies and any(body is TOMBSTONE for body in bodies)
        if not has_tombstones and (columns is None or not any((*columns[:3], columns.dedupe_ids))):
            return None
        keys, headers, timestamps = columns[:3] if columns is not None else (None, None, None)
        ids = columns.dedupe_ids if columns is not None else None
        blocks = []
        for place, body in enumerate(bodies):
            block = b""
            try:
                block = header_block(
                    keys[place] if keys is not None else None,
                    headers[place] if headers is not None else (),
                    timestamps[place] if timestamps is not None else 0,
                    is_tombstone=body is TOMBSTONE,
                    message_id=ids[place] if ids is not None else None,
                )
            except MessageRefused as error:
                request.refused[number, place] = error
            blocks.append(block)
        return blocks

    # ── to and from the server ──

    def _pump(self) -> None:
        """Send what the window and the socket have room for."""
        connection = self._client.connection
        while connection is not None and connection.is_open and connection.is_writable:
            taken = self._window.take()
            if taken is None:
                return
            run, start, stop = taken
            connection.send(b"".join(self._encoded(run, start, stop)))
            if self._watch is None:
                loop = asyncio.get_running_loop()
                self._answered_at = loop.time()
                self._watch = loop.call_later(SILENCE / 4, self._check_silence)

    def _encoded(self, run: PublishRun, start: int, stop: int) -> list[bytes]:
        first, topic, inbox = run.number + start, run.topic, self._inbox
        if run.blocks is None and not run.answered.count(1, start, stop):
            return commands.publish_all(topic, run.bodies[start:stop], inbox, first)
        made = []
        for place in range(start, stop):
            if not run.answered[place]:
                reply, block = (
                    inbox + b"%d" % (run.number + place),
                    run.blocks[place] if run.blocks is not None else b"",
                )
                body = run.bodies[place]
                made.append(
                    commands.publish_with_headers(topic, block, body, reply)
                    if block
                    else commands.publish(topic, body, reply)
                )
        return made

    def _confirmed(self, numbers: list[int]) -> None:
        self._answered_at = asyncio.get_running_loop().time()
        self._window.confirm(numbers)
        self._pump()

    def _answered(self, messages: NatsMessages) -> None:
        acks = read_pub_acks(messages, self._inbox)
        self._answered_at = asyncio.get_running_loop().time()
        self.duplicates += acks.duplicates
        numbers = acks.numbers
        if acks.refused:
            numbers = [number for number in numbers if not self._is_postponed(number, acks.refused.get(number))]
        if numbers:
            self._window.confirm(numbers)
        self._pump()

    def _is_postponed(self, number: int, refusal: PubRefusal | None) -> bool:
        """Handle a refusal: whether the message is to be sent again. If not, its request has the error."""
        found = self._window.find(number) if refusal is not None else None
        if refusal is None or found is None:
            return False
        run, place = found
        topic = run.topic.decode()
        error = error_of(topic, refusal, run.size_of(place, place + 1))
        for request in self._requests:
            for each, group in request.runs:
                if each is run:
                    if not is_for_now(refusal) and not is_no_stream(refusal):
                        request.refused[group, run.places[place]] = error
                        return False
                    request.last_refusal = error
        self._window.give_back(run, place)
        self._postponed.append((run, place))
        if is_no_stream(refusal):
            self._check_topic(topic)
        self._send_postponed_later()
        return True

    def _send_postponed_later(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(AGAIN_AFTER, self._send_postponed)

    def _send_postponed(self) -> None:
        self._timer = None
        connection = self._client.connection
        if connection is None or not connection.is_open:
            return  # all is sent again on the next connection
        postponed, self._postponed = self._postponed, []
        data = []
        for run, place in postponed:
            if run.topic.decode() in self._checked:
                self._postponed.append((run, place))
                self._send_postponed_later()
            elif self._window.resend(run, place):
                data += self._encoded(run, place, place + 1)
        if data:
            connection.send(b"".join(data))

    def _check_topic(self, topic: str) -> None:
        """No server reads the subject: look whether its stream is gone, or has no leader for a moment."""
        if topic not in self._checked:
            self._checked.add(topic)
            task = asyncio.create_task(self._look_again(topic))
            self._checks.add(task)
            task.add_done_callback(self._checks.discard)

    async def _look_again(self, topic: str) -> None:
        self._streams.found.discard(topic)
        try:
            error = await self._streams.find(topic)
        except (NetworkError, BrokerError) as failed:
            log.info("%s", failed)
            return
        finally:
            self._checked.discard(topic)
        if error is not None:
            self._refuse_topic(topic, error)

    def _refuse_topic(self, topic: str, error: QtoolsError) -> None:
        """All messages of `topic` that are not answered are refused."""
        for run, numbers in self._window.of_topic(topic.encode()):
            for request in self._requests:
                for each, group in request.runs:
                    if each is run:
                        places = [run.places[number - run.number] for number in numbers]
                        request.refused.update({(group, place): error for place in places})
            self._window.confirm(numbers)

    def _not_permitted(self, refusal: ServerRefusal) -> None:
        if refusal.subject in self._streams.found:
            self._refuse_topic(refusal.subject, refusal.error)
        else:
            log.warning("%s", refusal.error)

    def _check_silence(self) -> None:
        """Send what is not answered again, if no stream has answered for long: a cluster without a quorum is silent."""
        self._watch = None
        loop = asyncio.get_running_loop()
        if not self._window.unanswered:
            return
        if loop.time() - self._answered_at >= SILENCE and self._client.connection is not None:
            log.warning("%s: no stream has confirmed anything for %.0f s; sent again", self._settings, SILENCE)
            self.resent += self._window.lose_connection()
            self._postponed.clear()  # these messages are among them
            self._answered_at = loop.time()
            self._pump()
        if self._watch is None:
            self._watch = loop.call_later(SILENCE / 4, self._check_silence)

    def _is_up(self, connection: NatsConnection) -> None:
        connection.on_writable = self._pump
        self._changed.set()
        self._pump()

    def _is_down(self) -> None:
        self.resent += self._window.lose_connection()
        self._postponed.clear()

    # ── topics ──

    async def _find_when_connected(self, topic: str) -> QtoolsError | None:
        """As TopicStreams.find; while no server is connected, wait for one."""
        while True:
            try:
                return await self._streams.find(topic)
            except NetworkError:
                # A connection that is being closed fails at once, and is replaced only after this task has waited.
                while (connection := self._client.connection) is None or not connection.is_open:
                    self._changed.clear()
                    await self._changed.wait()
            except BrokerError as error:
                return error
