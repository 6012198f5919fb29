"""Consumers for streams. In: what a stream asks for. Out: a source of batches.

A stream with ack=client and a count ends in order while its messages are not acknowledged yet. They can be finished
only over the connection that delivered them, so its consumer rests until they are. The next stream of the same caller
on the same channel reads through it: a client that takes one message a request does not leave a broker connection
behind for each of them.

    open ─▶ reading ─▶ rest ─▶ resting ─▶ open, by another stream ─▶ reading …
                                        ─▶ close of the last stream: the consumer is closed
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from qtools.engines.contract import Source
from qtools.message import Batch
from qtools.names import Subscription
from qtools.pubsub_http.options import GatewayOptions
from qtools.pubsub_http.subscribe.delivery import SourceFailed, log_failure
from qtools.pubsub_http.subscribe.fanout import open_source, own_channel
from qtools.pubsub_http.subscribe.rendered_batch import RenderedBatch
from qtools.pubsub_http.subscribe.subscribe_params import SubscribeParams
from qtools.web.memory_budget import MemoryBudget

if TYPE_CHECKING:  # it takes time to import
    from qtools.schemas.decoding import DecodingSource

LAST_READ = 1.0  # s
Key = tuple[str, str, str, int]  # caller, topic, channel, max_in_flight


class _Shared:
    """A consumer, what decodes its messages, and how many streams need it."""

    __slots__ = ("consumer", "decoding", "is_resting", "key", "streams")

    def __init__(self, key: Key, consumer: Source, decoding: DecodingSource | None) -> None:
        self.key = key
        self.consumer = consumer
        self.decoding = decoding
        self.streams = 1
        self.is_resting = False


class ConsumerSource:
    """A consumer as one stream's source of batches. decoding: reads and decodes its messages, with --decode."""

    def __init__(
        self,
        consumers: Consumers,
        consumer: Source,
        shared: _Shared | None = None,
        decoding: DecodingSource | None = None,
    ) -> None:
        self.consumer = consumer
        self._consumers = consumers
        self._shared = shared
        self._decoding = decoding
        self._ended = asyncio.Event()
        self._is_resting = False

    async def read(self) -> RenderedBatch | None:
        """The next batch; None at the end; SourceFailed if the consumer fails."""
        try:
            if self._decoding is None:
                batch = await self.consumer.read()
            else:
                batch = await self._read_decoded(self._decoding)
        except Exception as error:
            log_failure(f"a subscriber of {self.consumer.subscriptions[0]}", error)
            raise SourceFailed(error) from error
        return None if batch is None else RenderedBatch(batch)

    async def _read_decoded(self, decoding: DecodingSource) -> Batch | None:
        """The next batch. After `end` it is waited for LAST_READ s: it may wait for a registry that is away."""
        reading = asyncio.ensure_future(decoding.read())
        ended = asyncio.ensure_future(self._ended.wait())
        try:
            await asyncio.wait((reading, ended), return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait((reading,), timeout=LAST_READ)
            return reading.result() if reading.done() else None
        finally:
            ended.cancel()
            reading.cancel()
            await asyncio.wait((reading,))

    def memory(self) -> int:
        """Bytes that were received for the stream and not read."""
        if self._is_resting:
            return 0
        return self.consumer.unread_bytes + (0 if self._decoding is None else self._decoding.waiting_bytes)

    def end(self) -> None:
        """Let `read` return None; another stream that reads through the consumer meanwhile goes on."""
        self._ended.set()
        if not self._is_resting:
            self.consumer.end()

    def discard(self) -> None:
        """End at once; what was received and not read goes back to the channel."""
        self._ended.set()
        if not self._is_resting:
            self._give_back()
            self.consumer.discard()

    def rest(self) -> None:
        """Read no more. What was read may still be finished, requeued and touched until `close`."""
        if self._shared is None or self._is_resting:
            self.end()
            return
        self._is_resting = self._shared.is_resting = True
        self._give_back()
        self.consumer.rest()

    def _give_back(self) -> None:
        """Give back what was read and is not decoded."""
        if self._decoding is not None:
            self._decoding.give_back()

    async def close(self) -> None:
        """Give back what was not read, and close the consumer unless other streams need it. What was read and is not
        finished was requeued by the stream's session before (AckSessions.close)."""
        if self._shared is None:
            await self.consumer.close()
        else:
            if not self._is_resting:
                self._give_back()
                self.consumer.rest()
            await self._consumers.release(self._shared)


class Consumers:
    """All consumers of a gateway that belong to one stream, or to one at a time."""

    def __init__(self, options: GatewayOptions, budget: MemoryBudget) -> None:
        self._options = options
        self._budget = budget
        self._shared: dict[Key, list[_Shared]] = {}

    async def open(self, caller: str, params: SubscribeParams) -> ConsumerSource:
        """A source that has started. Raises what opening a consumer raises."""
        limit = params.count if params.where is None else None
        if not (params.acks and params.count and params.channel):
            source = Subscription(params.topic, params.channel or own_channel())
            consumer = await open_source(source, self._options, self._budget, params.max_in_flight, limit)
            return ConsumerSource(self, consumer, decoding=self._decoding(consumer))
        key = (caller, params.topic, params.channel, params.max_in_flight)
        for shared in self._shared.get(key, ()):
            consumer = shared.consumer
            if shared.is_resting and consumer.may_resume and consumer.in_flight + params.count <= params.max_in_flight:
                shared.is_resting = False
                shared.streams += 1
                consumer.resume(limit)
                return ConsumerSource(self, consumer, shared, shared.decoding)
        source = Subscription(params.topic, params.channel)
        consumer = await open_source(source, self._options, self._budget, params.max_in_flight, limit)
        shared = _Shared(key, consumer, self._decoding(consumer))
        self._shared.setdefault(key, []).append(shared)
        return ConsumerSource(self, consumer, shared, shared.decoding)

    def _decoding(self, consumer: Source) -> DecodingSource | None:
        return None if self._options.decoder is None else self._options.decoder.read(consumer)

    async def release(self, shared: _Shared) -> None:
        """A stream has ended; close the consumer if no other stream uses it."""
        shared.streams -= 1
        if shared.streams:
            return
        some = self._shared[shared.key]
        some.remove(shared)
        if not some:
            del self._shared[shared.key]
        await shared.consumer.close()
