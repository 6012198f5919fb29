"""nsqd's and nsqlookupd's HTTP APIs, asked. In: a base address as Address.http has it. Out: plain values.

httpx is imported where it is used: it costs more time than a short command has. Its exceptions are
translated here and nowhere else.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qtools.client.address import LOCAL
from qtools.errors import ConnectFailed, PeerError
from qtools.names import Subscription, is_valid_name

if TYPE_CHECKING:
    import ssl

    import httpx

TIMEOUT = 5.0  # s


class HttpAsker:
    """Asks one HTTP address; keeps its connection between questions. tls: whom to trust where it is https://."""

    def __init__(self, base: str, tls: ssl.SSLContext | None = None) -> None:
        self.base = base
        self._tls = tls
        self._client: httpx.AsyncClient | None = None
        self._connected_to = ""

    async def get(self, path: str) -> tuple[int, bytes]:
        """Status and body of a GET; ConnectFailed when nobody answers."""
        return await self._ask("GET", path)

    async def post(self, path: str) -> tuple[int, bytes]:
        """Status and body of a POST without a body; ConnectFailed when nobody answers."""
        return await self._ask("POST", path)

    async def _ask(self, method: str, path: str) -> tuple[int, bytes]:
        import httpx

        base = _local_socket() if self.base == LOCAL else self.base
        if base != self._connected_to:
            await self.close()
            self._connected_to = base
        if self._client is None:
            if base.startswith("unix:"):
                transport = httpx.AsyncHTTPTransport(uds=base.removeprefix("unix:"))
                self._client = httpx.AsyncClient(transport=transport, base_url="http://broker", timeout=TIMEOUT)
            else:
                # No proxy from the environment: a broker is not somewhere out on the web.
                verify = True if self._tls is None else self._tls
                self._client = httpx.AsyncClient(base_url=base, timeout=TIMEOUT, trust_env=False, verify=verify)
        try:
            answer = await self._client.request(method, path)
        except httpx.TimeoutException as error:
            raise ConnectFailed(base, f"no answer within {TIMEOUT:.4g} s") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ConnectFailed(base, str(error) or type(error).__name__) from error
        return answer.status_code, answer.content

    async def get_json(self, path: str) -> Any:
        """What a GET answers as JSON; PeerError when it does not."""
        status, body = await self.get(path)
        try:
            told = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise PeerError(f"{self.base}{path} answers {status} and no JSON: is it nsqd's HTTP port?") from error
        if status != 200:
            message = told.get("message") if isinstance(told, dict) else told
            raise PeerError(f"{self.base}{path} answers {status} {message}")
        return told

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()
            self._client = None


def _local_socket() -> str:
    """Where the private local broker serves HTTP now; ConnectFailed when another user could have put a socket there."""
    from qtools.places import is_private_socket, local_places

    path = local_places().http_socket
    if not is_private_socket(path):
        raise ConnectFailed("the local broker", f"another user owns {path}, or may write to its directory")
    return f"unix:{path}"


@dataclass(slots=True)
class Depth:
    """What waits for a channel on one nsqd: messages not delivered, delivered and unanswered, put off."""

    depth: int = 0
    in_flight: int = 0
    deferred: int = 0
    channels: int = 0  # of the topic

    @property
    def drained(self) -> bool:
        return not (self.depth or self.in_flight or self.deferred)


async def ask_depth(asker: HttpAsker, source: Subscription) -> Depth:
    """What waits in `source`, what its topic still holds for its channels included (GET /stats)."""
    told = await asker.get_json(f"/stats?format=json&topic={source.topic}&include_clients=false")
    try:
        return _depth(told, source)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise PeerError(f"{asker.base}/stats answers with JSON that is not nsqd's") from error


def _depth(told: Any, source: Subscription) -> Depth:
    told = told.get("data", told)  # nsqd before 1.0 wrapped its answers
    found = Depth()
    for topic in told.get("topics") or []:
        if topic.get("topic_name") != source.topic:
            continue
        found.depth += int(topic["depth"])
        found.channels = len(topic["channels"] or [])
        for channel in topic["channels"] or []:
            if channel["channel_name"] == source.channel:
                found.depth += int(channel["depth"])
                found.in_flight += int(channel["in_flight_count"])
                found.deferred += int(channel["deferred_count"])
    return found


async def ask_topics(asker: HttpAsker) -> list[str]:
    """The topics of one nsqd (GET /stats)."""
    told = await asker.get_json("/stats?format=json&include_clients=false&include_mem=false")
    try:
        topics = [topic["topic_name"] for topic in told.get("data", told).get("topics") or []]
    except (AttributeError, KeyError, TypeError) as error:
        raise PeerError(f"{asker.base}/stats answers with JSON that is not nsqd's") from error
    if not all(isinstance(topic, str) and is_valid_name(topic) for topic in topics):
        raise PeerError(f"{asker.base}/stats lists topics with names that no nsqd would take")
    return topics


async def ask_limits(base: str, tls: ssl.SSLContext | None = None) -> tuple[int, int] | None:
    """nsqd's max_msg_size and max_body_size in bytes, or None where it does not say."""
    asker = HttpAsker(base, tls)
    try:
        limits = [await asker.get_json(f"/config/{name}") for name in ("max_msg_size", "max_body_size")]
    except (ConnectFailed, PeerError):
        return None
    finally:
        await asker.close()
    return (int(limits[0]), int(limits[1])) if all(type(limit) is int and limit > 0 for limit in limits) else None
