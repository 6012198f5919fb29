"""The fast path (web/fast_path.py) for the most frequent request: `POST /pub?topic=NAME` without further parameters.

In: heads and bodies of such requests. Out: the answers that the application (api/asgi_app.py) gives to them.

Both use the same functions for all that is decided: App.admit whether the request is allowed, publish_plain of the
endpoint to publish, answer_to and published for the answer. What is left here is how a request arrives and how its
answer leaves, without a task and without ASGI's messages.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial

from qtools.pubsub_http.api.access import Head
from qtools.pubsub_http.api.asgi_app import Answer, App, answer_to, published
from qtools.pubsub_http.publish.endpoint import PublishEndpoint
from qtools.web import fast_path
from qtools.web.request_body import Headers

log = logging.getLogger("qtools.pubsub")

_PATH = b"/pub?"


class PublishFastPath:
    """Finds the handlers of requests that may take the fast path (web/fast_path.py, FindHandler)."""

    def __init__(self, app: App, endpoint: PublishEndpoint) -> None:
        self._app = app
        self._endpoint = endpoint

    def __call__(self, target: bytes, headers: Headers, length: int, secure: bool) -> fast_path.Handler | None:
        topic = fast_path.plain_pub(target)
        if topic is None or log.isEnabledFor(logging.INFO):  # the application logs each request
            return None
        head = dict(headers)
        if not self._endpoint.takes_plain(head, length):
            return None
        try:
            self._app.admit("POST", "/pub", target[len(_PATH) :], head, secure)
        except Exception as error:
            refusal = answer_to(error, "POST /pub")
            return lambda body, respond: self._respond(head, respond, refusal)
        return partial(self._publish, topic, head)

    def _publish(self, topic: str, head: Head, body: bytes, respond: fast_path.Answer) -> None:
        self._endpoint.publish_plain(topic, body).add_done_callback(partial(self._published, head, respond))

    def _published(self, head: Head, respond: fast_path.Answer, done: asyncio.Future[None]) -> None:
        error = done.exception()
        answer = published(1) if error is None else answer_to(error, "POST /pub")
        self._respond(head, respond, answer)

    def _respond(self, head: Head, respond: fast_path.Answer, answer: Answer) -> None:
        self._app.count(answer.status)
        respond(fast_path.whole(answer.status, self._app.headers(answer, head), answer.body))
