"""The short way (web/fast_path.py) for what is asked most: `POST /pub?topic=NAME`, and nothing else about it.

In: heads and bodies of such requests. Out: the answers that api/asgi_app.py would give, for the same reasons in the
same order.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial

from qtools.pubsub_http.api.access import Access, Head, refuse_unless
from qtools.pubsub_http.api.asgi_app import Answer, App, published, refused
from qtools.pubsub_http.publish.publish_batcher import PublishBatcher
from qtools.web import fast_path
from qtools.web.request_body import Headers, Refusal

log = logging.getLogger("qtools.pubsub")


class ShortPub:
    """`max_message`: bytes."""

    def __init__(self, app: App, access: Access, batcher: PublishBatcher, max_message: int) -> None:
        self._app = app
        self._access = access
        self._batcher = batcher
        self._max_message = max_message

    def __call__(self, target: bytes, headers: Headers, length: int, secure: bool) -> fast_path.Handler | None:
        topic = fast_path.plain_pub(target)
        if topic is None or length > self._max_message or log.isEnabledFor(logging.INFO):
            return None
        head = dict(headers)
        if b"idempotency-key" in head:
            return None
        try:
            self._access.admit(head, secure)
            refuse_unless(self._access.identify(head).may_publish(topic), f"publish to {topic}")
        except Refusal as refusal:
            told = refused(refusal)
            return lambda body, answer: self._answer(head, answer, told)
        return partial(self._publish, topic, head)

    def _publish(self, topic: str, head: Head, body: bytes, answer: fast_path.Answer) -> None:
        self._batcher.hand_in(topic, (body,)).add_done_callback(partial(self._answered, head, answer))

    def _answered(self, head: Head, answer: fast_path.Answer, done: asyncio.Future[None]) -> None:
        error = done.exception()
        if error is None:
            self._answer(head, answer, published(1))
        else:
            if not isinstance(error, Refusal):
                log.error("internal error in /pub: %s: %s", type(error).__name__, error)
                error = Refusal(500, "INTERNAL_ERROR")
            self._answer(head, answer, refused(error))

    def _answer(self, head: Head, answer: fast_path.Answer, told: Answer) -> None:
        self._app.count(told.status)
        answer(fast_path.whole(told.status, self._app.headers(told, head), told.body))
