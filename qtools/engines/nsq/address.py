"""Addresses of brokers in their forms, and which brokers a command uses.

    HOST:PORT   [IPv6]:PORT   HOST (nsqd's port, 4150)   unix:/path/to.sock   local (the private local broker)

In: flags and the environment. Out: addresses. Nothing here connects.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from qtools.errors import AddressInvalid, UsageError, without_userinfo
from qtools.host_port import BAD_PORT, NotAnAddress, join_host_port, split_host_port

NSQD_TCP_PORT = 4150
NSQD_HTTP_PORT = 4151
LOOKUPD_HTTP_PORT = 4161
LOOKUPD_TCP_PORT = 4160
LOCAL = "local"  # in place of an HTTP address: that of the private local broker

# For users who gave nsqd's address with a wrong port: what usually listens at that port.
_OTHER_PORTS = {
    NSQD_HTTP_PORT: "that is nsqd's HTTP port, its TCP port is usually 4150",
    LOOKUPD_TCP_PORT: "that is nsqlookupd's TCP port, nsqd's is usually 4150; for discovery use --lookupd HOST:4161",
    LOOKUPD_HTTP_PORT: "that is nsqlookupd's HTTP port; for discovery use --lookupd",
}


# The same for users who gave it as nsqlookupd's HTTP address.
_NOT_LOOKUPD = {
    LOOKUPD_TCP_PORT: "that is nsqlookupd's TCP port, its HTTP port is usually 4161",
    NSQD_TCP_PORT: "that is nsqd's TCP port, nsqlookupd's HTTP port is usually 4161; for one nsqd use --nsqd",
    NSQD_HTTP_PORT: "that is nsqd's HTTP port, nsqlookupd's is usually 4161; for one nsqd use --nsqd HOST:4150",
}


def lookupd_hint(base: str) -> str:
    """A hint for a user who gave `base` as nsqlookupd's address, where no nsqlookupd answers."""
    from urllib.parse import urlsplit

    port = urlsplit(base).port
    return _NOT_LOOKUPD.get(port or 0, "is it nsqlookupd's HTTP port (usually 4161)?")


class Address(NamedTuple):
    """Where a broker listens: `host` and `port`, or `path` of a unix socket.

    `http` is where its HTTP API can be asked ("http://host:port", "unix:/path", LOCAL), or "".
    `local` marks the private local broker, which is started if it does not run. Its sockets are looked up for each
    connection, as the broker that runs by then may have been started in another environment.
    """

    host: str = ""
    port: int = 0
    path: str = ""
    http: str = ""
    local: bool = False

    def __str__(self) -> str:
        if self.local:
            return "the local broker"
        if self.path:
            return f"unix:{self.path}"
        return join_host_port(self.host, self.port)

    @property
    def other_port_hint(self) -> str:
        """What usually listens at this port, if that is not nsqd; "" if it is not known."""
        return _OTHER_PORTS.get(self.port, "")


def parse_address(text: str, default_port: int = NSQD_TCP_PORT) -> Address:
    """Parse an address as users write it; AddressInvalid for other text."""
    text = text.strip()
    if text == "local":
        return local_address()
    if text.startswith("unix:"):
        path = text.removeprefix("unix:").removeprefix("//")
        if not path.startswith("/"):
            raise AddressInvalid(text, "needs an absolute path: unix:/path/to.sock")
        return Address(path=path)
    if "://" in text:
        scheme, _, rest = text.partition("://")
        if scheme not in ("tcp", "nsq", "nsqd"):
            raise AddressInvalid(text, f"is a {scheme} URL; nsqd's TCP address is HOST:PORT")
        text = rest.rstrip("/")
    if "@" in text:
        raise AddressInvalid(
            text, "has a password or an '@'; a URL in QTOOLS_BROKER or in a profile may have a password"
        )
    try:
        host, port = split_host_port(text)
    except NotAnAddress as error:
        advice = "names several: give the flag once for each" if "," in text else error.advice
        raise AddressInvalid(text, advice or "is not HOST:PORT") from None
    except ValueError as error:
        raise AddressInvalid(text, str(error)) from None
    if not host:
        raise AddressInvalid(text, f"has no host: did you mean localhost{text}?")
    port = default_port if port is None else port
    if not port:
        raise AddressInvalid(text, BAD_PORT)
    return Address(host=host, port=port)


