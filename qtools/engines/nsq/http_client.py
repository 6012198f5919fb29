"""Requests to the HTTP APIs of nsqd and nsqlookupd. In: a base address, as in Address.http. Out: plain values.

httpx is imported where it is used, since the import takes longer than a short command runs, and in a thread, since a
run may be under way. Its exceptions are translated here and nowhere else.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from qtools.engines.nsq.address import LOCAL, lookupd_hint
from qtools.errors import ConnectFailed, PeerError, ProtocolError, without_userinfo
from qtools.imports import import_in_thread
from qtools.names import Subscription, is_valid_name

if TYPE_CHECKING:
    import ssl

    import httpx

TIMEOUT = 5.0  # s


class AnswerLate(ConnectFailed):
    """The broker took the request and does not answer: it is busy, or stands still."""


class HttpClient:
    """Sends requests to one HTTP address and keeps the connection. tls: the TLS context for https://.

    The attribute `base` is the address for messages: a user name and a password are left out.
    """

    def __init__(self, base: str, tls: ssl.SSLContext | None = None) -> None:
        self._url = base
        self.base = without_userinfo(base)
        self._tls = tls
        self._client: httpx.AsyncClient | None = None
        self._connected_to = ""

    async def get(self, path: str) -> tuple[int, bytes]:
        """Status and body of a GET; ConnectFailed when there is no HTTP answer within TIMEOUT."""
        return await self._ask("GET", path)

    async def post(self, path: str) -> tuple[int, bytes]:
        """Status and body of a POST without a body; ConnectFailed when there is no HTTP answer within TIMEOUT."""
        return await self._ask("POST", path)

    async def _ask(self, method: str, path: str) -> tuple[int, bytes]:
        await import_in_thread("httpx")
        import httpx

        base = _local_socket() if self._url == LOCAL else self._url
        if base != self._connected_to:
            await self.close()
            self._connected_to = base
        if self._client is None:
            if base.startswith("unix:"):
                transport = httpx.AsyncHTTPTransport(uds=base.removeprefix("unix:"), verify=False)
                self._client = httpx.AsyncClient(transport=transport, base_url="http://broker", timeout=TIMEOUT)
            else:
                # No proxy from the environment: a broker is not on the public web. Loading the system's CA
                # certificates takes 0.1 s, which plain HTTP does not need.
                verify = self._tls if self._tls is not None else base.startswith("https:")
                self._client = httpx.AsyncClient(base_url=base, timeout=TIMEOUT, trust_env=False, verify=verify)
        try:
            answer = await self._client.request(method, path)
        except httpx.TimeoutException as error:
            failure = ConnectFailed if isinstance(error, httpx.ConnectTimeout) else AnswerLate
            raise failure(without_userinfo(base), f"no answer within {TIMEOUT:.4g} s") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ConnectFailed(without_userinfo(base), _reason(error)) from error
        return answer.status_code, answer.content

    async def get_json(self, path: str) -> Any:
        """The JSON that a GET with status 200 answers; PeerError for any other answer."""
        status, body = await self.get(path)
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise PeerError(f"{self.base}{path} answers {status} and no JSON: is it nsqd's HTTP port?") from error
        if status != 200:
            message = answer.get("message") if isinstance(answer, dict) else answer
            raise PeerError(f"{self.base}{path} answers {status} {message}")
        return answer

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()
            self._client = None


def _local_socket() -> str:
    """The HTTP socket of the private local broker now; ConnectFailed when another user could have put a socket
    there."""
    from qtools.paths import is_private_socket, local_broker_paths

    path = local_broker_paths().http_socket
    if not is_private_socket(path):
        raise ConnectFailed("the local broker", f"another user owns {path}, or may write to its directory")
    return f"unix:{path}"


def _reason(error: Exception) -> str:
    """Why httpx failed, as a text for users."""
    import httpx

    from qtools.sockets import network_reason

    if reason := network_reason(error):
        return reason
    if isinstance(error, httpx.RemoteProtocolError):
        if "without sending" in str(error):
            return "the connection was closed without an HTTP answer"
        return "what listens there does not speak HTTP"
    return str(error) or type(error).__name__


async def ask_lookupd(http: HttpClient, path: str) -> tuple[int, bytes]:
    """Status (200, or 404 for a topic that is not known) and body of a GET at an nsqlookupd.

    The texts of ConnectFailed and ProtocolError name what usually listens at that port.
    """
    try:
        status, body = await http.get(path)
    except ConnectFailed as error:
        is_known = isinstance(error, AnswerLate) or _refused_certificate(error)
        advice = "" if is_known else await _other_protocol(http.base)
        raise ConnectFailed(error.address, advice or f"{error.reason} ({lookupd_hint(http.base)})") from error
    if status == 200 or (status == 404 and b"TOPIC_NOT_FOUND" in body):
        return status, body
    raise ProtocolError(f"{http.base} answers {status}: {lookupd_hint(http.base)}")


def _refused_certificate(error: BaseException) -> bool:
    """Whether the peer's TLS certificate is not trusted: then the peer gets no request at all."""
    import ssl

    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLCertVerificationError):
        cause = cause.__cause__ or cause.__context__
    return cause is not None


