"""GET /topics: what waits in topics and channels, for the page. In: the engine's statistics. Out: topics and channels,
and what the engine can do.

However many pages ask, the brokers are asked at most once in FRESH seconds.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from qtools.errors import NetworkError, PeerError, StartError
from qtools.pubsub_http.api.asgi_app import Answer, json_answer
from qtools.pubsub_http.options import GatewayOptions
from qtools.pubsub_http.publish.publish_batcher import RETRY_AFTER
from qtools.web.request_body import Refusal

if TYPE_CHECKING:
    from qtools.pubsub_http.api.asgi_app import Request
    from qtools.pubsub_http.api.tokens import Caller

FRESH = 0.5  # s

Row = dict[str, Any]


class TopicDepths:
    """Asks the brokers of a gateway."""

    def __init__(self, options: GatewayOptions) -> None:
        self._statistics = options.engine.statistics()
        self._capabilities = options.engine.capabilities
        self._asked = 0.0
        self._asking: asyncio.Task[list[Row]] | None = None
        self._loop = asyncio.get_running_loop()

    async def topics(self, request: Request) -> Answer:
        """GET /topics: the topics and channels that the caller may see."""
        if self._asking is None or (self._asking.done() and self._loop.time() - self._asked > FRESH):
            self._asked = self._loop.time()
            self._asking = asyncio.create_task(self._statistics.topics())
        try:
            found = await asyncio.shield(self._asking)
        except (StartError, NetworkError, PeerError) as error:
            raise Refusal(503, "BROKER_UNAVAILABLE", str(error), RETRY_AFTER) from error
        visible = (_visible_to(request.caller, topic) for topic in found)
        engine = {"name": self._capabilities.engine, "capabilities": self._capabilities.names()}
        return json_answer({"topics": [topic for topic in visible if topic is not None], "engine": engine})

    async def close(self) -> None:
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait((self._asking,))
        await self._statistics.close()


def _visible_to(caller: Caller, topic: Row) -> Row | None:
    """The part of `topic` that the caller may see: channels that it may read, or only the topic's name."""
    name = topic["topic"]
    channels = [row for row in topic["channels"] if caller.may_subscribe(name, row["channel"])]
    if not channels and not caller.may_subscribe(name) and not caller.may_publish(name):
        return None
    return topic | {"channels": channels}
