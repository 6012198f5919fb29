"""/finish, /requeue, /touch: acknowledgements by clients. In: a session, ids. Out: how many were in flight."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import orjson

from qtools.pubsub_http.api.asgi_app import Answer, json_answer
from qtools.pubsub_http.subscribe.sessions import AckSession, AckSessions, Result
from qtools.web.content_codings import read_decoded
from qtools.web.request_body import Refusal

if TYPE_CHECKING:
    from qtools.pubsub_http.api.asgi_app import Request

MOST = 1024 * 1024  # bytes of a list of ids: 60,000 of them


class Acknowledging:
    """Serves /finish, /requeue and /touch."""

    def __init__(self, sessions: AckSessions) -> None:
        self._sessions = sessions
        self._now = asyncio.get_running_loop().time

    async def finish(self, request: Request) -> Answer:
        ids = await _ids(request)
        return _answer("finished", self._session(request).finish(ids))

    async def requeue(self, request: Request) -> Answer:
        ids = await _ids(request)
        return _answer("requeued", self._session(request).requeue(ids, request.values["delay"]))

    async def touch(self, request: Request) -> Answer:
        ids = await _ids(request)
        return _answer("touched", self._session(request).touch(ids, self._now()))

    def _session(self, request: Request) -> AckSession:
        return self._sessions.find(request.values["session"], request.caller)


def _answer(word: str, result: Result) -> Answer:
    count, unknown = result
    return json_answer({word: count, "unknown": unknown})


async def _ids(request: Request) -> list[str]:
    """The ids in the query, and in the body: an array of JSON, or one a line."""
    body = await read_decoded(
        request.scope, request.receive, MOST, lambda: Refusal(413, "BODY_TOO_BIG", f"at most {MOST} bytes")
    )
    ids: list[str] = list(request.values["id"])
    kind = request.head.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if kind == b"application/json" and body:
        try:
            value = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise Refusal(400, "BAD_BODY", f"the body is not JSON: {error}") from error
        if not isinstance(value, list) or not all(isinstance(ident, str) for ident in value):
            raise Refusal(400, "BAD_BODY", "the body is not an array of message ids")
        ids += value
    else:
        ids += body.decode("latin-1").split()
    if not ids:
        raise Refusal(400, "MISSING_ARG_ID", "name the messages: ids in the body, one a line, or id=… in the query")
    return ids
