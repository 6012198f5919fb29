"""What waits in topics. In: nsqd's statistics, of every nsqd. Out: topics and channels, added up."""

from __future__ import annotations

import asyncio
from typing import Any

from qtools.engines.nsq.address import Brokers
from qtools.engines.nsq.discovery import Discovery
from qtools.engines.nsq.http_client import HttpClient
from qtools.engines.nsq.settings import Settings
from qtools.errors import PeerError, StartError

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

Row = dict[str, Any]


class TopicStatistics:
    """Asks every nsqd, over HTTP connections that are kept. failures: of the nsqds that did not answer the last time,
    while others did."""

    def __init__(self, brokers: Brokers, settings: Settings) -> None:
        self._discovery = Discovery(brokers, None, settings)
        self._tls = settings.http_tls_context()
        self._clients: dict[str, HttpClient] = {}
        self.failures: list[BaseException] = []

    async def topics(self) -> list[Row]:
        """As the contract says. StartError when no HTTP API is known."""
        addresses = [address for address in await self._discovery.look() if address.http]
        await self._forget_others({address.http for address in addresses})
        if not addresses:
            raise StartError("no nsqd's HTTP API is known to ask: give --nsqd-http-address")
        answers = await asyncio.gather(*(self._stats(address.http) for address in addresses), return_exceptions=True)
        topics: dict[str, Row] = {}
        failures: list[BaseException] = []
        for answer in answers:
            if isinstance(answer, BaseException):
                failures.append(answer)
            else:
                _add(topics, answer)
        if len(failures) == len(answers):
            raise failures[0]
        self.failures = failures
        return [topics[name] | {"channels": _sorted(topics[name]["channels"])} for name in sorted(topics)]

    async def close(self) -> None:
        await self._discovery.close()
        for client in self._clients.values():
            await client.close()

    async def _forget_others(self, bases: set[str]) -> None:
        """Close the connections to brokers that discovery no longer finds."""
        for base in self._clients.keys() - bases:
            await self._clients.pop(base).close()

    async def _stats(self, base: str) -> list[Any]:
        client = self._clients.setdefault(base, HttpClient(base, self._tls))
        answer = await client.get_json(STATS)
        try:
            return list(answer.get("data", answer).get("topics") or [])
        except (AttributeError, TypeError) as error:
            raise PeerError(f"{client.base}/stats answers with JSON that is not nsqd's") from error


def _add(topics: dict[str, Row], answer: list[Any]) -> None:
    """Add one nsqd's statistics to the others'."""
    for topic in answer:
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


def _sorted(channels: dict[str, Row]) -> list[Row]:
    return [channels[name] for name in sorted(channels)]
