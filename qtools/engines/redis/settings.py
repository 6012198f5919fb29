"""How to connect to Redis. In: hosts, a user, TLS, options. Out: what a connection needs. No repr shows a secret."""

from __future__ import annotations

from typing import NamedTuple

from qtools.engines.connections.tls import TlsFiles, TlsSettings

CONNECT_TIMEOUT = 10.0  # s
MSG_TIMEOUT = 30_000  # ms


class RedisSettings(NamedTuple):
    """hosts: "HOST:PORT" each, of one server and of those that may take its place. db: the number of the database.

    msg_timeout: ms after which a message that its reader neither finishes nor touches is taken by another one.
    max_length: the most entries of a stream that is published to, about; 0 for no limit. resp: the version of the
    protocol, 2 or 3.
    """

    hosts: tuple[str, ...]
    program: str = "qtools"
    client_id: str = ""
    db: int = 0
    user: str = ""
    secret: bytes | None = None
    tls: bool = False
    tls_ca: str = ""
    tls_cert: str = ""
    tls_key: str = ""
    tls_insecure: bool = False
    tls_key_password: str = ""
    msg_timeout: int = MSG_TIMEOUT
    max_length: int = 0
    resp: int = 2

    def __repr__(self) -> str:
        return f"RedisSettings({self})"

    def __str__(self) -> str:
        """The address, as the user knows it."""
        return ",".join(self.hosts) + (f"?db={self.db}" if self.db else "")

    @property
    def client_name(self) -> str:
        """What CLIENT LIST shows. Redis accepts no spaces there."""
        given = self.client_id or self.program
        return "".join(char if "!" <= char <= "~" else "-" for char in given) or "qtools"

    def tls_settings(self) -> TlsSettings | None:
        """None if nothing was said about TLS."""
        files = TlsFiles(self.tls_ca, self.tls_cert, self.tls_key, self.tls_insecure, self.tls_key_password)
        return TlsSettings(self.tls, files, "a rediss:// URL") if self.tls or any(files) else None
