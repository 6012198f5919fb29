"""One process's gateway: makes its parts and connects them. In: options. Out: an application, and its counters."""

from __future__ import annotations

from qtools.pubsub_http.api.access import Access
from qtools.pubsub_http.api.asgi_app import Answer, App, Handler, Request, json_answer, published, text_answer
from qtools.pubsub_http.api.openapi import document
from qtools.pubsub_http.api.tokens import read_tokens
from qtools.pubsub_http.api.topics import TopicDepths
from qtools.pubsub_http.options import GatewayOptions
from qtools.pubsub_http.publish.endpoint import PublishEndpoint
from qtools.pubsub_http.publish.fast_path import PublishFastPath
from qtools.pubsub_http.publish.idempotency import Idempotency
from qtools.pubsub_http.publish.publish_batcher import PublishBatcher
from qtools.pubsub_http.subscribe.acknowledge import Acknowledging
from qtools.pubsub_http.subscribe.fanout import Fanouts
from qtools.pubsub_http.subscribe.get_message import GetMessage
from qtools.pubsub_http.subscribe.http_stream import Subscribing
from qtools.pubsub_http.subscribe.resume import Resumption
from qtools.pubsub_http.subscribe.sessions import AckSessions
from qtools.pubsub_http.subscribe.websocket import WebSockets
from qtools.web.memory_budget import MemoryBudget


class Gateway:
    """One process's gateway. app: the ASGI application; fast_path: answers the most frequent requests without it.
    worker: the beginning of the names of its sessions."""

    def __init__(self, options: GatewayOptions, worker: str = "") -> None:
        tokens = read_tokens(options.token_file, quiet=True) if options.token_file else None
        access = Access(
            tokens, options.hosts, options.origins, rate=options.rate, most_subscriptions=options.max_subscriptions,
            behind_proxy=options.behind_proxy,
        )  # fmt: skip
        self.broker = options.engine.capabilities.broker  # the name of the engine's servers, for messages
        self._decoder = options.decoder
        self.budget = MemoryBudget(options.max_memory // options.workers)
        self.batcher = PublishBatcher(options.engine, options.publish_timeout, self.budget)
        self.idempotency = Idempotency(options.idempotency_window)
        self.sessions = AckSessions(worker)
        self.fanouts = Fanouts(options, self.budget)
        self.resumption = Resumption(worker)
        self.subscribing = Subscribing(options, access, self.sessions, self.fanouts, self.resumption, self.budget)
        self.budget.add(self.batcher)
        self.budget.add(self.resumption)
        self._topics = TopicDepths(options)
        self._publishing = PublishEndpoint(
            self.batcher, self.idempotency, options.engine.capabilities, options.max_msg_size, options.max_body_size
        )
        self._get_message = GetMessage(self.subscribing)
        acknowledging = Acknowledging(self.sessions)
        handlers: dict[str, Handler] = {
            "pub": self._pub,
            "mpub": self._mpub,
            "sub": self._sub,
            "message": self._message,
            "finish": acknowledging.finish,
            "requeue": acknowledging.requeue,
            "touch": acknowledging.touch,
            "topics": self._topics.topics,
            "ping": self._ping,
            "openapi": self._openapi,
        }
        self._document = document(options.engine.capabilities.longest_name)
        websockets = WebSockets(options, self.subscribing, self.sessions)
        self.app = App(access, options.engine.capabilities, handlers, websockets.serve)
        self.fast_path = PublishFastPath(self.app, self._publishing)

    async def start(self) -> None:
        """Connect; StartError when no broker, or no schema registry, can be reached."""
        if self._decoder is not None:
            await self._decoder.start()
        await self.batcher.start()

    def stop(self) -> None:
        """End every stream; new ones are refused."""
        self.subscribing.stop()

    async def close(self) -> None:
        """Close what is open, after the server has closed its connections."""
        await self.batcher.close()
        await self.fanouts.close()
        await self._topics.close()
        if self._decoder is not None:
            await self._decoder.close()
        self.budget.close()

    async def _pub(self, request: Request) -> Answer:
        return published(await self._publishing.pub(request), request.replayed)

    async def _mpub(self, request: Request) -> Answer:
        return published(await self._publishing.mpub(request), request.replayed, request.warning)

    async def _sub(self, request: Request) -> None:
        await self.subscribing.sub(self.app, request)

    async def _message(self, request: Request) -> Answer | None:
        return await self._get_message.message(self.app, request)

    async def _ping(self, request: Request) -> Answer:
        return text_answer(b"OK")

    async def _openapi(self, request: Request) -> Answer:
        return json_answer(self._document)