async def _other_protocol(base: str) -> str:
    """What to say to a user who took `base` for nsqlookupd's HTTP address; "" if it is no other engine's."""
    from urllib.parse import urlsplit

    from qtools.engines.peer_protocol import protocol_at

    place = urlsplit(base).netloc
    found = await protocol_at(place)
    return found.advice("HTTP", place, is_tls=False) if found.name not in ("", "HTTP", "NSQ") else ""


@dataclass(slots=True)
class Depth:
    """The messages of a channel on one nsqd: depth (not delivered yet), in_flight, deferred.

    depth includes what the topic has not yet copied to its channels. channels: how many the topic has. exists: the
    channel is one of them. given, topic_given: messages that were put into the channel, and into the topic, since nsqd
    started. elsewhere: messages in other channels of the topic, by channel. paused: the channel or its topic is paused,
    and has messages. new_topic: this nsqd does not have the topic. nsqd_since: when nsqd started, s since 1970; 0 if
    it does not report that.
    """

    depth: int = 0
    in_flight: int = 0
    deferred: int = 0
    channels: int = 0
    exists: bool = False
    given: int = 0
    topic_given: int = 0
    elsewhere: dict[str, int] = field(default_factory=dict)
    paused: bool = False
    new_topic: bool = False
    nsqd_since: int = 0

    @property
    def left(self) -> int:
        """Messages that are not finished."""
        return self.depth + self.in_flight + self.deferred

    @property
    def drained(self) -> bool:
        return not self.left


# Up to so many topics need a request each; for more, one response about all topics costs less.
SINGLE_TOPICS = 8


async def ask_depth(http: HttpClient, source: Subscription) -> Depth:
    """The depth of `source` on one nsqd (GET /stats). Errors as for `ask_depths`."""
    return (await ask_depths(http, [source]))[0]


async def ask_depths(http: HttpClient, sources: Sequence[Subscription]) -> list[Depth]:
    """The depth of each of `sources` on one nsqd; ConnectFailed without an answer, PeerError when it is not nsqd's."""
    topics = list(dict.fromkeys(source.topic for source in sources))
    narrow = [f"&topic={topic}" for topic in topics] if len(topics) <= SINGLE_TOPICS else ["&include_mem=false"]
    stats: dict[str, dict[str, Any]] = {}
    since = 0
    try:
        for query in narrow:
            answer = await http.get_json(f"/stats?format=json{query}&include_clients=false")
            answer = answer.get("data", answer)  # nsqd before 1.0 wrapped its answers
            since = int(answer.get("start_time") or 0)
            stats.update((topic["topic_name"], topic) for topic in answer.get("topics") or [])
        return [
            _depth(stats[source.topic], source, since)
            if source.topic in stats
            else Depth(new_topic=True, nsqd_since=since)
            for source in sources
        ]
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:  # overflow: Infinity
        raise PeerError(f"{http.base}/stats answers with JSON that is not nsqd's") from error


def _depth(topic: dict[str, Any], source: Subscription, since: int) -> Depth:
    waiting = int(topic["depth"])
    channels = topic["channels"] or []
    found = Depth(depth=waiting, channels=len(channels), paused=bool(waiting and topic.get("paused")))
    found.nsqd_since = since
    found.topic_given = int(topic.get("message_count") or 0)
    for channel in channels:
        depth, in_flight, deferred = (int(channel[name]) for name in ("depth", "in_flight_count", "deferred_count"))
        if channel["channel_name"] == source.channel:
            found.depth += depth
            found.in_flight = in_flight
            found.deferred = deferred
            found.exists = True
            found.given = int(channel.get("message_count") or 0)
            found.paused |= bool(channel.get("paused") and (depth or deferred))
        elif depth + in_flight + deferred:
            found.elsewhere[str(channel["channel_name"])] = depth + in_flight + deferred
    return found


async def ask_topics(http: HttpClient) -> list[str]:
    """The topics of one nsqd (GET /stats)."""
    answer = await http.get_json("/stats?format=json&include_clients=false&include_mem=false")
    try:
        topics = [topic["topic_name"] for topic in answer.get("data", answer).get("topics") or []]
    except (AttributeError, KeyError, TypeError) as error:
        raise PeerError(f"{http.base}/stats answers with JSON that is not nsqd's") from error
    if not all(isinstance(topic, str) and is_valid_name(topic) for topic in topics):
        raise PeerError(f"{http.base}/stats lists topics with names that no nsqd would take")
    return topics


async def ask_limits(base: str, tls: ssl.SSLContext | None = None) -> tuple[int, int] | None:
    """nsqd's max_msg_size and max_body_size in bytes, or None where it does not report them."""
    http = HttpClient(base, tls)
    try:
        limits = [await http.get_json(f"/config/{name}") for name in ("max_msg_size", "max_body_size")]
    except (ConnectFailed, PeerError):
        return None
    finally:
        await http.close()
    return (int(limits[0]), int(limits[1])) if all(type(limit) is int and limit > 0 for limit in limits) else None
