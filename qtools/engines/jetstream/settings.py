"""How to connect to NATS, and how streams and consumers are created. In: values of options. Out: plain data."""

from __future__ import annotations

from typing import Any, NamedTuple

from qtools import __version__
from qtools.engines.connections.tls import TlsFiles

CONNECT_TIMEOUT = 10.0  # s; a server answers within milliseconds
PING_INTERVAL = 15.0  # s; a connection counts as lost after two that are not answered


class JetStreamSettings(NamedTuple):
    """hosts: "HOST:PORT" each. tls: connections are encrypted; tls_first: before INFO, as a server with
    handshake_first wants it. Of user and password, token, nkey_seed and jwt with nkey_seed one at most is used.

    domain: of JetStream. ack_wait: s after which an unfinished message comes again, for consumers that are created.
    stream: fields of the configuration of streams that are created.
    """

    hosts: tuple[str, ...]
    program: str = "qtools"
    client_id: str = ""
    tls: bool = False
    tls_first: bool = False
    tls_ca: str = ""
    tls_cert: str = ""
    tls_key: str = ""
    tls_insecure: bool = False
    tls_key_password: str = ""
    user: str = ""
    password: str = ""
    token: str = ""
    nkey_seed: str = ""
    jwt: str = ""
    domain: str = ""
    connect_timeout: float = CONNECT_TIMEOUT
    ping_interval: float = PING_INTERVAL
    ack_wait: float = 30.0
    stream: tuple[tuple[str, Any], ...] = ()

    def __str__(self) -> str:
        return ",".join(self.hosts)

    def __repr__(self) -> str:
        return f"JetStreamSettings({self})"  # without secrets

    @property
    def tls_files(self) -> TlsFiles:
        return TlsFiles(self.tls_ca, self.tls_cert, self.tls_key, self.tls_insecure, self.tls_key_password)

    @property
    def client_name(self) -> str:
        """What the server's own reports call this client."""
        return self.client_id or f"{self.program}/{__version__}"

    @property
    def api_prefix(self) -> str:
        """How the subjects of JetStream's API begin."""
        return f"$JS.{self.domain}.API." if self.domain else "$JS.API."
