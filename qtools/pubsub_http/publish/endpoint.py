"""/pub and /mpub. In: requests. Out: messages in topics, and what the broker said.

    a body of announced length, up to max_body    read whole, looked through, published: all of it or nothing
    a compressed body                             the same, whatever its length: no more than max_body comes out of it
    any other, endless ones too                   published as it comes; at most HELD bytes and WINDOW batches are here

The answer comes after the broker's OK. Where a stream breaks, it says how many messages were published before.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING

from qtools.errors import InputError
from qtools.formats.lines import DelimiterSplitter, LengthSplitter, Splitter
from qtools.pubsub_http.publish.idempotency import LONGEST, Idempotency
from qtools.pubsub_http.publish.publish_batcher import PublishBatcher, PublishRefused
from qtools.web.content_codings import encoding, read_decoded
from qtools.web.request_body import Receive, Refusal, announced, split_binary

if TYPE_CHECKING:
    from qtools.pubsub_http.api.asgi_app import Request

WINDOW = 4  # batches of one stream that may be unanswered
HELD = 256 * 1024  # bytes of one stream that wait for one of them

Sent = tuple["asyncio.Future[None]", int]  # the answer to a batch, and how many messages it has
Do = Callable[[], Awaitable[int]]

# What a body is, by its Content-Type; anything else is lines, as nsqd takes it.
FORMS = {
    b"application/vnd.qtools.length32": "length32",
    b"application/x-length32": "length32",
    b"application/msgpack": "msgpack",
    b"application/x-msgpack": "msgpack",
    b"application/vnd.msgpack": "msgpack",
    b"application/vnd.qtools.envelope": "envelope",
}


class PublishEndpoint:
    """max_message, max_body: bytes, as nsqd's --max-msg-size and --max-body-size."""

    def __init__(self, batcher: PublishBatcher, idempotency: Idempotency, max_message: int, max_body: int) -> None:
        self._batcher = batcher
        self._idempotency = idempotency
        self._max_message = max_message
        self._max_body = max_body

    # An exception that is kept and raised again keeps the frames that it was raised in, bodies and all.
    def _too_big(self) -> Refusal:
        return Refusal(413, "MSG_TOO_BIG", f"a message may have {self._max_message} bytes")

    def _body_too_big(self) -> Refusal:
        return Refusal(413, "BODY_TOO_BIG", f"a body that is taken whole may have {self._max_body} bytes")

    def takes_plain(self, head: Mapping[bytes, bytes], length: int) -> bool:
        """Whether `publish_plain` is all that `pub` does with a body of `length` bytes and no Content-Encoding."""
        return 0 < length <= self._max_message and b"idempotency-key" not in head

    def publish_plain(self, topic: str, body: bytes) -> asyncio.Future[None]:
        """Publish one message; the future ends with the broker's OK, or a Refusal."""
        return self._batcher.hand_in(topic, (body,))

    async def pub(self, request: Request) -> int:
        """Publish the body; how many messages that were."""
        body = await read_decoded(request.scope, request.receive, self._max_message, self._too_big)
        if not body:
            raise Refusal(400, "MSG_EMPTY", "a message has at least one byte")
        topic, delay_ms = request.values["topic"], request.values["defer"]
        key = _key(request)
        if key is None and not delay_ms:
            await self.publish_plain(topic, body)
            return 1

        async def do() -> int:
            if delay_ms:
                await self._batcher.defer(topic, body, delay_ms)
            else:
                await self.publish_plain(topic, body)
            return 1

        return await self._once(request, key, body, do)

    async def mpub(self, request: Request) -> int:
        """Publish the messages in the body; how many they were."""
        topic = request.values["topic"]
        form = self._form(request)
        key = _key(request)
        length = announced(request.scope)
        is_long = length is None or length > self._max_body
        if is_long and key is None and form != "binary" and not encoding(request.scope):
            tracked = request.scope.get("tracked")
            if tracked is not None:
                tracked.streams_body = True
            return await self._stream(topic, request.receive, self._splitter(form))
        body = await read_decoded(request.scope, request.receive, self._max_body, self._body_too_big)
        bodies = self._taken_apart(form, body)
        if not bodies:
            return 0

        async def do() -> int:
            try:
                await self._batcher.hand_in(topic, bodies)
            except PublishRefused as refused:
                raise _broken(refused, len(bodies) - refused.count) from refused
            return len(bodies)

        return await self._once(request, key, body, do)

    async def _once(self, request: Request, key: bytes | None, body: bytes, do: Do) -> int:
        if key is None:
            return await do()
        where = (request.caller.name, request.scope["path"], request.scope["query_string"].decode("latin-1"))
        count, request.replayed = await self._idempotency.once((*where, key.decode("latin-1")), body, do)
        return count

    # ── whole bodies ──

    def _form(self, request: Request) -> str:
        asked: str | None = request.values["format"]
        if request.values["binary"]:
            if asked is not None:
                raise Refusal(400, "INVALID_ARG_BINARY", "give binary or format, not both")
            return "binary"
        if asked is not None:
            return asked
        told = request.head.get(b"content-type", b"").partition(b";")[0].strip().lower()
        return FORMS.get(told, "lines")

    def _splitter(self, form: str) -> Splitter:
        if form == "length32":
            return LengthSplitter(self._max_message)
        if form == "lines":
            return DelimiterSplitter(b"\n", self._max_message)
        from qtools.formats.envelope import EnvelopeSplitter, MsgpackSplitter

        # An envelope is longer than what is in it: six times where every byte is escaped, and what goes around it.
        return (
            MsgpackSplitter(self._max_message) if form == "msgpack" else EnvelopeSplitter(6 * self._max_message + 4096)
        )

    def _taken_apart(self, form: str, body: bytes) -> list[bytes]:
        """All messages in `body`, of which each has to be good."""
        if form == "binary":
            return split_binary(body, self._max_message, self._max_body)
        splitter = self._splitter(form)
        try:
            bodies = splitter.feed(body)
            bodies += splitter.end()
        except InputError as error:
            raise self._refusal(error) from error
        if bodies and max(map(len, bodies)) > self._max_message:
            raise self._too_big()
        return bodies

    def _refusal(self, error: InputError) -> Refusal:
        if error.too_long:
            return Refusal(413, "MSG_TOO_BIG", str(error))
        return Refusal(400, "BAD_MESSAGE", str(error))

    # ── streams ──

    async def _stream(self, topic: str, receive: Receive, splitter: Splitter) -> int:
        """Publish what comes as it comes; how many messages it was."""
        sent: deque[Sent] = deque()
        held: list[bytes] = []
        held_bytes = published = 0
        trouble: Refusal | None = None
        more = True
        while more and trouble is None:
            message = await receive()
            more = bool(message.get("more_body"))
            if message["type"] == "http.disconnect":
                trouble = Refusal(400, "INVALID_REQUEST", "the body did not end")  # a cut message is none
                break
            bodies, trouble = self._split(splitter, message.get("body", b""), more)
            held += bodies
            held_bytes += sum(map(len, bodies))
            while sent and trouble is None and (sent[0][0].done() or (len(sent) == WINDOW and held_bytes > HELD)):
                count, trouble = await _outcome(*sent.popleft())
                published += count
            if held and len(sent) < WINDOW:
                sent.append((self._batcher.hand_in(topic, held), len(held)))
                held, held_bytes = [], 0
        if held and not isinstance(trouble, PublishRefused):
            sent.append((self._batcher.hand_in(topic, held), len(held)))
        for done, number in sent:
            count, refusal = await _outcome(done, number)
            published += count
            trouble = trouble or refusal
        if trouble is not None:
            raise _broken(trouble, published)
        return published

    def _split(self, splitter: Splitter, chunk: bytes, more: bool) -> tuple[list[bytes], Refusal | None]:
        """The messages that end in `chunk`, and what ends the stream, if something does."""
        bodies: list[bytes] = []
        trouble: Refusal | None = None
        try:
            bodies += splitter.feed(chunk)
            if not more:
                bodies += splitter.end()
        except InputError as error:
            trouble = self._refusal(error)
        if bodies and max(map(len, bodies)) > self._max_message:
            first = next(place for place, body in enumerate(bodies) if len(body) > self._max_message)
            return bodies[:first], self._too_big()
        return bodies, trouble


def _key(request: Request) -> bytes | None:
    """The request's Idempotency-Key. Raises Refusal 400."""
    key = request.head.get(b"idempotency-key")
    if key is not None and not 0 < len(key) <= LONGEST:
        raise Refusal(400, "INVALID_IDEMPOTENCY_KEY", f"an Idempotency-Key has 1 to {LONGEST} characters")
    return key


async def _outcome(done: asyncio.Future[None], count: int) -> tuple[int, Refusal | None]:
    """How many messages of a batch of `count` were published, and what went wrong."""
    try:
        await done
    except PublishRefused as refused:
        return count - refused.count, refused
    except Refusal as refusal:
        return 0, refusal
    return count, None


def _broken(refusal: Refusal, published: int) -> Refusal:
    """The refusal of a body of which some is published already."""
    return Refusal(refusal.status, refusal.word, refusal.detail, refusal.headers, {"published": published})
