"""What a server tells of itself in INFO, and what its -ERR means. In: the argument of the line. Out: plain data."""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

from qtools.errors import AuthError, BrokerError, PeerError, ProtocolError, SizeError, one_line

MOST_URLS = 1000  # of other servers; more are not kept


class ServerInfo(NamedTuple):
    """What INFO says. max_payload: the most bytes of a message and its headers. connect_urls: "HOST:PORT" of the other
    servers of its cluster. account: only newer servers tell it, after CONNECT. is_leaving: it closes its connections
    soon (lame duck mode)."""

    server_id: str
    version: str
    max_payload: int
    headers: bool = False
    jetstream: bool = False
    auth_required: bool = False
    tls_required: bool = False
    tls_available: bool = False
    nonce: str = ""
    cluster: str = ""
    domain: str = ""
    account: str = ""
    connect_urls: tuple[str, ...] = ()
    is_leaving: bool = False

    @property
    def forgets_requests(self) -> bool:
        """Whether the server drops a request for messages at once when its inbox has no subscriber. Servers before 2.10
        serve it for 2 s more, and what they deliver is lost until the message timeout."""
        numbers = re.match(r"(\d{1,5})\.(\d{1,5})\.", self.version)
        return numbers is None or (int(numbers[1]), int(numbers[2])) >= (2, 10)


def parse_info(argument: bytes) -> ServerInfo:
    """ProtocolError if it is no INFO of NATS."""
    try:
        found = json.loads(argument)
    except (ValueError, RecursionError):
        raise ProtocolError("its INFO is not JSON") from None
    if not isinstance(found, dict) or not isinstance(found.get("server_id"), str):
        raise ProtocolError("its INFO is not that of a NATS server")
    urls = found.get("connect_urls")
    return ServerInfo(
        server_id=found["server_id"],
        version=_text(found, "version"),
        max_payload=_number(found, "max_payload", 1024 * 1024),
        headers=found.get("headers") is True,
        jetstream=found.get("jetstream") is True,
        auth_required=found.get("auth_required") is True,
        tls_required=found.get("tls_required") is True,
        tls_available=found.get("tls_available") is True,
        nonce=_text(found, "nonce"),
        cluster=_text(found, "cluster"),
        domain=_text(found, "domain"),
        account=_text(found, "remote_account"),
        connect_urls=tuple(url for url in urls[:MOST_URLS] if isinstance(url, str)) if isinstance(urls, list) else (),
        is_leaving=found.get("ldm") is True,
    )


def _text(found: dict[str, Any], name: str) -> str:
    value = found.get(name)
    return value if isinstance(value, str) else ""


def _number(found: dict[str, Any], name: str, default: int) -> int:
    value = found.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else default


class ServerRefusal(NamedTuple):
    """What an -ERR means. ends_connection: whether the server closes the connection after it. subject: the subject that
    this user may not publish or subscribe to, or ""."""

    error: PeerError
    ends_connection: bool = True
    subject: str = ""


_PERMISSIONS = re.compile(r"permissions violation for (publish|subscription) to \"([^\"]*)\"", re.IGNORECASE)


def explain_error(argument: bytes) -> ServerRefusal:
    """What the server means with -ERR `argument`.

    https://docs.nats.io/reference/reference-protocols/nats-protocol#err
    """
    text = one_line(argument.decode("utf-8", "replace"))
    folded = text.lower()
    if found := _PERMISSIONS.search(text):
        return ServerRefusal(AuthError("PERMISSIONS", text), False, found[2])
    if folded.startswith("permissions violation"):
        return ServerRefusal(AuthError("PERMISSIONS", text), False)
    if "authorization" in folded or "authentication" in folded or folded.startswith("account auth"):
        return ServerRefusal(AuthError("AUTHORIZATION", text))
    if "secure connection" in folded or "tls required" in folded:
        return ServerRefusal(BrokerError("TLS", f"{text}: write natss:// for TLS"))
    if "maximum payload" in folded:
        return ServerRefusal(SizeError("SIZE", text))
    if folded.startswith("invalid subject") or folded.startswith("invalid publish subject"):
        return ServerRefusal(BrokerError("SUBJECT", text), False)
    return ServerRefusal(BrokerError("ERROR", text))
