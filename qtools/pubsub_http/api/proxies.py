"""Requests that come through a proxy. In: the head of a request. Out: the client's own scheme and host; a warning.

A proxy that terminates TLS sends plain HTTP, and often with another Host. With --behind-proxy its headers about the
client's own request are trusted; without it they are ignored, because any client may send them:

    X-Forwarded-Proto: https   X-Forwarded-Host: pub.example      or      Forwarded: proto=https;host=pub.example

Of several values the last one counts, which the nearest proxy has written.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping

log = logging.getLogger("qtools.pubsub")

_SIGNS = (
    b"via",
    b"forwarded",
    b"x-forwarded-for",
)  # RFC 9110, 7.6.3; RFC 7239; its predecessor, which most proxies send
FORWARDED = (b"x-forwarded-proto", b"x-forwarded-host", b"forwarded", b"x-forwarded-for")
_PAIR = re.compile(rb'(?:^|[;,])\s*(proto|host)=(?:"([^"]*)"|([^;,"\s]*))', re.IGNORECASE)
WARNING = b"ack=auto behind a proxy: a message is finished when the proxy has taken it; use ack=client"


def as_asked(head: Mapping[bytes, bytes], secure: bool, host: bytes) -> tuple[bool, bytes]:
    """Whether the client used HTTPS, and its Host, by the headers of the proxy; without them `secure` and `host`."""
    proto, named = _last(head.get(b"x-forwarded-proto", b"")), _last(head.get(b"x-forwarded-host", b""))
    if not proto and not named:
        pairs = _PAIR.findall(_last(head.get(b"forwarded", b"")))
        values = {name.lower(): quoted or plain for name, quoted, plain in pairs}
        proto, named = values.get(b"proto", b""), values.get(b"host", b"")
    return (proto.lower() in (b"https", b"wss") if proto else secure), named or host


def _last(value: bytes) -> bytes:
    return value.rpartition(b",")[2].strip()


class ProxyWarning:
    """Warns that with ack=auto a message is finished when the proxy has taken it: in a header, and once in the log.

    behind_proxy: there is a proxy, whatever the headers of a request show.
    """

    def __init__(self, behind_proxy: bool) -> None:
        self._behind_proxy = behind_proxy
        self._is_logged = False

    def headers(self, head: Mapping[bytes, bytes], path: str) -> list[tuple[bytes, bytes]]:
        """The headers for an answer with ack=auto."""
        sign = next((name.decode() for name in _SIGNS if name in head), "")
        if not sign and not self._behind_proxy:
            return []
        if not self._is_logged:
            self._is_logged = True
            seen = f"its header {sign} says" if sign else "--behind-proxy says"
            log.warning(
                "GET %s came through a proxy (%s): with ack=auto a message is finished when the proxy has taken it, and"
                " is lost if the client goes before the proxy has passed it on; ack=client waits for the client",
                path, seen,
            )  # fmt: skip
        return [(b"q-warning", WARNING)]
