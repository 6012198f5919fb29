"""Checks before a gateway listens. In: flags. Out: the allowed hosts and origins, or UsageError."""

from __future__ import annotations

import logging
import resource
from collections.abc import Sequence
from urllib.parse import urlsplit

from qtools.errors import UsageError
from qtools.sockets import unix_path
from qtools.web.host_header import is_loopback

log = logging.getLogger("qtools.pubsub")


def check_address(
    address: str, *, tokens: bool, tls: bool, insecure: bool, names: Sequence[str], behind_proxy: bool = False
) -> frozenset[str] | None:
    """The names that Host may have, None for any; UsageError for a public address without tokens or certificates.

    A web page may reach a loopback address under a name of its own (DNS rebinding), so there only this machine's names
    are answered. Where tokens are required, no check is needed: a page has no token.
    """
    host, colon, _ = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    private = unix_path(address) is not None or not colon or is_loopback(host)  # listen() reports an invalid address
    if not private and not (tokens or tls or insecure):
        raise UsageError(
            f"{address} can be reached from other machines: give --token-file to say what each client may do,"
            " or --https-cert behind a proxy that checks client certificates, or --insecure to allow"
            " every client everything"
        )
    if not private and tokens and not tls and not behind_proxy:
        log.warning("tokens go to %s unencrypted: give --https-cert, or let a proxy serve HTTPS", address)
    given = frozenset(name.lower() for name in names)
    if unix_path(address) is not None or (tokens and not given):
        return None
    if private:
        return given | {host.lower()}
    return given or None


def check_origins(origins: Sequence[str], *, tokens: bool) -> frozenset[str]:
    """The allowed origins; UsageError for one that no browser sends."""
    for origin in origins:
        parts = urlsplit(origin)
        if origin != "*" and (parts.scheme not in ("http", "https") or origin != f"{parts.scheme}://{parts.netloc}"):
            raise UsageError(f"--allow-origin {origin} is no origin: say https://HOST or https://HOST:PORT, or '*'")
    if "*" in origins and not tokens:
        log.warning(
            "every web page that is open on this machine may publish and read: that is what --allow-origin '*' says"
        )
    return frozenset(origins)


def raise_file_limit() -> None:
    """Raise the limit of open files to what the system allows: each client is one, and its channel another."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard or hard == resource.RLIM_INFINITY:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 1 << 20) if hard > 0 else 1 << 20, hard))
        except (OSError, ValueError):
            log.debug("the limit of open files stays at %d", soft)
