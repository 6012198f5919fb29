"""How to connect: TLS, AUTH, compression, names, timeouts. In: values of flags. Out: what a connection needs.

Secrets are read from a file or the environment, never from a command line, which every user of the machine can read. No
repr shows them.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from qtools import __version__
from qtools.engines.nsq.protocol.identify import IdentifyRequest
from qtools.errors import UsageError

if TYPE_CHECKING:
    import ssl

    from qtools.engines.nsq.address import Brokers

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
    tls_insecure: bool = False
    secret: bytes | None = field(default=None, repr=False)
    snappy: bool = False
    deflate: bool = False
    deflate_level: int = 6
    connect_timeout: float = CONNECT_TIMEOUT  # s
    _context: ssl.SSLContext | None = field(default=None, repr=False)

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
        return self._tls_context() if self.tls else None

    def http_tls_context(self) -> ssl.SSLContext | None:
        """The TLS context of an https:// request, or None for httpx's default where no TLS flag is given.

        It does not depend on `tls`: nsqlookupd may be behind HTTPS where nsqd's TCP port is not encrypted.
        """
        return self._tls_context() if self.tls or self.tls_ca or self.tls_cert or self.tls_insecure else None

    def _tls_context(self) -> ssl.SSLContext:
        if self._context is not None:
            return self._context
        from qtools.engines.connections.tls import TlsFiles, make_tls_context

        self._context = make_tls_context(TlsFiles(self.tls_ca, self.tls_cert, self.tls_key, self.tls_insecure))
        return self._context


def read_secret(path: str, environ: Mapping[str, str] = os.environ) -> bytes | None:
    """The AUTH secret from a file, else from QTOOLS_AUTH_SECRET, or None. A final newline is not part of it."""
    if path:
        from qtools.engines.option_values import read_secret_file  # few runs have one

        return read_secret_file(path)
    text = environ.get("QTOOLS_AUTH_SECRET", "")
    return os.fsencode(text) if text else None


def check_settings(*ends: tuple[Brokers, Settings]) -> None:
    """UsageError where settings contradict each other, StartError where a file of theirs cannot be used.

    ends: the brokers that a command speaks to, with the settings for each. What is said about TLS has to be of use for
    one of them.
    """
    for _, settings in ends:
        if settings.snappy and settings.deflate:
            raise UsageError("give --snappy or --deflate, not both")
    uses_tls = any(settings.tls or brokers.uses_https for brokers, settings in ends)
    if not uses_tls and any(
        each.tls_ca or each.tls_cert or each.tls_key or each.tls_insecure for _, each in ends
    ):  # fmt: skip
        raise UsageError(
            "--tls-ca, --tls-cert, --tls-key and --tls-insecure-skip-verify need --tls, or an https:// address"
        )
    for _, settings in ends:
        if settings.tls_key and not settings.tls_cert:
            raise UsageError("--tls-key needs --tls-cert")
        settings.http_tls_context()  # a file that cannot be used is reported now, before anything is sent
