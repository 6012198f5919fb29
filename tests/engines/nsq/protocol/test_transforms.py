"""TLS, snappy and deflate as byte filters: golden bytes, any chunking, bombs, garbage."""

from __future__ import annotations

import itertools
import random
import ssl
import struct
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterable

import pytest
import trustme
from cramjam import snappy as cramjam

from qtools.engines.nsq.protocol.transforms import PIECE, Deflate, Snappy, Tls, Transform
from qtools.errors import ConnectFailed, ProtocolError

from .streams import bytewise, cut

packings = pytest.mark.parametrize("make", [Deflate, Snappy])

RANDOM = random.Random(5)
TEXTS = [
    b"x",
    b"hello, hello, hello",
    bytes(range(256)) * 300,
    b"\x00" * 300_000,
    RANDOM.randbytes(200_000),
    b"".join(b'{"n": %d, "text": "some text"}\n' % place for place in range(20_000)),
]


def unpacked(one: Transform, chunks: Iterable[bytes]) -> bytes:
    return b"".join(piece for chunk in chunks for piece in one.decode(chunk))


# ── golden ──


def test_deflate_is_raw_and_ends_every_write_at_a_byte() -> None:
    first, second = Deflate(), Deflate()
    one, two = first.encode(b"NOP\n"), first.encode(b"NOP\n")
    assert one.endswith(b"\x00\x00\xff\xff")
    assert two.endswith(b"\x00\x00\xff\xff")
    assert unpacked(second, [one, two]) == b"NOP\nNOP\n"


def test_deflate_reads_what_the_specification_draws() -> None:
    # RFC 1951, 3.2.4: a stored block: 3 bits of header, LEN, its complement, the bytes themselves
    assert unpacked(Deflate(), [b"\x00\x05\x00\xfa\xffhello"]) == b"hello"
    # 3.2.6: fixed codes; a final block that holds "a" alone
    assert unpacked(Deflate(), [b"\x4b\x04\x00"]) == b"a"


def test_snappy_is_framed_as_the_specification_draws() -> None:
    sent = Snappy().encode(b"NOP\n")
    assert sent[:10] == b"\xff\x06\x00\x00sNaPpY"
    # An uncompressed chunk: type 1, length 8 (little-endian), masked CRC-32C of the data, data (framing_format 4.3)
    crc = 0xFFFFFFFF
    for byte in b"NOP\n":
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
    chunk = b"\x01\x08\x00\x00" + struct.pack("<I", masked) + b"NOP\n"
    assert unpacked(Snappy(), [b"\xff\x06\x00\x00sNaPpY" + chunk]) == b"NOP\n"
    assert unpacked(Snappy(), [sent]) == b"NOP\n"
    with pytest.raises(ProtocolError):
        unpacked(Snappy(), [b"\xff\x06\x00\x00sNaPpY" + chunk[:-1] + b"!"])


def test_snappy_names_itself_once() -> None:
    sender = Snappy()
    assert sender.encode(b"NOP\n").startswith(b"\xff\x06\x00\x00sNaPpY")
    assert b"sNaPpY" not in sender.encode(b"NOP\n")


def test_snappy_skips_what_may_be_skipped_and_refuses_what_may_not() -> None:
    sent = Snappy().encode(b"hello")
    padding, reserved = b"\xfe\x03\x00\x00\x00\x00\x00", b"\x80\x02\x00\x00xx"
    assert unpacked(Snappy(), [sent + padding + reserved + sent]) == b"hellohello"
    for chunks in ([sent + b"\x02\x02\x00\x00xx"], bytewise(sent + b"\x7f\x02\x00\x00xx")):
        with pytest.raises(ProtocolError):
            unpacked(Snappy(), chunks)


# ── both ways ──


@packings
@pytest.mark.parametrize("text", TEXTS, ids=len)
def test_what_one_side_packs_the_other_unpacks(make: Callable[[], Transform], text: bytes) -> None:
    sender, receiver = make(), make()
    for part in (text, text[:7], text):
        assert unpacked(receiver, [sender.encode(part)]) == part


