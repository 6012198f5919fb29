"""How to connect: TLS, AUTH, compression, names, timeouts. In: values of flags. Out: what a connection needs.

No repr shows the secret.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from qtools import __version__
from qtools.engines.nsq.protocol.identify import IdentifyRequest

if TYPE_CHECKING:
    import ssl

    from qtools.engines.connections.tls import TlsSettings

# nsqd answers within milliseconds. After this time, nothing or another program listens there.
CONNECT_TIMEOUT = 10.0
# A connection counts as lost after two missed heartbeats. Half of nsqd's default, as an unplugged cable sends no error.
HEARTBEAT_MS = 15_000


@dataclass(slots=True)
class Settings:
    """Everything about a connection but the address. Times are in ms, except those marked with s."""

    program: str = "qtools"
    client_id: str = ""
    msg_timeout: int = 0
    heartbeat_interval: int = HEARTBEAT_MS
    tls: bool = False
    tls_ca: str = ""
    tls_cert: str = ""
    tls_key: str = ""
    tls_key_password: str = field(default="", repr=False)
    tls_insecure: bool = False
    secret: bytes | None = field(default=None, repr=False)
    snappy: bool = False
    deflate: bool = False
    deflate_level: int = 6
    connect_timeout: float = CONNECT_TIMEOUT  # s
    _tls: TlsSettings | None = field(default=None, repr=False, compare=False)

    def identify_request(self) -> IdentifyRequest:
        """The IDENTIFY request."""
        host = socket.gethostname()
        return IdentifyRequest(
            client_id=self.client_id or host.partition(".")[0],
            hostname=host,
            user_agent=f"{self.program}/{__version__}",
            heartbeat_interval=self.heartbeat_interval,
            msg_timeout=self.msg_timeout,
            tls_v1=self.tls,
            snappy=self.snappy,
            deflate=self.deflate,
            deflate_level=self.deflate_level,
        )

    def tls_context(self) -> ssl.SSLContext | None:
        """The TLS context of a TCP connection, None for an unencrypted one; StartError when one of its files cannot be
        used."""
        return self.tls_settings().context() if self.tls else None

    def http_tls_context(self) -> ssl.SSLContext | None:
        """The TLS context of an https:// request, or None for httpx's default where no TLS flag is given.

        It does not depend on `tls`: nsqlookupd may be behind HTTPS where nsqd's TCP port is not encrypted.
        """
        return self.tls_settings().context() if self.mentions_tls else None

    @property
    def mentions_tls(self) -> bool:
        """Whether anything was said about TLS."""
        return bool(self.tls or self.tls_ca or self.tls_cert or self.tls_key or self.tls_insecure)

    def tls_settings(self) -> TlsSettings:
        """What was said about TLS; always the same object, which keeps the context."""
        if self._tls is None:
            from qtools.engines.connections.tls import TlsFiles, TlsSettings

            files = TlsFiles(self.tls_ca, self.tls_cert, self.tls_key, self.tls_insecure, self.tls_key_password)
            self._tls = TlsSettings(self.tls, files, "an https:// address")
        return self._tls
