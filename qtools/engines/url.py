"""A broker's address as a URL, and the full address of a topic. In: text. Out: BrokerUrl, or AddressInvalid. No I/O.

    SCHEME://[:PASSWORD@]HOST[:PORT][,HOST[:PORT]…][/TOPIC[/CHANNEL]][?KEY=VALUE[&KEY=VALUE…]]
    nsq+unix:/PATH[?…]                          the socket's path, and no topic
    nsq+unix://%2FPATH[/TOPIC[/CHANNEL]][?…]    the socket's path as the host, percent-encoded

There are no fragments: a '#' belongs to a name, as in events/tail#ephemeral; it may also be written %23. User name and
password appear in no text that this module makes: not in str(), not in repr(), not in a message.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from qtools.errors import AddressInvalid, NameInvalid, without_userinfo
from qtools.host_port import BAD_PORT, NotAnAddress, join_host_port, split_host_port
from qtools.names import LONGEST_NAME, check_channel, check_topic


class Scheme(NamedTuple):
    """What a scheme says: the engine, as messages name it, the default port, and whether connections use TLS."""

    engine: str
    port: int
    is_tls: bool = False


LOCAL = "local"  # in place of a URL or the name of a profile: the private local broker
UNIX = "nsq+unix"
SCHEMES = {
    "nsq": Scheme("NSQ", 4150),
    "nsqs": Scheme("NSQ", 4150, is_tls=True),
    "nsq+lookupd": Scheme("NSQ", 4161),
    "nsqs+lookupd": Scheme("NSQ", 4161, is_tls=True),
    UNIX: Scheme("NSQ", 0),
    "kafka": Scheme("Kafka", 9092),
    "kafkas": Scheme("Kafka", 9092, is_tls=True),
    "nats": Scheme("NATS", 4222),
    "natss": Scheme("NATS", 4222, is_tls=True),
    "redis": Scheme("Redis", 6379),
    "rediss": Scheme("Redis", 6379, is_tls=True),
    "amqp": Scheme("RabbitMQ", 5672),
    "amqps": Scheme("RabbitMQ", 5671, is_tls=True),
}


def example_urls(place: str = "") -> str:
    """A URL of each engine, as a part of a sentence. place: "HOST:PORT" for all of them."""
    urls = [f"{name}://{place or f'HOST:{port}'}" for name, port in default_ports().items()]
    return f"{', '.join(urls[:-1])}, or {urls[-1]}"


def default_ports() -> dict[str, int]:
    """The first scheme of each engine, and its port."""
    found: dict[str, tuple[str, int]] = {}
    for name, scheme in SCHEMES.items():
        found.setdefault(scheme.engine, (name, scheme.port))
    return dict(found.values())


_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
# RFC 3986, 3.3 and 3.4: what may stand in a path's segment, and in a query's value, besides letters and digits.
_SAFE_IN_NAME = "-._~!$'()*+;:="
_SAFE_IN_QUERY = "-._~!$'()*;:/,"


class BrokerUrl(NamedTuple):
    """A broker, and maybe one of its topics.

    scheme: as written, in lower case. hosts: each "HOST:PORT", the port always there; none for a unix socket.
    socket: the path of a unix socket, or "". query: (key, value) in the order written, "-" in a key as "_".
    user, password: decoded, "" if there is none.
    """

    scheme: str
    hosts: tuple[str, ...] = ()
    socket: str = ""
    topic: str = ""
    channel: str = ""
    query: tuple[tuple[str, str], ...] = ()
    user: str = ""
    password: str = ""

    @property
    def engine(self) -> str:
        """The engine that serves it, as messages name it."""
        return SCHEMES[self.scheme].engine

    @property
    def is_tls(self) -> bool:
        """Whether the scheme asks for TLS."""
        return SCHEMES[self.scheme].is_tls

    @property
    def is_lookupd(self) -> bool:
        """Whether the hosts are nsqlookupds, which know the brokers."""
        return self.scheme.endswith("+lookupd")

    @property
    def has_userinfo(self) -> bool:
        """Whether a user name or a password stands in it."""
        return bool(self.user or self.password)

    @property
    def broker(self) -> BrokerUrl:
        """The same without the topic."""
        return self._replace(topic="", channel="")

    def __str__(self) -> str:
        """The URL again, without user name and password."""
        names = [_encoded(name, _SAFE_IN_NAME) for name in (self.topic, self.channel) if name]
        query = "&".join(f"{_encoded(key)}={_encoded(value, _SAFE_IN_QUERY)}" for key, value in self.query)
        if self.socket and not names:
            start = f"{UNIX}:{_encoded(self.socket, '/')}"
        else:
            start = f"{self.scheme}://{_encoded(self.socket) or ','.join(self.hosts)}"
        return "/".join([start, *names]) + (f"?{query}" if query else "")

    def __repr__(self) -> str:
        return f"<BrokerUrl {self}>"


def is_url(text: str) -> bool:
    """Whether `text` is meant as a URL, right or wrong; no topic's name is."""
    return _SCHEME.match(text) is not None or text.lower().startswith(UNIX + ":")


