"""Splits a network address into host and port. In: text. Out: host and port, or ValueError. No name is looked up.

    HOST:PORT   HOST   [IPv6]:PORT   [IPv6]   :PORT

Every address that a user gives in this form is split here. The caller decides what a missing host or port means,
whether the port 0 is allowed, and what an error message advises.
"""

from __future__ import annotations

import re

_ADDRESS = re.compile(
    r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+(?:%\w+)?)\]|(?P<host>[^\s:/\[\]@,?#]+))?(?::(?P<port>[0-9]+))?", re.ASCII
)
BAD_PORT = "has a port that is not between 1 and 65535"
BAD_HOST = "has a host that is not a name: each part between dots has 1 to 63 characters"


class NotAnAddress(ValueError):
    """The text has none of the forms above. `advice`: how to write the address, or ""."""

    def __init__(self, advice: str) -> None:
        self.advice = advice
        super().__init__(advice or "is not HOST:PORT")


def split_host_port(text: str) -> tuple[str, int | None]:
    """Host, without brackets, and port; "" or None where the text has none. The port may be 0.

    NotAnAddress if the text has another form, and ValueError if a part of it is out of range. The text of an error
    continues a sentence that begins with the address: "a..b:1 has a host that is not a name".
    """
    found = _ADDRESS.fullmatch(text)
    if found is None or not text:
        looks_like_ipv6 = text.count(":") > 1 and "," not in text and "/" not in text
        raise NotAnAddress("looks like IPv6: write it as [ADDRESS]:PORT" if looks_like_ipv6 else "")
    digits = found["port"]
    if digits is not None and (len(digits) > 8 or int(digits) > 65535):
        raise ValueError(BAD_PORT)
    host = found["ipv6"] or found["host"] or ""
    if host and (
        not host.isprintable()
        or len(host) > 255
        or not all(0 < len(label) < 64 for label in host.removesuffix(".").split("."))  # RFC 1035, 2.3.4
    ):
        raise ValueError(BAD_HOST)
    return host, None if digits is None else int(digits)


def join_host_port(host: str, port: int) -> str:
    """The address as text; an IPv6 address stands in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
