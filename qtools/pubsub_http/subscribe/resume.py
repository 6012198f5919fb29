"""Event streams that break and come back with a Last-Event-ID. In: that id. Out: ids of messages that have arrived.

    id: MESSAGE:STREAM      the id of an event names its message and the stream that sent it

The events of a stream arrive in order. So of what a broken stream had sent, everything up to the last event that its
client has seen has arrived, also where the client's kernel had not acknowledged it; it is finished when it comes again.
What of it had not come again when the next stream of that client breaks too, is known to the stream after that one.
The id of another stream means nothing for these messages: one message may be sent by several streams in turn.

A stream is known by the worker that served it; the others ask that one (pubsub_http/worker_proxy.py).
"""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from qtools.web.memory_budget import OVERHEAD

MOST = 1000  # broken streams that are remembered, and
MOST_IDS = 200_000  # ids of messages in all; the oldest streams are forgotten first
END_SECONDS = 2.0  # that a stream has to end in, once its client has come back on another connection
LONGEST = 128  # characters of a Last-Event-ID


@dataclass(frozen=True, slots=True)
class Resume:
    """A client's request to go on after `last`, the id of a message of `stream`. `caller` is the name of its token."""

    caller: str
    topic: str
    channel: str
    stream: str
    last: str


class EventStream:
    """One stream of events that may be resumed. `cut` ends it at once."""

    __slots__ = ("caller", "channel", "cut", "ended", "expected", "name", "topic", "unsettled")

    def __init__(self, name: str, caller: str, topic: str, channel: str, cut: Callable[[], None]) -> None:
        self.name = name
        self.caller, self.topic, self.channel = caller, topic, channel
        self.cut = cut
        self.ended = asyncio.Event()
        # Once it has ended, ids of messages: sent and perhaps not taken, in order; arrived earlier, and not come again.
        self.unsettled: list[bytes] = []
        self.expected: set[bytes] = set()

    @property
    def suffix(self) -> bytes:
        """What follows the message's id in the ids of this stream's events."""
        return b":" + self.name.encode()

    def belongs_to(self, resume: Resume) -> bool:
        return (self.caller, self.topic, self.channel) == (resume.caller, resume.topic, resume.channel)


def parse_last_event_id(value: bytes, caller: str, topic: str, channel: str) -> Resume | None:
    """What a Last-Event-ID asks for; None when no stream of a gateway has sent it."""
    last, colon, stream = value.decode("latin-1").partition(":")
    if not colon or not last or not stream or len(value) > LONGEST:
        return None
    return Resume(caller, topic, channel, stream, last)


class Resumption:
    """The event streams of one gateway process. prefix: of their names; tells other workers which worker has them.

    ask_owner: asks the worker that served a stream; None in a single process. [] for an unknown stream.
    """

    def __init__(self, prefix: str) -> None:
        self.ask_owner: Callable[[Resume], Awaitable[list[str]]] | None = None
        self._prefix = prefix
        self._open: dict[str, EventStream] = {}
        self._broken: OrderedDict[str, EventStream] = OrderedDict()
        self._ids = 0

    def open(self, caller: str, topic: str, channel: str, cut: Callable[[], None]) -> EventStream:
        stream = EventStream(f"{self._prefix}{secrets.token_urlsafe(9)}", caller, topic, channel, cut)
        self._open[stream.name] = stream
        return stream

    def close(self, stream: EventStream, unsettled: list[bytes], expected: set[bytes]) -> None:
        """The stream is over. `unsettled` were sent and perhaps not taken; they go back, and may come once more.
        `expected` had arrived by an earlier stream, and have not come again yet."""
        del self._open[stream.name]
        stream.unsettled, stream.expected = unsettled, expected
        if unsettled or expected:
            self._broken[stream.name] = stream
            self._ids += len(unsettled) + len(expected)
            while len(self._broken) > MOST or self._ids > MOST_IDS:
                _, oldest = self._broken.popitem(last=False)
                self._ids -= len(oldest.unsettled) + len(oldest.expected)
        stream.ended.set()

    def memory(self) -> int:
        """Bytes of what is remembered of broken streams."""
        return self._ids * OVERHEAD

    def shed(self) -> str | None:
        """Forget the stream that broke longest ago; where its client comes back, it gets some messages again."""
        if not self._broken:
            return None
        name, oldest = self._broken.popitem(last=False)
        self._ids -= len(oldest.unsettled) + len(oldest.expected)
        return f"forgot what had arrived of the broken event stream {name}"

    async def arrived(self, resume: Resume) -> set[bytes]:
        """The ids of the messages that have arrived, wherever the stream was served."""
        if resume.stream.startswith(self._prefix) or self.ask_owner is None:
            ids = await self.arrived_here(resume)
        else:
            ids = await self.ask_owner(resume)
        return {ident.encode("latin-1") for ident in ids}

    async def arrived_here(self, resume: Resume) -> list[str]:
        """The same of a stream of this process. A stream that is still open is cut: its client has lost the connection,
        and what it left unfinished can go back now."""
        stream = self._open.get(resume.stream)
        if stream is not None and stream.belongs_to(resume):
            stream.cut()
            try:
                async with asyncio.timeout(END_SECONDS):
                    await stream.ended.wait()
            except TimeoutError:
                return []
        stream = self._broken.get(resume.stream)
        if stream is None or not stream.belongs_to(resume):
            return []
        last = resume.last.encode("latin-1")
        upto = stream.unsettled.index(last) + 1 if last in stream.unsettled else 0
        return [ident.decode("latin-1") for ident in {*stream.expected, *stream.unsettled[:upto]}]