@packings
def test_it_unpacks_the_same_however_it_is_cut(make: Callable[[], Transform]) -> None:
    sender = make()
    parts = [b"hello", TEXTS[2][:5000], b"x", RANDOM.randbytes(3000)]
    stream = b"".join(map(sender.encode, parts))
    assert unpacked(make(), bytewise(stream)) == b"".join(parts)
    for place in range(1, len(stream), 7):
        assert unpacked(make(), [stream[:place], stream[place:]]) == b"".join(parts)


@packings
def test_nothing_is_packed_into_nothing(make: Callable[[], Transform]) -> None:
    assert make().encode(b"") == b""
    assert list(make().decode(b"")) == []


@packings
def test_what_came_is_handed_on_at_once(make: Callable[[], Transform]) -> None:
    """A write that ended on the other side comes out whole here, with no more bytes behind it."""
    for size in itertools.chain(range(1, 40), range(PIECE - 270, PIECE + 3, 9), range(2 * PIECE - 3, 2 * PIECE + 3)):
        assert unpacked(make(), [make().encode(b"a" * size)]) == b"a" * size


@pytest.mark.parametrize("flush", [zlib.Z_FINISH, zlib.Z_PARTIAL_FLUSH, zlib.Z_SYNC_FLUSH, zlib.Z_FULL_FLUSH])
def test_deflate_hands_on_all_that_is_there_whatever_ends_it(flush: int) -> None:
    for size in range(PIECE - 300, PIECE + 300, 7):
        packer = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
        sent = packer.compress(b"a" * size) + packer.flush(flush)
        assert len(unpacked(Deflate(), [sent])) == size


# ── bombs ──


@packings
def test_a_bomb_is_handed_on_in_pieces(make: Callable[[], Transform]) -> None:
    size = 50 * 1024 * 1024
    bomb = make().encode(bytes(size))
    assert len(bomb) < size / 20
    tracemalloc.start()
    try:
        pieces = 0
        got = 0
        for piece in make().decode(bomb):
            assert 0 < len(piece) <= PIECE
            pieces += 1
            got += len(piece)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert got == size
    assert pieces >= size / PIECE
    assert peak < 2 * len(bomb) + 8 * PIECE


@packings
def test_a_bomb_can_be_left_alone_after_its_first_piece(make: Callable[[], Transform]) -> None:
    """The readers behind refuse by their limits: nothing is unpacked that nobody asked for."""
    bomb = make().encode(bytes(200 * 1024 * 1024))
    begun = time.process_time()
    first = next(iter(make().decode(bomb)))
    assert len(first) <= PIECE
    assert time.process_time() - begun < 0.1


def test_a_snappy_chunk_that_unfolds_into_more_than_it_may_is_refused() -> None:
    block = bytes(cramjam.compress_raw(bytes(10_000_000)))[:70_000]
    chunk = b"\x00" + (4 + len(block)).to_bytes(3, "little") + b"\x00" * 4 + block
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError):
            unpacked(Snappy(), [b"\xff\x06\x00\x00sNaPpY" + chunk])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000


def test_a_snappy_chunk_that_announces_too_much_is_refused_from_its_header() -> None:
    for kind in (b"\x00", b"\x01", b"\x7f", b"\x80", b"\xfe", b"\xff"):
        with pytest.raises(ProtocolError, match="16777215 bytes"):
            unpacked(Snappy(), [b"\xff\x06\x00\x00sNaPpY" + kind + b"\xff\xff\xff"])


@pytest.mark.parametrize(
    "stream", [b"\x01", b"\xff\x06\x00\x01", b"\xff\x06\x00\x00sNaPpy", b"\xfe\x00\x00\x00", b"OK"]
)
def test_a_snappy_stream_that_does_not_begin_as_one_is_refused_at_once(stream: bytes) -> None:
    for chunks in ([stream], bytewise(stream)):
        with pytest.raises(ProtocolError, match="does not begin with snappy"):
            unpacked(Snappy(), chunks)


# ── garbage ──


