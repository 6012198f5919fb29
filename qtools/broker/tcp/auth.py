"""Asks an auth server what a client may do. In: the client's secret. Out: its authorization, which expires.

    GET http://HOST:PORT/auth?remote_ip=…&tls=…&secret=…&common_name=…
    ◀── {"ttl": 3600, "identity": …, "identity_url": …,
         "authorizations": [{"topic": regex, "channels": [regex, …], "permissions": ["subscribe", "publish"]}]}

nsqd's rules (internal/auth/authorizations.go): a regex matches anywhere in a name. For a publish the channels must
match too, with an empty name. The servers are asked in turn, beginning with a random one, until one answers.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qtools.engines.nsq.protocol.command_reader import quoted
from qtools.imports import import_in_thread

if TYPE_CHECKING:
    import httpx

    from qtools.engines.nsq.protocol.transforms import Tls


class AuthFailed(Exception):
    """No auth server gave a usable answer. The text is for the log; the client does not get it."""


@dataclass(slots=True)
class Rule:
    topic: re.Pattern[str]
    channels: list[re.Pattern[str]]
    permissions: frozenset[str]

    def allows(self, topic: str, channel: str) -> bool:
        return (
            ("subscribe" if channel else "publish") in self.permissions
            and self.topic.search(topic) is not None
            and any(pattern.search(channel) for pattern in self.channels)
        )


@dataclass(slots=True)
class Authorization:
    """`expires` is on the loop's clock, seconds."""

    secret: bytes
    identity: str
    identity_url: str
    rules: list[Rule]
    expires: float

    def allows(self, topic: str, channel: str) -> bool:
        return any(rule.allows(topic, channel) for rule in self.rules)


def describe(authorization: Authorization) -> bytes:
    """The response to AUTH."""
    fields = {
        "identity": authorization.identity,
        "identity_url": authorization.identity_url,
        "permission_count": len(authorization.rules),
    }
    return json.dumps(fields, separators=(",", ":")).encode()


def parse(answer: Any, secret: bytes, now: float) -> Authorization:
    """Read the answer of an auth server. Raises AuthFailed when it is not valid."""
    try:
        rules = []
        for entry in answer.get("authorizations") or ():
            permissions = frozenset(entry.get("permissions") or ())
            unknown = permissions - {"subscribe", "publish"}
            if unknown:
                raise AuthFailed(f"unknown permission {sorted(unknown)[0]}")
            channels = [re.compile(pattern) for pattern in entry.get("channels") or ()]
            rules.append(Rule(re.compile(entry.get("topic") or ""), channels, permissions))
        ttl = answer.get("ttl") or 0
        if ttl <= 0:
            raise AuthFailed(f"invalid TTL {ttl} (must be >0)")
        return Authorization(
            secret, str(answer.get("identity") or ""), str(answer.get("identity_url") or ""), rules, now + ttl
        )
    except (AttributeError, TypeError, ValueError, re.error) as error:
        raise AuthFailed(f"its answer cannot be understood: {error}") from error


def refusal(authorization: Authorization | None, name: str, topic: str, channel: str) -> tuple[str, str] | None:
    """The code and text of the error for the command `name`, which the client may not send; None if it may."""
    if authorization is None:
        return "E_AUTH_FIRST", f"AUTH required before {name}"
    if not authorization.allows(topic, channel):
        return "E_UNAUTHORIZED", f"AUTH failed for {name} on {quoted(topic.encode())} {quoted(channel.encode())}"
    return None


class Authority:
    """All auth servers. connect, request: timeouts in seconds."""

    def __init__(self, addresses: tuple[str, ...], connect: float, request: float) -> None:
        self._addresses = addresses
        self._connect, self._request = connect, request
        self._client: httpx.AsyncClient | None = None

    async def ask(self, secret: bytes, remote_ip: str, tls: Tls | None) -> Authorization:
        """The authorization of a client with `secret`. Raises AuthFailed when no server gives one."""
        await import_in_thread("httpx")
        import httpx

        if self._client is None:
            self._client = httpx.AsyncClient(timeout=httpx.Timeout(self._request, connect=self._connect))
        params = {
            "remote_ip": remote_ip,
            "tls": "true" if tls is not None else "false",
            "secret": secret.decode("utf-8", "replace"),
            "common_name": tls.common_name if tls is not None else "",
        }
        first = random.randrange(len(self._addresses))
        failures = []
        for address in (*self._addresses[first:], *self._addresses[:first]):
            url = address if "://" in address else f"http://{address}/auth"
            try:
                reply = await self._client.get(url, params=params)
                if reply.status_code != 200:
                    raise AuthFailed(f"it answers {reply.status_code}")
                return parse(reply.json(), secret, asyncio.get_running_loop().time())
            except (httpx.HTTPError, httpx.InvalidURL, ValueError, AuthFailed) as error:
                failures.append(f"{address}: {error or type(error).__name__}")
        raise AuthFailed("; ".join(failures))

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()
