"""Content codings of request bodies (RFC 9110, 8.4.1): gzip, deflate, zstd. In: encoded pieces. Out: decoded pieces.

However well a body is compressed, one step gives at most PIECE bytes. The memory holds no more than that, the piece
that was received, and the decoder's window: 32 KiB, with zstd 8 MiB (RFC 9659 allows a sender no more).
"""

from __future__ import annotations

import asyncio
import sys
import zlib
from collections.abc import Iterator
from typing import Any

from qtools.web.request_body import Receive, Refusal, Scope, TooBig, read_body

ACCEPTED = ("gzip", "deflate", "zstd")
PIECE = 64 * 1024  # bytes
MOST_PARTS = 10_000  # members or frames of one body: even an empty one needs a decoder
SPARE = 64 * 1024  # bytes by which an encoded body may be longer than the decoded one
_ALIASES = {"x-gzip": "gzip"}  # RFC 9110, 8.4.1.3
_ZSTD_WINDOW = 23  # log2 of bytes
_GZIP, _ZLIB, _RAW = 31, 15, -15  # zlib's wbits


def coding_of(value: bytes) -> str:
    """The coding that a Content-Encoding header names, "" for none. Raises Refusal 415 for one that is not
    supported."""
    named = [word.strip().lower() for word in value.decode("latin-1").split(",")]
    codings = [_ALIASES.get(word, word) for word in named if word not in ("", "identity")]
    if not codings:
        return ""
    if len(codings) > 1 or codings[0] not in ACCEPTED:
        accepted = ", ".join(ACCEPTED)
        detail = f"Content-Encoding {', '.join(codings)[:80]!r} is not supported; use one of {accepted}"
        raise Refusal(415, "UNSUPPORTED_CONTENT_ENCODING", detail, [(b"accept-encoding", accepted.encode())])
    return codings[0]


class Decoder:
    """Decodes one body. A gzip body may have several members, and a zstd body several frames."""

    def __init__(self, coding: str) -> None:
        self._coding = coding
        self._part: Any = None  # the decoder of the current member or frame
        self._is_over = False  # a deflate body has one part only
        self._parts = 0
        self._head = b""  # the first byte of a deflate body: the format is not known yet

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Decode `data`, in pieces. The caller reads all of them before it calls again. Raises Refusal 400."""
        has_more = False
        while data or has_more:
            if self._part is None:
                if self._is_over:
                    raise self._refusal("there are more bytes after its end")
                data = self._begin(data)
                if self._part is None:
                    return
            try:
                piece, data, has_more = self._step(data)
            except (zlib.error, _zstd().ZstdError) as error:
                raise self._refusal(str(error)) from error
            if piece:
                yield piece

    def end(self) -> None:
        """Note the end of the body. Raises Refusal 400 when it is incomplete."""
        if self._part is not None or self._head:
            raise self._refusal("it is cut off")

    def _begin(self, data: bytes) -> bytes:
        """Make the decoder of the part that begins with `data`. Returns what to feed it with."""
        self._parts += 1
        if self._parts > MOST_PARTS:
            raise self._refusal(f"it has more than {MOST_PARTS} members or frames")
        if self._coding == "zstd":
            zstd = _zstd()
            options = {zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW}
            self._part = zstd.ZstdDecompressor(options=options)
            return data
        if self._coding == "gzip":
            self._part = zlib.decompressobj(_GZIP)
            return data
        # RFC 9110, 8.4.1.2: deflate is the zlib format, but some clients send raw deflate data.
        data, self._head = self._head + data, b""
        if len(data) < 2:
            self._head = data
            return b""
        is_zlib = data[0] & 0x0F == 8 and (data[0] << 8 | data[1]) % 31 == 0
        self._part = zlib.decompressobj(_ZLIB if is_zlib else _RAW)
        return data

    def _step(self, data: bytes) -> tuple[bytes, bytes, bool]:
        """Decode one piece. Returns it, what of `data` has to be fed again, and whether the decoder has more output
        already."""
        part = self._part
        piece: bytes = part.decompress(data, PIECE)
        if part.eof:
            self._part = None
            self._is_over = self._coding == "deflate"
            return piece, part.unused_data, False
        if self._coding == "zstd":
            return piece, b"", not part.needs_input
        return piece, part.unconsumed_tail, len(piece) == PIECE

    def _refusal(self, why: str) -> Refusal:
        return Refusal(400, "INVALID_CONTENT_ENCODING", f"the body is not {self._coding}: {why}")


def _zstd() -> Any:
    """The zstd of the standard library; before Python 3.14 its backport."""
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd


# ── bodies ──────────────────────────────────────────────────────────────────────────────────────


def encoding(scope: Scope) -> str:
    """The coding of a request's body, "" for none. Raises Refusal 415."""
    return coding_of(b",".join([value for name, value in scope["headers"] if name == b"content-encoding"]))


async def read_decoded(scope: Scope, receive: Receive, most: int, too_big: TooBig) -> bytes:
    """The whole body, decoded: at most `most` bytes of it. Raises Refusal 400, 413, 415."""
    coding = encoding(scope)
    source = receive if not coding else _DecodedBody(receive, coding, most + SPARE, too_big)
    return await read_body(scope, source, most, too_big)


class _DecodedBody:
    """Decodes the messages of an ASGI `receive`. most: the limit of the encoded bytes."""

    def __init__(self, receive: Receive, coding: str, most: int, too_big: TooBig) -> None:
        self._receive = receive
        self._decoder = Decoder(coding)
        self._left = most
        self._too_big = too_big
        self._pieces: Iterator[bytes] = iter(())
        self._has_ended = False

    async def __call__(self) -> dict[str, Any]:
        while True:
            piece = next(self._pieces, None)
            if piece is not None:
                await asyncio.sleep(0)  # let the event loop run: even a small body may need much decoding
                return {"type": "http.request", "body": piece, "more_body": True}
            if self._has_ended:
                self._decoder.end()
                return {"type": "http.request", "body": b"", "more_body": False}
            message = await self._receive()
            if message["type"] == "http.disconnect":
                return message
            self._has_ended = not message.get("more_body")
            data: bytes = message.get("body", b"")
            self._left -= len(data)
            if self._left < 0:
                raise self._too_big()
            self._pieces = self._decoder.feed(data)
