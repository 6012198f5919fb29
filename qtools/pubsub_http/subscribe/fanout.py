"""One temporary channel for all subscribers of a topic without a channel. In: topics. Out: a source for each reader.

A subscriber without a channel gets a copy of each message from now on. All such readers of a topic share one temporary
channel: a batch is finished when it arrives, and handed to each reader. What a reader has not taken waits here, as it
would in a channel of its own, where nsqd drops messages beyond --mem-queue-size too. A slow reader misses messages, and
the others do not; when all of them are slow, reading from the broker pauses.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import deque
from collections.abc import Callable, Sequence

from qtools.engines.contract import Source, SourceOptions
from qtools.errors import TopicMissing, UsageError
from qtools.names import EPHEMERAL, Subscription
from qtools.pubsub_http.options import BACKLOG, GatewayOptions
from qtools.pubsub_http.subscribe.delivery import SourceFailed, log_failure
from qtools.pubsub_http.subscribe.rendered_batch import RenderedBatch
from qtools.web.memory_budget import MemoryBudget
from qtools.web.request_body import Refusal

log = logging.getLogger("qtools.pubsub")

AHEAD = 8 * 1024 * 1024  # bytes that may wait for the fastest reader before reading from the broker pauses
VALUE_WEIGHT = 10  # bytes of memory that the values of a byte of Avro or Protobuf take, in about
MOST_BYTES = 64 * 1024 * 1024  # that may wait for any reader; the readers share the batches


def own_channel() -> str:
    """A name for a temporary channel, which no other has."""
    return f"q-pubsub-{os.getpid()}-{os.urandom(4).hex()}{EPHEMERAL}"


async def open_source(
    subscription: Subscription, options: GatewayOptions, budget: MemoryBudget, max_in_flight: int, limit: int | None
) -> Source:
    """A source that has started; StartError, or Refusal: 409 where a temporary channel would take the only messages,
    404 for a topic that does not exist, where the engine creates none by itself."""
    guarded = (subscription,) if subscription.channel.endswith(EPHEMERAL) else ()
    source = options.engine.source(
        [subscription], SourceOptions(max_in_flight=max_in_flight, limit=limit, guarded=guarded, warns=False)
    )
    try:
        await source.prepare()
    except UsageError as error:
        raise Refusal(409, "TOPIC_HAS_NO_CHANNEL", str(error)) from error
    except TopicMissing as error:
        raise Refusal(404, "TOPIC_NOT_FOUND", str(error)) from error
    source.on_received = budget.note
    await source.start()
    return source


class FanoutReader:
    """The source of one reader of a fanout."""

    def __init__(self, fanout: Fanout, most: int) -> None:
        self.dropped = 0  # messages
        self.waiting = 0  # bytes
        self.current: RenderedBatch | None = None  # the one that was read last, and is being sent
        self.cut: Callable[[], str | None] = lambda: None  # ends the client's connection; returns a text that names it
        self._fanout = fanout
        self._most = most
        self._messages = 0
        self._rendered: deque[RenderedBatch] = deque()
        self._something = asyncio.Event()
        self._ended = False
        self._error: Exception | None = None  # why nothing more can be read

    def offer(self, rendered: RenderedBatch) -> None:
        """Queue a batch for the client, or drop it."""
        if self._messages and (self._messages + len(rendered) > self._most or self.waiting > MOST_BYTES):
            if not self.dropped:
                log.warning("a reader of %s is too slow: it misses messages", self._fanout.topic)
            self.dropped += len(rendered)
            self._fanout.fanouts.dropped += len(rendered)
            return
        self._rendered.append(rendered)
        self._messages += len(rendered)
        self.waiting += rendered.size
        self._something.set()

    def held(self) -> Sequence[RenderedBatch]:
        """What waits, and what is being sent."""
        return self._rendered if self.current is None else [self.current, *self._rendered]

    def memory(self) -> int:
        """0: readers share their batches, so the fanout counts them."""
        return 0

    def shed(self) -> str | None:
        """Disconnect the client and drop what it has not read; return a text that names it, or None if it has none."""
        what = self.cut()
        if what is not None:
            self.discard()
        return what

    def discard(self) -> None:
        """End, and drop what has not been read."""
        self._rendered.clear()
        self._messages = self.waiting = 0
        self.current = None
        self.end()
        self._fanout.room.set()

    async def read(self) -> RenderedBatch | None:
        """The next batch; None at the end. SourceFailed once all was read that came before the fanout failed."""
        self.current = None
        while not self._rendered:
            if self._error is not None:
                raise SourceFailed(self._error) from self._error
            if self._ended:
                return None
            self._something.clear()
            await self._something.wait()
        rendered = self._rendered.popleft()
        self._messages -= len(rendered)
        self.waiting -= rendered.size
        self.current = rendered
        if self.waiting < AHEAD:
            self._fanout.room.set()
        return rendered

    def end(self) -> None:
        self._ended = True
        self._something.set()

    def fail(self, error: Exception) -> None:
        """Let `read` raise SourceFailed because of `error`, after what is queued."""
        self._error = error
        self._something.set()

    async def close(self) -> None:
        self.end()
        await self._fanout.leave(self)


class Fanout:
    """One topic's temporary channel."""

    def __init__(self, fanouts: Fanouts, topic: str) -> None:
        self.fanouts = fanouts
        self.topic = topic
        self.room = asyncio.Event()  # set when a reader has read
        self.readers: list[FanoutReader] = []
        self.started = asyncio.create_task(self._start(fanouts.options))
        self._source: Source | None = None
        self._decoder = fanouts.options.decoder
        self._pump: asyncio.Task[None] | None = None

    async def _start(self, options: GatewayOptions) -> None:
        subscription = Subscription(self.topic, own_channel())
        self._source = await open_source(subscription, options, self.fanouts.budget, options.max_in_flight, None)
        self._pump = asyncio.create_task(self._run(self._source))

    async def _run(self, source: Source) -> None:
        """Distribute until the source ends or fails, and then end the readers. The next subscriber gets a new fanout;
        this one is closed when its last reader leaves."""
        try:
            await self._distribute(source)
        except Exception as error:
            log_failure(f"the subscribers of {self.topic} that have no channel", error)
            for reader in self.readers:
                reader.fail(error)
        else:
            for reader in self.readers:
                reader.end()
        self.fanouts.retire(self)

    async def _distribute(self, source: Source) -> None:
        decoder = self._decoder
        read = source.read if decoder is None else decoder.read(source).read
        weight = 1 if decoder is None else VALUE_WEIGHT
        while (batch := await read()) is not None:
            batch.finish()  # whatever the readers do with it
            rendered = RenderedBatch(batch, shared=True, weight=weight)
            for reader in self.readers:
                reader.offer(rendered)
            while self.readers and min(reader.waiting for reader in self.readers) > AHEAD:
                self.room.clear()
                await self.room.wait()

    def memory(self) -> int:
        """Bytes of what the readers have not read. What waits for one is the end of what waits for the slowest."""
        if not self.readers:
            return 0
        slowest = max(self.readers, key=_backlog)
        rendered_batches = {id(rendered): rendered for rendered in slowest.held()}
        rendered_batches.update(
            (id(reader.current), reader.current) for reader in self.readers if reader.current is not None
        )
        return sum(rendered.memory() for rendered in rendered_batches.values())

    def shed(self) -> str | None:
        """End the slowest reader."""
        for reader in sorted(self.readers, key=_backlog, reverse=True):
            if _backlog(reader) and (what := reader.shed()) is not None:
                return what
        return None

    async def leave(self, reader: FanoutReader) -> None:
        if reader in self.readers:
            self.readers.remove(reader)
        self.room.set()
        if not self.readers:
            self.fanouts.forget(self)
            await self.close()

    async def close(self) -> None:
        self.started.cancel()
        if self._pump is not None:
            self._pump.cancel()
        if self._source is not None:
            source, self._source = self._source, None
            await source.close()


