"""How to connect to RabbitMQ: credentials, vhost, TLS, times. In: values of flags and options. Out: what a connection
needs. No repr shows the password."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from qtools import __version__
from qtools.engines.amqp.protocol.session import Login
from qtools.host_port import split_host_port

if TYPE_CHECKING:
    import ssl

    from qtools.engines.connections.open_connection import PeerAddress
    from qtools.engines.connections.tls import TlsSettings

CONNECT_TIMEOUT = 10.0  # s for the connection and its handshake
# s. A connection counts as lost after two that are missed. RabbitMQ proposes 60; an unplugged cable sends no error.
HEARTBEAT = 20
USER = PASSWORD = "guest"  # RabbitMQ's default user; it is accepted from the same machine only
MECHANISMS = ("PLAIN", "EXTERNAL")
QUEUE_TYPES = ("quorum", "classic")


@dataclass(slots=True)
class AmqpSettings:
    """Everything about a connection, and what its queues are.

    hosts: "HOST:PORT" each, nodes of one cluster. queue: the name of a queue that is read without an exchange, and that
    is published to; "" for exchanges and the queues that are bound to them. queue_type, exchange_type: of those that
    are created. management: the URL of the HTTP API, "" if it is not used. heartbeat: s.
    """

    hosts: tuple[str, ...]
    program: str = "qtools"
    client_id: str = ""
    user: str = ""
    password: str = field(default="", repr=False)
    mechanism: str = "PLAIN"
    vhost: str = "/"
    heartbeat: int = HEARTBEAT
    tls: bool = False
    tls_ca: str = ""
    tls_cert: str = ""
    tls_key: str = ""
    tls_insecure: bool = False
    queue: str = ""
    queue_type: str = "quorum"
    exchange_type: str = "fanout"
    management: str = ""
    connect_timeout: float = CONNECT_TIMEOUT  # s
    _tls: TlsSettings | None = field(default=None, repr=False)

    def login(self) -> Login:
        """What the handshake says."""
        properties = [
            ("product", self.program), ("version", __version__), ("platform", "Python"),
            ("connection_name", self.client_id or self.program),
        ]  # fmt: skip
        has_user = bool(self.user)
        return Login(
            self.mechanism, self.user if has_user else USER, self.password if has_user else PASSWORD, self.vhost,
            self.heartbeat, tuple(properties),
        )  # fmt: skip

    def tls_context(self) -> ssl.SSLContext | None:
        """None without TLS; StartError when one of its files cannot be used."""
        return self.tls_settings().context() if self.tls else None

    def management_tls_context(self) -> ssl.SSLContext | None:
        """The same for the management's HTTP API; None for httpx's default, where nothing was said about TLS."""
        return self.tls_settings().context() if self.mentions_tls else None

    @property
    def mentions_tls(self) -> bool:
        """Whether anything was said about TLS."""
        return bool(self.tls or self.tls_ca or self.tls_cert or self.tls_key or self.tls_insecure)

    def tls_settings(self) -> TlsSettings:
        """What was said about TLS; always the same object, which keeps the context."""
        if self._tls is None:
            from qtools.engines.connections.tls import TlsFiles, TlsSettings

            files = TlsFiles(self.tls_ca, self.tls_cert, self.tls_key, self.tls_insecure)
            is_used = self.tls or self.management.startswith("https:")
            self._tls = TlsSettings(is_used, files, "an amqps:// URL")
        return self._tls

    def peers(self) -> list[PeerAddress]:
        """The nodes, in the order in which they are tried."""
        from qtools.engines.connections.open_connection import PeerAddress

        found = []
        for address in self.hosts:
            host, port = split_host_port(address)
            hint = "port 15672 is the management's HTTP API; AMQP's is usually 5672" if port == 15672 else ""
            found.append(PeerAddress(address, "AMQP", "RabbitMQ", host, port or 0, hint=hint))
        return found

    def __str__(self) -> str:
        return ",".join(self.hosts)
