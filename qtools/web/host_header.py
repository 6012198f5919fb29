"""Which machine a request is meant for. In: a Host header, a host. Out: names without port; whether it is this machine.

A web page can reach a service on a loopback address under a name of its own: its owner changes the address of the name
after the page was loaded (DNS rebinding). The Host header of such requests has that name.
"""

from __future__ import annotations

import ipaddress
import re

# A name or an address, and a port: what a URL has between `//` and the next `/` (RFC 3986, 3.2.2), without a user.
_HOST = re.compile(rb"[a-zA-Z0-9!$%&'()*+,\-.:;=\[\]_~]*")


def is_good_host(hosts: list[bytes], version: str) -> bool:
    """Whether a request of HTTP/`version` with the Host headers `hosts` is valid (RFC 9112, 3.2): there is one,
    well-formed or empty; before HTTP/1.1 there may be none."""
    if len(hosts) != 1:
        return not hosts and version != "1.1"
    return _HOST.fullmatch(hosts[0]) is not None


def bare_host(header: bytes) -> str:
    """The host without its port: `Queue.Example:80` → `queue.example`, `[::1]:80` → `::1` (RFC 9110, 7.2)."""
    name = header.decode("latin-1").strip().lower()
    return name[1:].partition("]")[0] if name.startswith("[") else name.partition(":")[0]


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a service on `host`, an address or `localhost`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
