"""/pub and /mpub. In: requests. Out: messages in topics, and the number of those that the broker has confirmed.

    a body of announced length, up to max_body    read and checked as a whole, then published: all of it or nothing
    a compressed body                             the same, whatever its length; at most max_body after decoding
    any other, also an endless one                published as it arrives; at most HELD bytes and WINDOW batches wait

The answer is sent after the broker's OK. For a stream that breaks it has the number of messages published before.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING

from qtools.attributes import TOMBSTONE
from qtools.engines.capabilities import Capabilities, what_is_missing
from qtools.pubsub_http.api.parameters import Values
from qtools.pubsub_http.publish.body_messages import BodyMessages, GivenAttributes, MessageGroup
from qtools.pubsub_http.publish.idempotency import LONGEST, Idempotency
from qtools.pubsub_http.publish.publish_batcher import PublishBatcher, PublishRefused
from qtools.web.content_codings import encoding, read_decoded
from qtools.web.request_body import Refusal, announced, split_binary

if TYPE_CHECKING:
    from qtools.pubsub_http.api.asgi_app import Request

WINDOW = 4  # batches of one stream that may be unanswered
HELD = 256 * 1024  # bytes of one stream that wait until the next batch can be sent

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
    """capabilities: of the engine. max_message, max_body: bytes, as nsqd's --max-msg-size and --max-body-size."""

    def __init__(
        self,
        batcher: PublishBatcher,
        idempotency: Idempotency,
        capabilities: Capabilities,
        max_message: int,
        max_body: int,
    ) -> None:
        self._batcher = batcher
        self._idempotency = idempotency
        self._capabilities = capabilities
        self._max_message = max_message
        self._max_body = max_body

    # A new exception each time: one that is raised again would keep the frames of the first time, with their bodies.
    def _too_big(self) -> Refusal:
        return BodyMessages.too_big(self._max_message)

    def _body_too_big(self) -> Refusal:
        return Refusal(413, "BODY_TOO_BIG", f"a body that is taken whole may have {self._max_body} bytes")

    def takes_plain(self, head: Mapping[bytes, bytes], length: int) -> bool:
        """Whether `publish_plain` is all that `pub` does with a body of `length` bytes and no Content-Encoding."""
        return 0 < length <= self._max_message and b"idempotency-key" not in head

    def publish_plain(self, topic: str, body: bytes) -> asyncio.Future[None]:
        """Publish one message; the future ends with the broker's OK, or a Refusal."""
        return self._batcher.submit(topic, (body,))

    async def pub(self, request: Request) -> int:
        """Publish the body as one message; return 1."""
        body = await read_decoded(request.scope, request.receive, self._max_message, self._too_big)
        if request.values["tombstone"]:
            if body:
                raise Refusal(400, "INVALID_ARG_TOMBSTONE", "a tombstone has no body: leave out the body, or tombstone")
            body = TOMBSTONE
        elif not body and (missing := what_is_missing(self._capabilities, "empty_messages")):
            raise Refusal(400, "MSG_EMPTY", f"{missing}: a message has at least one byte")
        topic, delay_ms = request.values["topic"], request.values["defer"]
        attributes = _given(request.values).replace_in(None, 1)
        key = _key(request)

        async def do() -> int:
            if delay_ms:
                await self._batcher.defer(topic, body, delay_ms, attributes)
            else:
                await self._batcher.submit(topic, (body,), attributes)
            return 1

        return await self._once(request, key, body, do)

    async def mpub(self, request: Request) -> int:
        """Publish the messages in the body; return their number."""
        topic = request.values["topic"]
        form = self._form(request)
        key = _key(request)
        length = announced(request.scope)
        is_long = length is None or length > self._max_body
        if is_long and key is None and form != "binary" and not encoding(request.scope):
            tracked = request.scope.get("tracked")
            if tracked is not None:
                tracked.streams_body = True
            return await self._stream(topic, request, self._body_messages(form, request))
        body = await read_decoded(request.scope, request.receive, self._max_body, self._body_too_big)
        messages = self._body_messages(form, request)
        if form == "binary":
            group = MessageGroup(split_binary(body, self._max_message, self._max_body), [])
        else:
            group, failure = messages.split(body, False)
            if failure is not None:
                raise failure
        bodies, request.warning = group.bodies, messages.warning
        if not bodies:
            return 0

        async def do() -> int:
            try:
                await self._batcher.submit(topic, bodies, messages.attributes_of(group))
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
        media_type = request.head.get(b"content-type", b"").partition(b";")[0].strip().lower()
        return FORMS.get(media_type, "lines")

    def _body_messages(self, form: str, request: Request) -> BodyMessages:
        return BodyMessages(
            "lines" if form == "binary" else form, self._capabilities, _given(request.values), self._max_message
        )

    # ── streams ──

    async def _stream(self, topic: str, request: Request, messages: BodyMessages) -> int:
        """Publish the messages of a body as they arrive; return their number."""

        def submit(group: MessageGroup) -> Sent:
            return self._batcher.submit(topic, group.bodies, messages.attributes_of(group)), len(group.bodies)

        sent: deque[Sent] = deque()
        waiting = MessageGroup([], [])
        waiting_bytes = published = 0
        failure: Refusal | None = None
        more = True
        while more and failure is None:
            message = await request.receive()
            more = bool(message.get("more_body"))
            if message["type"] == "http.disconnect":
                failure = Refusal(
                    400, "INVALID_REQUEST", "the body did not end"
                )  # a message that was cut off is not published
                break
            chunk = message.get("body", b"")
            group, failure = messages.split(chunk, more)
            waiting.extend(group)
            waiting_bytes += len(chunk)
            while sent and failure is None and (sent[0][0].done() or (len(sent) == WINDOW and waiting_bytes > HELD)):
                count, failure = await _outcome(*sent.popleft())
                published += count
            if waiting.bodies and len(sent) < WINDOW:
                sent.append(submit(waiting))
                waiting, waiting_bytes = MessageGroup([], []), 0
        if waiting.bodies and not isinstance(failure, PublishRefused):
            sent.append(submit(waiting))
        for done, number in sent:
            count, refusal = await _outcome(done, number)
            published += count
            failure = failure or refusal
        request.warning = messages.warning
        if failure is not None:
            raise _broken(failure, published)
        return published


def _given(values: Values) -> GivenAttributes:
    """The key and the headers in the query of a request. Raises Refusal 400."""
    key: bytes | None = values["key"]
    if (packed := values["key_base64"]) is not None:
        if key is not None:
            raise Refusal(400, "INVALID_ARG_KEY_BASE64", "give key or key_base64, not both")
        key = packed
    return GivenAttributes(key, values["header"])


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