def _backlog(reader: FanoutReader) -> int:
    """Bytes that a reader has not sent."""
    return reader.waiting + (0 if reader.current is None else reader.current.size)


class Fanouts:
    """The fanouts of a gateway, by topic."""

    def __init__(self, options: GatewayOptions, budget: MemoryBudget) -> None:
        self.options = options
        self.budget = budget
        self.dropped = 0
        self._fanouts: dict[str, Fanout] = {}

    async def join(self, topic: str) -> FanoutReader:
        """A reader of `topic`, from now on. Raises what opening the channel raises."""
        fanout = self._fanouts.get(topic)
        if fanout is None:
            fanout = self._fanouts[topic] = Fanout(self, topic)
            self.budget.add(fanout)
        reader = FanoutReader(fanout, self.options.backlog or BACKLOG)
        fanout.readers.append(reader)
        try:
            await asyncio.shield(fanout.started)
        except BaseException:
            await reader.close()
            raise
        return reader

    def forget(self, fanout: Fanout) -> None:
        """Neither join `fanout` any more, nor count its memory."""
        self.budget.remove(fanout)
        self.retire(fanout)

    def retire(self, fanout: Fanout) -> None:
        """Let no other subscriber join `fanout`."""
        if self._fanouts.get(fanout.topic) is fanout:
            del self._fanouts[fanout.topic]

    @property
    def upstream(self) -> int:
        return len(self._fanouts)

    async def close(self) -> None:
        for fanout in tuple(self._fanouts.values()):
            await fanout.close()
