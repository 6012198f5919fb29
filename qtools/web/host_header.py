"""Which machine a request means. In: a Host header, a host. Out: names without port, whether it is this machine's.

A web page can reach a service on a loopback address under a name of its own, whose address its owner changes after
the page was loaded (DNS rebinding). Host then has that name, and so tells such requests apart.
"""

from __future__ import annotations

import ipaddress
import re

# A name, an address, a port: what a URL may have between `//` and the next `/` (RFC 3986, 3.2.2), without a user.
_HOST = re.compile(rb"[a-zA-Z0-9!$%&'()*+,\-.:;=\[\]_~]*")


def is_good_host(hosts: list[bytes], version: str) -> bool:
    """Whether a server accepts a request of HTTP/`version` with the Host headers `hosts` (RFC 9112, 3.2): with one that
    is well-formed, or empty; with none only before HTTP/1.1."""
    if len(hosts) != 1:
        return not hosts and version != "1.1"
    return _HOST.fullmatch(hosts[0]) is not None


def bare_host(header: bytes) -> str:
    """`Queue.Example:80` → `queue.example`, `[::1]:80` → `::1` (RFC 9110, 7.2)."""
    name = header.decode("latin-1").strip().lower()
    return name[1:].partition("]")[0] if name.startswith("[") else name.partition(":")[0]


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a service that listens on `host`, an address or `localhost`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
