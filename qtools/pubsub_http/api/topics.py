"""/topics: what waits where, for the page. In: nsqd's statistics, of every nsqd. Out: topics and channels, added up.

However many pages look, an nsqd is asked at most once in FRESH seconds.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from qtools.engines.nsq.discovery import Discovery
from qtools.engines.nsq.http_client import HttpClient
from qtools.errors import NetworkError, PeerError, StartError
from qtools.pubsub_http.api.asgi_app import Answer, json_answer
from qtools.pubsub_http.options import GatewayOptions
from qtools.pubsub_http.publish.publish_batcher import RETRY_AFTER
from qtools.web.request_body import Refusal

if TYPE_CHECKING:
    from qtools.pubsub_http.api.asgi_app import Request
    from qtools.pubsub_http.api.tokens import Caller

FRESH = 0.5  # s
STATS = "/stats?format=json&include_clients=false&include_mem=false"

# Ours ← nsqd's, all of them counts.
_TOPIC = {"depth": "depth", "messages": "message_count", "bytes": "message_bytes"}
_CHANNEL = {
    "depth": "depth",
    "in_flight": "in_flight_count",
    "deferred": "deferred_count",
    "messages": "message_count",
    "requeued": "requeue_count",
    "timed_out": "timeout_count",
    "clients": "client_count",
}

Counted = dict[str, Any]


class TopicDepths:
    """Asks the brokers of a gateway."""

    def __init__(self, options: GatewayOptions) -> None:
        self._discovery = Discovery(options.brokers, None, options.settings)
        self._tls = options.settings.http_tls_context()
        self._askers: dict[str, HttpClient] = {}
        self._asked = 0.0
        self._asking: asyncio.Task[list[Counted]] | None = None
        self._loop = asyncio.get_running_loop()

    async def topics(self, request: Request) -> Answer:
        """GET /topics: what the caller may see."""
        if self._asking is None or (self._asking.done() and self._loop.time() - self._asked > FRESH):
            self._asked = self._loop.time()
            self._asking = asyncio.create_task(self._ask())
        try:
            found = await asyncio.shield(self._asking)
        except (StartError, NetworkError, PeerError) as error:
            raise Refusal(503, "BROKER_UNAVAILABLE", str(error), RETRY_AFTER) from error
        return json_answer({"topics": [told for topic in found if (told := _seen_by(request.caller, topic))]})

    async def close(self) -> None:
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait((self._asking,))
        await self._discovery.close()
        for asker in self._askers.values():
            await asker.close()

    async def _ask(self) -> list[Counted]:
        addresses = [address for address in await self._discovery.look() if address.http]
        await self._forget_others({address.http for address in addresses})
        if not addresses:
            raise StartError("no nsqd's HTTP API is known to ask: give --nsqd-http-address")
        answers = await asyncio.gather(*(self._stats(address.http) for address in addresses), return_exceptions=True)
        topics: dict[str, Counted] = {}
        failures: list[BaseException] = []
        for answer in answers:
            if isinstance(answer, BaseException):
                failures.append(answer)
            else:
                _add(topics, answer)
        if len(failures) == len(answers):
            raise failures[0]
        return [topics[name] | {"channels": _sorted(topics[name]["channels"])} for name in sorted(topics)]

    async def _forget_others(self, bases: set[str]) -> None:
        """Close the connections to brokers that discovery no longer finds."""
        for base in self._askers.keys() - bases:
            await self._askers.pop(base).close()

    async def _stats(self, base: str) -> list[Any]:
        asker = self._askers.setdefault(base, HttpClient(base, self._tls))
        told = await asker.get_json(STATS)
        try:
            return list(told.get("data", told).get("topics") or [])
        except (AttributeError, TypeError) as error:
            raise PeerError(f"{asker.base}/stats answers with JSON that is not nsqd's") from error


def _add(topics: dict[str, Counted], told: list[Any]) -> None:
    """Add one nsqd's statistics to the others'."""
    for topic in told:
        name = str(topic["topic_name"])
        into = topics.setdefault(name, {"topic": name, **dict.fromkeys(_TOPIC, 0), "paused": False, "channels": {}})
        for ours, theirs in _TOPIC.items():
            into[ours] += int(topic.get(theirs, 0))
        into["paused"] |= bool(topic.get("paused"))
        for channel in topic.get("channels") or []:
            label = str(channel["channel_name"])
            row = into["channels"].setdefault(label, {"channel": label, **dict.fromkeys(_CHANNEL, 0), "paused": False})
            for ours, theirs in _CHANNEL.items():
                row[ours] += int(channel.get(theirs, 0))
            row["paused"] |= bool(channel.get("paused"))


def _sorted(channels: dict[str, Counted]) -> list[Counted]:
    return [channels[name] for name in sorted(channels)]


def _seen_by(caller: Caller, topic: Counted) -> Counted | None:
    """What of `topic` the caller may know: what it may read, and the mere topic where it may publish."""
    name = topic["topic"]
    channels = [row for row in topic["channels"] if caller.may_subscribe(name, row["channel"])]
    if not channels and not caller.may_subscribe(name) and not caller.may_publish(name):
        return None
    return topic | {"channels": channels}
