"""TLS, and snappy or deflate, between the socket and the frames. In: bytes. Out: bytes. No I/O.

`decode` transforms the bytes that were received, `encode` those to be sent. Decoded data is returned in pieces of at
most PIECE bytes, so that the size limits of the reader refuse a decompression bomb before it is in memory.

Order on the wire (nsqd/protocol_v2.go, IDENTIFY): TLS outermost, compression within.
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

from qtools.errors import ConnectFailed, ProtocolError, UsageError

if TYPE_CHECKING:
    import ssl

PIECE = 256 * 1024


class Transform(Protocol):
    """Bytes in, bytes out; the result depends on the bytes before."""

    def decode(self, data: bytes) -> Iterator[bytes]: ...
    def encode(self, data: bytes) -> bytes: ...


class Deflate:
    """Raw deflate (RFC 1951, no zlib header), flushed to a byte boundary after every write."""

    def __init__(self, level: int = 6) -> None:
        self._pack = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS)
        self._unpack = zlib.decompressobj(-zlib.MAX_WBITS)

    def decode(self, data: bytes) -> Iterator[bytes]:
        unpack = self._unpack
        try:
            while True:
                piece = unpack.decompress(data, PIECE)
                if piece:
                    yield piece
                data = unpack.unconsumed_tail
                if not data and len(piece) < PIECE:  # after a full piece, more output may follow from the same input
                    break
        except zlib.error as error:
            raise ProtocolError(f"the peer's deflate stream is damaged: {error}") from error
        if unpack.eof and unpack.unused_data:
            raise ProtocolError("the peer sent bytes after the end of its deflate stream")

    def encode(self, data: bytes) -> bytes:
        return self._pack.compress(data) + self._pack.flush(zlib.Z_SYNC_FLUSH) if data else b""


class Snappy:
    """Snappy's framing format: chunks of type 1, length 3 (little-endian), data.

    https://github.com/google/snappy/blob/main/framing_format.txt
    """

    _IDENTIFIER = b"\xff\x06\x00\x00sNaPpY"
    # A chunk holds at most 65536 bytes before compression, and 76490 is snappy's worst case for them; 4 more
    # are its checksum (framing_format.txt, 4.2 and 4.3). The format allows longer padding; here it is refused, as it
    # would be kept in memory.
    _LONGEST = 76490 + 4

    def __init__(self) -> None:
        try:
            from cramjam import snappy
        except ImportError:
            raise UsageError("snappy needs the extra snappy: see qtools help install") from None
        self._snappy = snappy
        self._pack = snappy.Compressor()
        self._begun = False
        self._rest = b""

    def decode(self, data: bytes) -> Iterator[bytes]:
        data = self._rest + data if self._rest else data
        at, end = 0, len(data)
        if not self._begun:
            if data[:10] != self._IDENTIFIER[:end]:
                raise ProtocolError("the peer's snappy stream does not begin with snappy's identifier")
            self._begun = end >= 10
        while True:
            stop, chunks = at, 0
            while end - stop >= 4 and chunks < 4:  # 4 chunks are PIECE bytes at most
                length = int.from_bytes(data[stop + 1 : stop + 4], "little")
                if length > self._LONGEST:
                    raise ProtocolError(f"the peer's snappy stream has a chunk of {length} bytes")
                if stop + 4 + length > end:
                    break
                stop += 4 + length
                chunks += 1
            if stop == at:
                break
            try:
                piece = bytes(self._snappy.decompress(self._IDENTIFIER + data[at:stop]))
            except Exception as error:  # cramjam's own exception class is not exported by every release
                raise ProtocolError(f"the peer's snappy stream is damaged: {error}") from error
            at = stop
            if piece:
                yield piece
        self._rest = data[at:]

    def encode(self, data: bytes) -> bytes:
        if not data:
            return b""
        self._pack.compress(data)
        return bytes(self._pack.flush())


class Tls:
    """One side of a TLS connection over ssl.MemoryBIO.

    `take_output` returns the handshake's bytes to be sent; `established` is True after the handshake.
    """

    def __init__(self, context: ssl.SSLContext, *, server_side: bool = False, server_hostname: str = "") -> None:
        import ssl

        self._ssl = ssl
        self._in = ssl.MemoryBIO()
        self._out = ssl.MemoryBIO()
        self._host = server_hostname
        self._object = context.wrap_bio(
            self._in, self._out, server_side=server_side, server_hostname=server_hostname or None
        )
        self.established = False
        self.finished = False  # the peer has sent its close_notify
        self._broken = False
        if not server_side:
            self._shake()

    def _shake(self) -> None:
        try:
            self._object.do_handshake()
            self.established = True
        except self._ssl.SSLWantReadError:
            pass
        except self._ssl.SSLCertVerificationError as error:
            self._broken = True
            why = error.verify_message or str(error)
            raise ConnectFailed(
                self._host or "TLS", f"its TLS certificate was not accepted: {why.rstrip('.')}", permanent=True
            ) from error
        except self._ssl.SSLError as error:
            self._broken = True
            raise ConnectFailed(
                self._host or "TLS", f"the TLS handshake failed: {error.reason or error}", permanent=True
            ) from error

    def decode(self, data: bytes) -> Iterator[bytes]:
        self._in.write(data)
        if not self.established:
            self._shake()
            if not self.established:
                return
        try:
            while piece := self._object.read(PIECE):
                yield piece
            self.finished = True  # the peer's close_notify was read; without one, read() raises
        except self._ssl.SSLWantReadError:
            pass
        except self._ssl.SSLZeroReturnError:
            self.finished = True
        except self._ssl.SSLError as error:
            self._broken = True
            # With TLS 1.3 a server refuses a client's certificate only after the client has finished the handshake.
            reason = error.reason or str(error)
            if "CERTIFICATE_REQUIRED" in reason:
                reason = "the broker wants a certificate of us: give --tls-cert"
            elif "BAD_CERTIFICATE" in reason:  # a server built with Go before 1.21 sends this for a missing one
                reason = "the broker refused our certificate, or wants a certificate of us: give --tls-cert"
            elif "ALERT_" in reason:
                reason = f"the broker refused us: {reason.partition('ALERT_')[2].lower().replace('_', ' ')}"
            permanent = "cert" in reason.lower() or "unknown ca" in reason
            raise ConnectFailed(self._host or "TLS", f"TLS failed: {reason}", permanent=permanent) from error

    def encode(self, data: bytes) -> bytes:
        if data and not self._broken:  # else only the alert can still be sent
            self._object.write(data)
        return self._out.read()

    def goodbye(self) -> bytes:
        """The close_notify to be sent; some peers wait for it before they close."""
        if self.established and not self._broken:
            self._broken = True
            with contextlib.suppress(self._ssl.SSLError):  # it raises, as the peer's close_notify is not there yet
                self._object.unwrap()
        return self._out.read()

    @property
    def common_name(self) -> str:
        """The common name in the peer's certificate; "" without one."""
        certificate = self._object.getpeercert() or {}
        named: tuple[tuple[tuple[str, str], ...], ...] = certificate.get("subject", ())  # type: ignore[assignment]
        return next((value for part in named for key, value in part if key == "commonName"), "")

    @property
    def terms(self) -> tuple[str, str]:
        """The TLS version and the cipher that were negotiated; "" before the handshake."""
        cipher = self._object.cipher()
        return self._object.version() or "", cipher[0] if cipher else ""

    @property
    def has_output(self) -> bool:
        return self._out.pending > 0

    def take_output(self) -> bytes:
        """The bytes that TLS itself has to send: of the handshake, and alerts."""
        return self._out.read()