def parse_url(text: str, *, template: bool = False) -> BrokerUrl:
    r"""The URL `text` as a BrokerUrl; AddressInvalid, NameInvalid otherwise.

    template: a topic with `\(` in it is a template. It is taken as written, to the end of the text, unchecked.
    """
    text = text.strip()
    shown = without_userinfo(text)
    scheme, start, rest = _split_scheme(text, shown)
    if scheme == UNIX and not start:
        path, _, query = rest.removeprefix("//").partition("?")
        return BrokerUrl(scheme, socket=_socket(_decoded(path), shown), query=_query(query, shown))
    place = re.search(r"[/?]", rest)
    authority, tail = (rest[: place.start()], rest[place.start() :]) if place else (rest, "")
    userinfo, _, authority = authority.rpartition("@")
    user, _, password = map(_decoded, userinfo.partition(":"))
    found = BrokerUrl(scheme, user=user, password=password)
    if scheme == UNIX:
        found = found._replace(socket=_socket(_decoded(authority), shown))
    else:
        found = found._replace(hosts=_hosts(authority, scheme, shown))
    if template and tail.startswith("/") and "\\(" in tail:
        return found._replace(topic=tail[1:])
    path, _, query = tail.partition("?")
    topic, channel = _names(path, shown)
    return found._replace(topic=topic, channel=channel, query=_query(query, shown))


def split_address(text: str, *, template: bool = False) -> tuple[BrokerUrl | None, str]:
    """A word where a topic may stand → its broker, or None if it names none, and `TOPIC` or `TOPIC/CHANNEL`.

    The names of a word that is no URL are not checked. template: as for parse_url.
    """
    if not is_url(text):
        return None, text
    url = parse_url(text, template=template)
    if not url.topic:
        example = f"{UNIX}://%2FPATH" if url.socket else f"{url.scheme}://{','.join(url.hosts)}"
        raise AddressInvalid(str(url), f"names no topic: write {example}/TOPIC")
    return url.broker, f"{url.topic}/{url.channel}" if url.channel else url.topic


def _split_scheme(text: str, shown: str) -> tuple[str, str, str]:
    """(scheme, "://" or "", the rest); AddressInvalid unless the scheme is one of SCHEMES."""
    found = _SCHEME.match(text)
    if text.lower().startswith(UNIX + ":"):
        rest = text[len(UNIX) + 1 :]
        # Two slashes begin a host, as everywhere; three are the usual way to write a path without one.
        is_host = rest.startswith("//") and not rest.startswith("///")
        return (UNIX, "://", rest[2:]) if is_host else (UNIX, "", rest)
    if found is None:
        raise AddressInvalid(shown, "is no URL such as nsq://HOST:4150")
    scheme = found[1].lower()
    if scheme not in SCHEMES:
        raise AddressInvalid(shown, f"has the unknown scheme {scheme!r}; known are {_listed(SCHEMES)}")
    return scheme, "://", text[found.end() :]


def _hosts(authority: str, scheme: str, shown: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(_host(part, scheme, shown) for part in authority.split(",")))


def _host(text: str, scheme: str, shown: str) -> str:
    """HOST[:PORT] → HOST:PORT, an IPv6 address in brackets."""
    default = SCHEMES[scheme].port
    try:
        host, port = split_host_port(text)
    except NotAnAddress as error:  # the text may be a part of a password: it is not shown
        names_no_host = not text or text.startswith(":")
        advice = f"names no host: write {scheme}://HOST:{default}" if names_no_host else error.advice
        raise AddressInvalid(shown, advice or f"is not {scheme}://HOST:PORT") from None
    except ValueError as error:
        raise AddressInvalid(shown, str(error)) from None
    if not host:
        raise AddressInvalid(shown, f"names no host: write {scheme}://HOST:{default}")
    port = default if port is None else port
    if not port:
        raise AddressInvalid(shown, BAD_PORT)
    return join_host_port(host, port)


def _socket(path: str, shown: str) -> str:
    if not path.startswith("/"):
        raise AddressInvalid(
            shown, f"needs an absolute path: {UNIX}:/path/to.sock, or {UNIX}://%2Fpath%2Fto.sock/TOPIC"
        )
    return path


def _names(path: str, shown: str) -> tuple[str, str]:
    """`/TOPIC[/CHANNEL]`, or nothing → (topic, channel), "" for what is not there."""
    if path in ("", "/"):
        return "", ""
    if "@" in path:  # what stands before it may be the rest of a password
        raise AddressInvalid(shown, "has an '@' behind the host; in a password write / as %2F and @ as %40")
    parts = [_decoded(part) for part in path[1:].split("/")]
    if len(parts) > 2:
        raise AddressInvalid(shown, "has more than TOPIC/CHANNEL behind the host")
    try:
        return check_topic(parts[0], LONGEST_NAME), check_channel(parts[1], LONGEST_NAME) if len(parts) > 1 else ""
    except NameInvalid as error:
        raise AddressInvalid(shown, f"has a wrong name: {error}") from error


def _query(text: str, shown: str) -> tuple[tuple[str, str], ...]:
    """`KEY=VALUE&…` → pairs."""
    pairs = []
    for part in filter(None, text.split("&")):
        key, separator, value = part.partition("=")
        if not separator or not key:
            # The part may belong to a password with a '?' in it.
            raise AddressInvalid(shown, "has a query that is not KEY=VALUE[&KEY=VALUE…]")
        pairs.append((_decoded(key).replace("-", "_"), _decoded(value)))
    keys = [key for key, _ in pairs]
    for key in keys:
        if keys.count(key) > 1:
            raise AddressInvalid(shown, f"gives {key!r} twice")
    return tuple(pairs)


def _decoded(text: str) -> str:
    """Percent-encoded text as it is; bytes that are not UTF-8 as the system's names have them."""
    from urllib.parse import unquote

    return unquote(text, errors="surrogateescape")


def _encoded(text: str, safe: str = "") -> str:
    from urllib.parse import quote

    return quote(text, safe=safe, errors="surrogateescape")


def _listed(schemes: Iterable[str]) -> str:
    return ", ".join(each + ("://" if each != UNIX else ":/PATH") for each in schemes)
