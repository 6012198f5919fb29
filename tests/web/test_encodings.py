"""Content codings of bodies: whole, byte by byte, cut, as garbage, and as bombs."""

from __future__ import annotations

import gzip
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from importlib import import_module

import pytest

from qtools.web.content_codings import MOST_PARTS, PIECE, Decoder, coding_of, read_decoded
from qtools.web.request_body import Refusal

zstd = import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")

PLAIN = b"".join(b"%d\n" % number for number in range(40_000))


def raw_deflate(data: bytes) -> bytes:
    made = zlib.compressobj(wbits=-15)
    return made.compress(data) + made.flush()


ENCODED: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("gzip", gzip.compress),
    ("gzip", lambda data: gzip.compress(data[:1000]) + gzip.compress(b"") + gzip.compress(data[1000:])),
    ("deflate", zlib.compress),
    ("deflate", raw_deflate),
    ("zstd", zstd.compress),
    ("zstd", lambda data: zstd.compress(data[:1000]) + zstd.compress(data[1000:])),
]
CODINGS = pytest.mark.parametrize(
    ("coding", "encode"), ENCODED, ids=["gzip", "members", "zlib", "raw", "zstd", "frames"]
)


def decoded(coding: str, *pieces: bytes) -> bytes:
    decoder = Decoder(coding)
    out = [out for piece in pieces for out in decoder.feed(piece)]
    decoder.end()
    assert all(0 < len(each) <= PIECE for each in out)
    return b"".join(out)


@CODINGS
@pytest.mark.parametrize("plain", [b"", b"a", PLAIN, b"\0" * 1_000_000], ids=["nothing", "a byte", "lines", "zeros"])
def test_whole_and_byte_by_byte(coding: str, encode: Callable[[bytes], bytes], plain: bytes) -> None:
    body = encode(plain)
    assert decoded(coding, body) == plain
    assert decoded(coding, *(body[at : at + 1] for at in range(len(body)))) == plain


@CODINGS
def test_a_body_that_is_cut_is_refused(coding: str, encode: Callable[[bytes], bytes]) -> None:
    body = encode(PLAIN)
    for length in (1, 2, 5, len(body) // 2, len(body) - 1):
        with pytest.raises(Refusal) as refused:
            decoded(coding, body[:length])
        assert (refused.value.status, refused.value.word) == (400, "INVALID_CONTENT_ENCODING")


@CODINGS
def test_garbage_is_refused(coding: str, encode: Callable[[bytes], bytes]) -> None:
    for body in (b"hello, world\n" * 10, encode(b"hello") + b"garbage", b"\xff" * 100):
        with pytest.raises(Refusal) as refused:
            decoded(coding, body)
        assert refused.value.status == 400


@pytest.mark.parametrize(
    ("value", "coding"),
    [
        (b"", ""), (b"identity", ""), (b"gzip", "gzip"), (b"GZip", "gzip"), (b"x-gzip", "gzip"),
        (b" deflate ", "deflate"),
        (b"identity, zstd", "zstd"),
    ],
)  # fmt: skip
def test_what_a_header_names(value: bytes, coding: str) -> None:
    assert coding_of(value) == coding


@pytest.mark.parametrize("value", [b"br", b"compress", b"gzip, gzip", b"gzip,br", b"chunked", b"\xff", b"none"])
def test_what_is_not_decoded_names_what_is(value: bytes) -> None:
    with pytest.raises(Refusal) as refused:
        coding_of(value)
    assert refused.value.status == 415
    assert "gzip, deflate, zstd" in refused.value.detail
    assert refused.value.headers == [(b"accept-encoding", b"gzip, deflate, zstd")]


# ── bodies of requests ──


def too_big() -> Refusal:
    return Refusal(413, "BODY_TOO_BIG")


MOST = 1_000_000


async def read(coding: str, *pieces: bytes) -> bytes:
    waiting = list(pieces)

    async def receive() -> dict[str, object]:
        body = waiting.pop(0)
        return {"type": "http.request", "body": body, "more_body": bool(waiting)}

    return await read_decoded({"headers": [(b"content-encoding", coding.encode())]}, receive, MOST, too_big)


@CODINGS
async def test_a_body_within_the_limit(coding: str, encode: Callable[[bytes], bytes]) -> None:
    body = encode(b"x" * MOST)
    assert await read(coding, body) == b"x" * MOST
    assert await read(coding, body[:10], body[10:], b"") == b"x" * MOST
    with pytest.raises(Refusal) as refused:
        await read(coding, encode(b"x" * (MOST + 1)))
    assert refused.value.word == "BODY_TOO_BIG"


@CODINGS
async def test_a_bomb_costs_no_more_than_the_limit(coding: str, encode: Callable[[bytes], bytes]) -> None:
    bomb = encode(b"\0" * 50_000_000)
    assert len(bomb) < MOST
    tracemalloc.start()
    with pytest.raises(Refusal) as refused:
        await read(coding, bomb)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert refused.value.word == "BODY_TOO_BIG"
    assert peak < 4 * MOST


@pytest.mark.parametrize(
    ("coding", "empty"), [("gzip", gzip.compress(b"")), ("zstd", zstd.compress(b""))], ids=["gzip", "zstd"]
)
async def test_a_body_of_nothing_but_empty_parts_ends(coding: str, empty: bytes) -> None:
    with pytest.raises(Refusal) as refused:
        await read(coding, empty * (MOST_PARTS + 1))
    assert refused.value.status in (400, 413)


async def test_blocks_of_nothing_end_at_the_limit() -> None:
    """deflate has blocks that hold nothing: a body of them never has more than the limit in it."""
    with pytest.raises(Refusal) as refused:
        await read("deflate", *[b"\x00\x00\x00\xff\xff" * 13_000] * 100)
    assert refused.value.word == "BODY_TOO_BIG"


async def test_a_window_that_no_http_client_may_use_is_refused() -> None:
    levels = {zstd.CompressionParameter.window_log: 27, zstd.CompressionParameter.content_size_flag: 0}
    made = zstd.ZstdCompressor(options=levels)
    body = made.compress(b"x" * 100) + made.flush()
    with pytest.raises(Refusal) as refused:
        await read("zstd", body)
    assert refused.value.status == 400
