"""Which requests are allowed at all. In: the head of a request. Out: its Caller, or a Refusal; CORS headers.

Host      on a loopback address without tokens: only names of this machine, against DNS rebinding
Origin, Sec-Fetch-Site    requests that a browser sends for another web site are refused, GET too: reading from a
          queue takes messages. --allow-origin names the sites that are allowed
token     Authorization: Bearer …, or for a WebSocket the subprotocol bearer.TOKEN beside q-pubsub
rate      requests a second of a caller
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping

from qtools.flow.throttle import Throttle
from qtools.pubsub_http.api.proxies import FORWARDED, as_asked
from qtools.pubsub_http.api.tokens import Caller, Tokens
from qtools.web.host_header import bare_host, is_loopback
from qtools.web.request_body import Refusal

SUBPROTOCOL = "q-pubsub"
_OWN_SITE = (b"same-origin", b"none")  # Fetch Metadata, 2.3: by the page itself, and by the user
EXPOSED = (
    b"q-session, q-message-id, q-attempts, q-timestamp, q-key, q-key-base64, q-headers, q-partition, q-offset,"
    b" q-tombstone, q-published, q-warning, idempotent-replayed, retry-after"
)
_ALLOWED = b"authorization, content-type, idempotency-key, last-event-id"

Head = Mapping[bytes, bytes]


class Access:
    """The rules of one gateway.

    hosts: the allowed names in Host, without port; None for any.
    origins: the web sites whose pages may send requests; {"*"} for all.
    behind_proxy: trust the headers of a proxy about the client's own request (proxies.py).
    """

    def __init__(
        self,
        tokens: Tokens | None,
        hosts: frozenset[str] | None,
        origins: frozenset[str],
        *,
        rate: float | None = None,
        most_subscriptions: int | None = None,
        behind_proxy: bool = False,
    ) -> None:
        self._tokens = tokens
        self._behind_proxy = behind_proxy
        self._hosts = hosts
        self._good_hosts: set[bytes] = set()
        self._origins = {origin.encode() for origin in origins}
        self._rate = rate
        self._most = most_subscriptions
        self._anybody = Caller("anybody", most_subscriptions=most_subscriptions)
        self._now = asyncio.get_running_loop().time

    def admit(self, head: Head, secure: bool, public: bool = False) -> None:
        """Refuse a request to a wrong host, or one for another web site; any site may link to what is `public`."""
        host = head.get(b"host", b"")
        if self._hosts is not None and host not in self._good_hosts:
            self._check_host(host)
        if not public and (b"origin" in head or b"sec-fetch-site" in head):
            if self._behind_proxy:
                secure, host = as_asked(head, secure, host)
            self._check_origin(head, host, secure)

    def identify(self, head: Head, subprotocols: list[str] | None = None) -> Caller:
        """The caller, as `authenticate`; Refusal 429 if it has sent too many requests."""
        caller = self.authenticate(head, subprotocols)
        rate = caller.rate or self._rate
        if rate is not None:
            if caller.throttle is None:
                caller.throttle = Throttle(rate, max(1.0, rate))  # a page sends several requests at once
            if not caller.throttle.take(1, self._now()):
                wait = math.ceil(caller.throttle.wait_for(1)) or 1
                raise Refusal(
                    429, "TOO_MANY_REQUESTS", f"more than {rate:g} requests a second", [(b"retry-after", b"%d" % wait)]
                )
        return caller

    def authenticate(self, head: Head, subprotocols: list[str] | None = None) -> Caller:
        """The caller whose token the request has; Refusal 401 if it has none, or one that is not known."""
        return self._anybody if self._tokens is None else self._by_token(self._tokens, head, subprotocols or [])

    def most_subscriptions(self, caller: Caller) -> int | None:
        return self._most if caller.most_subscriptions is None else caller.most_subscriptions

    def cors(self, head: Head) -> list[tuple[bytes, bytes]]:
        """The CORS headers of an answer."""
        if not self._origins:
            return []
        vary = (b"vary", b"origin")
        origin = head.get(b"origin")
        if origin is None or not self._is_allowed(origin):
            return [vary]
        return [vary, (b"access-control-allow-origin", origin), (b"access-control-expose-headers", EXPOSED)]

    def preflight(self, head: Head, methods: bytes) -> list[tuple[bytes, bytes]]:
        """The headers of the answer to a preflight request, whose origin was checked before."""
        return [
            (b"access-control-allow-methods", methods),
            (b"access-control-allow-headers", _ALLOWED),
            (b"access-control-max-age", b"600"),
        ]

    # ── inside ──

    def _check_host(self, host: bytes) -> None:
        bare = bare_host(host)
        assert self._hosts is not None
        if host and bare not in self._hosts and not is_loopback(bare):
            raise Refusal(
                403,
                "HOST_NOT_ALLOWED",
                f"the Host header {host.decode('latin-1').lower()[:80]!r} is not allowed here;"
                " --allow-host NAME allows it",
            )
        if len(self._good_hosts) < 100:
            self._good_hosts.add(host)

    def _check_origin(self, head: Head, host: bytes, secure: bool) -> None:
        origin = head.get(b"origin")
        if origin is not None:
            if origin != (b"https://" if secure else b"http://") + host and not self._is_allowed(origin):
                raise Refusal(403, "ORIGIN_NOT_ALLOWED", self._advice(head))
            return
        site = head.get(b"sec-fetch-site")
        if site is not None and site not in _OWN_SITE and b"*" not in self._origins:
            # A GET without Origin, as for <img>: it would take messages for an unknown site.
            raise Refusal(403, "ORIGIN_NOT_ALLOWED", self._advice(head))

    def _advice(self, head: Head) -> str:
        """Why the request of a page is refused, and which flag would allow it."""
        behind = not self._behind_proxy and any(name in head for name in FORWARDED)
        return "requests from pages of other sites are refused; --allow-origin allows them" + (
            "; or, if a proxy passes requests on to this gateway, start it with --behind-proxy" if behind else ""
        )

    def _is_allowed(self, origin: bytes) -> bool:
        return origin in self._origins or b"*" in self._origins

    def _by_token(self, tokens: Tokens, head: Head, subprotocols: list[str]) -> Caller:
        authorization = head.get(b"authorization", b"")
        scheme, _, token = authorization.partition(b" ")
        if not authorization:
            offered = next((each for each in subprotocols if each.startswith("bearer.")), "")
            scheme, token = (
                (b"bearer", offered.removeprefix("bearer.").encode("latin-1", "replace")) if offered else (b"", b"")
            )
        caller = tokens.find(token.strip()) if scheme.lower() == b"bearer" else None
        if caller is None:
            known = scheme.lower() == b"bearer"
            detail = "the token is not known" if known else "a token is needed: Authorization: Bearer TOKEN"
            raise Refusal(401, "UNAUTHORIZED", detail, [(b"www-authenticate", b"Bearer")])
        return caller


def refuse_unless(allowed: bool, what: str) -> None:
    """Raise Refusal 403 unless the caller is `allowed` to do `what`."""
    if not allowed:
        raise Refusal(403, "FORBIDDEN", f"this token may not {what}")