@packings
def test_damage_is_a_breach_of_protocol_or_goes_unseen_but_nothing_else(make: Callable[[], Transform]) -> None:
    stream = make().encode(b"hello, hello, hello " * 20)
    seen = 0
    for place in range(len(stream)):
        for bit in (0, 3, 7):
            damaged = stream[:place] + bytes([stream[place] ^ 1 << bit]) + stream[place + 1 :]
            outcomes = []
            for chunks in ([damaged], bytewise(damaged)):
                try:
                    outcomes.append(unpacked(make(), chunks))
                except ProtocolError:
                    outcomes.append(None)
            assert outcomes[0] == outcomes[1]
            seen += outcomes[0] is None
    assert seen > 20


@packings
def test_noise_is_a_breach_of_protocol(make: Callable[[], Transform]) -> None:
    for chunks in ([RANDOM.randbytes(1_000_000)], [b"HTTP/1.1 400 Bad Request\r\n\r\n" * 1000]):
        with pytest.raises(ProtocolError):
            unpacked(make(), chunks)


def test_a_deflate_stream_that_ended_may_not_go_on() -> None:
    packer = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
    ended = packer.compress(b"hello") + packer.flush(zlib.Z_FINISH)
    for chunks in ([ended + b"x"], [ended, b"x"], bytewise(ended + b"x")):
        with pytest.raises(ProtocolError, match="after the end of its deflate stream"):
            unpacked(Deflate(), chunks)
    assert unpacked(Deflate(), [ended]) == b"hello"


# ── TLS ──


@pytest.fixture(scope="module", params=[ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["TLS 1.2", "TLS 1.3"])
def contexts(request: pytest.FixtureRequest) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A broker's and a client's."""
    authority = trustme.CA()
    broker, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.issue_cert("broker.example").configure_cert(broker)
    authority.configure_trust(client)
    broker.maximum_version = request.param
    return broker, client


def both_ends(contexts: tuple[ssl.SSLContext, ssl.SSLContext], chunk: int = 1 << 20) -> tuple[Tls, Tls]:
    """The two ends of an established connection, carried in chunks."""
    broker, client = Tls(contexts[0], server_side=True), Tls(contexts[1], server_hostname="broker.example")
    while not (broker.established and client.established):
        for sender, receiver in ((client, broker), (broker, client)):
            sent = sender.take_output()
            assert unpacked(receiver, cut(sent, range(0, len(sent), chunk))) == b""
    assert unpacked(client, [broker.take_output()]) == b""  # session tickets
    return broker, client


@pytest.mark.parametrize("chunk", [1, 100, 1 << 20])
def test_tls_carries_both_ways_what_is_larger_than_a_record(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], chunk: int
) -> None:
    broker, client = both_ends(contexts, chunk)
    for sender, receiver in ((client, broker), (broker, client)):
        for text in (b"x", bytes(range(256)) * 400):
            sent = sender.encode(text)
            assert unpacked(receiver, cut(sent, range(0, len(sent), max(chunk, 10)))) == text


def test_tls_hands_on_much_in_pieces(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    broker, client = both_ends(contexts)
    pieces = list(client.decode(broker.encode(b"x" * 3_000_000)))
    assert sum(map(len, pieces)) == 3_000_000
    assert max(map(len, pieces)) <= PIECE


def test_a_goodbye_in_tls_ends_what_comes_and_not_what_goes(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    broker, client = both_ends(contexts)
    last = broker.encode(b"last words")
    with pytest.raises(ssl.SSLWantReadError):  # it waits for our goodbye
        broker._object.unwrap()
    assert unpacked(client, [last + broker.take_output(), b""]) == b"last words"
    assert client.encode(b"FIN") != b""


def test_damage_behind_tls_fails_and_leaves_nothing_to_say_but_the_alert(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    broker, client = both_ends(contexts)
    sent = bytearray(broker.encode(b"hello, hello, hello"))
    sent[-3] ^= 1
    with pytest.raises(ConnectFailed, match="TLS failed"):
        unpacked(client, [bytes(sent)])
    alert = client.encode(b"what was to be said")
    assert client.encode(b"and more") == b""
    with pytest.raises(ConnectFailed, match="refused us: bad record mac"):
        unpacked(broker, [alert])