def parse_http_address(text: str, default_port: int) -> str:
    """An HTTP address as users write it (HOST:PORT or a URL) → "http://host:port"; AddressInvalid otherwise."""
    text = text.strip()
    if "://" in text and not text.startswith("unix:"):
        from urllib.parse import urlsplit

        try:
            parts = urlsplit(text)
            usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:
            usable = False
        if not usable:
            raise AddressInvalid(text, "is not HOST:PORT nor an http:// URL")
        return text.rstrip("/")
    address = parse_address(text, default_port)
    if address.local:
        raise AddressInvalid(text, "is not HOST:PORT nor an http:// URL")
    return str(address) if address.path else f"http://{address}"


def local_address(environ: Mapping[str, str] = os.environ) -> Address:
    """The address of this user's private local broker. StartError when there is no directory for its files."""
    from qtools.paths import local_broker_paths

    local_broker_paths(environ)
    return Address(http=LOCAL, local=True)


@dataclass
class Brokers:
    """Which brokers to use: `nsqd` addresses, or the nsqds that the `lookupd`s list; never both.

    failing: the HTTP APIs that did not answer the last request, so that a run logs each outage once (discovery.py).
    """

    nsqd: tuple[Address, ...] = ()
    lookupd: tuple[str, ...] = ()
    failing: set[str] = field(default_factory=set, compare=False, repr=False)

    @property
    def uses_https(self) -> bool:
        """Whether an address of an HTTP API among them begins with https://."""
        return any(base.startswith("https://") for base in (*self.lookupd, *(each.http for each in self.nsqd)))

    def __str__(self) -> str:
        if self.lookupd:
            return "nsqlookupd at " + ", ".join(map(without_userinfo, self.lookupd))
        return ", ".join(map(str, self.nsqd))


def choose_brokers(
    nsqd: Sequence[str] = (),
    lookupd: Sequence[str] = (),
    nsqd_http: Sequence[str] = (),
    environ: Mapping[str, str] = os.environ,
) -> Brokers:
    """Flags, else QTOOLS_NSQD or QTOOLS_LOOKUPD (comma-separated), else the private local broker."""
    if nsqd and lookupd:
        raise UsageError("give --nsqd-tcp-address or --lookupd-http-address, not both")
    if not nsqd and not lookupd:
        nsqd = _listed(environ.get("QTOOLS_NSQD", ""))
        lookupd = _listed(environ.get("QTOOLS_LOOKUPD", ""))
        if nsqd and lookupd:
            raise UsageError("QTOOLS_NSQD and QTOOLS_LOOKUPD are both set: unset one of them")
    if nsqd_http and len(nsqd_http) != len(nsqd):
        raise UsageError("give --nsqd-http-address once for each --nsqd-tcp-address, in the same order")
    if lookupd:
        return Brokers(lookupd=tuple(dict.fromkeys(parse_http_address(text, LOOKUPD_HTTP_PORT) for text in lookupd)))
    if not nsqd:
        return Brokers(nsqd=(local_address(environ),))
    addresses = []
    for place, text in enumerate(nsqd):
        address = parse_address(text)
        if nsqd_http:
            address = address._replace(http=parse_http_address(nsqd_http[place], NSQD_HTTP_PORT))
        elif address.port and address.port < 65535:
            address = address._replace(http=f"http://{address._replace(port=address.port + 1)}")
        addresses.append(address)
    return Brokers(nsqd=tuple(dict.fromkeys(addresses)))


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
