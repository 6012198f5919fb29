"""Which exchanges there are, and what waits in their queues. In: the URL of the management's HTTP API. Out: rows.

AMQP has no question for either; the plugin rabbitmq_management answers both. A user needs the tag `management` for it.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from qtools.engines.amqp.settings import PASSWORD, USER, AmqpSettings
from qtools.errors import NetworkError, PeerError, StartError, one_line
from qtools.names import LONGEST_NAME, is_valid_name

if TYPE_CHECKING:
    import httpx

logger = logging.getLogger("qtools.client")

TIMEOUT = 10.0  # s
OF_BROKER = "amq."  # how the names of the exchanges begin that every vhost has
DELAYED = ".delay."  # in the name of a queue of delayed messages (topology.py)


class AmqpTopics:
    """Exchanges and queues of the vhost."""

    def __init__(self, settings: AmqpSettings) -> None:
        self._settings = settings
        self._client: httpx.AsyncClient | None = None
        self._is_down = False

    async def look(self) -> set[str]:
        try:
            return {each["name"] for each in await self._exchanges()}
        except (NetworkError, PeerError) as error:
            raise StartError(str(error)) from error

    async def look_again(self) -> set[str]:
        try:
            found = await self.look()
        except StartError as error:
            if not self._is_down:
                logger.warning("%s; trying again", error)
            self._is_down = True
            return set()
        if self._is_down:
            logger.warning("%s answers again", self._settings.management)
        self._is_down = False
        return found

    async def topics(self) -> list[dict[str, Any]]:
        vhost = _quoted(self._settings.vhost)
        exchanges, queues, bindings = await asyncio.gather(
            self._exchanges(), self._ask(f"/queues/{vhost}"), self._ask(f"/bindings/{vhost}")
        )
        by_name = {queue["name"]: queue for queue in queues}
        rows = []
        for exchange in sorted(exchanges, key=lambda each: str(each["name"])):
            name = exchange["name"]
            bound = {
                each["destination"]
                for each in bindings
                if each["source"] == name and each["destination_type"] == "queue"
            }
            channels = [_channel(name, by_name[queue], by_name) for queue in sorted(bound) if queue in by_name]
            rows.append(
                {
                    "topic": name, "depth": 0, "messages": _count(exchange, "publish_in"),
                    "bytes": sum(by_name[queue].get("message_bytes", 0) for queue in bound if queue in by_name),
                    "paused": False, "channels": channels,
                }
            )  # fmt: skip
        return rows

    async def queues_of(self, topic: str) -> list[str]:
        """The queues of the channels of a topic, and of their delayed messages."""
        found = await self._ask(f"/queues/{_quoted(self._settings.vhost)}")
        return [queue["name"] for queue in found if queue["name"].startswith(f"{topic}/")]

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()

    # ── the HTTP API ──

    async def _exchanges(self) -> list[dict[str, Any]]:
        found = await self._ask(f"/exchanges/{_quoted(self._settings.vhost)}")
        return [
            each
            for each in found
            if not each["name"].startswith(OF_BROKER) and is_valid_name(each["name"], LONGEST_NAME)
        ]

    async def _ask(self, path: str) -> list[dict[str, Any]]:
        import httpx

        settings, where = self._settings, self._settings.management
        if self._client is None:
            user = (settings.user, settings.password) if settings.user else (USER, PASSWORD)
            verify = settings.management_tls_context() or True
            self._client = httpx.AsyncClient(auth=user, timeout=TIMEOUT, verify=verify)
        try:
            answer = await self._client.get(f"{where}/api{path}")
        except httpx.HTTPError as error:
            raise NetworkError(where, f"the management's HTTP API does not answer: {error}") from error
        if answer.status_code != 200:
            raise PeerError(_refused(answer.status_code, answer.text, settings), where)
        try:
            found = answer.json()
        except ValueError as error:
            raise PeerError("it does not answer as the management's HTTP API does", where) from error
        if not isinstance(found, list):
            raise PeerError("it does not answer as the management's HTTP API does", where)
        return found


def _refused(status: int, text: str, settings: AmqpSettings) -> str:
    if status in (401, 403):
        return f"the user {settings.user or USER} may not use the management's HTTP API (it needs the tag management)"
    if status == 404:
        return f"there is no vhost {settings.vhost}, or this is not the management's HTTP API"
    return f"the management's HTTP API answers {status}: {one_line(text)}"


def _quoted(name: str) -> str:
    return quote(name, safe="")


def _count(entry: dict[str, Any], name: str) -> int:
    return int((entry.get("message_stats") or {}).get(name, 0))


def _channel(topic: str, queue: dict[str, Any], queues: dict[str, dict[str, Any]]) -> dict[str, Any]:
    name = queue["name"]
    delayed = sum(each.get("messages", 0) for other, each in queues.items() if other.startswith(f"{name}{DELAYED}"))
    return {
        "channel": name.removeprefix(f"{topic}/"), "depth": queue.get("messages_ready", 0),
        "in_flight": queue.get("messages_unacknowledged", 0), "deferred": delayed,
        "messages": _count(queue, "publish"), "requeued": _count(queue, "redeliver"), "timed_out": None,
        "clients": queue.get("consumers", 0), "paused": False,
    }  # fmt: skip
