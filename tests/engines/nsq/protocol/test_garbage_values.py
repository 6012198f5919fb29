"""Any JSON, and any compressed or encrypted bytes, are understood or refused as documented."""

from __future__ import annotations

import json
from collections.abc import Callable

from hypothesis import strategies as st

from qtools.engines.nsq.protocol import lookup
from qtools.engines.nsq.protocol.identify import IdentifyRequest, IdentifyResponse
from qtools.engines.nsq.protocol.negotiate import NotGranted, ServerLimits, negotiate
from qtools.engines.nsq.protocol.transforms import PIECE, Deflate, Snappy, Tls, Transform
from qtools.errors import ConnectFailed, ProtocolError
from tests.engines.nsq.protocol.garbage import authority, check_fit_to_show, edited, edits, explore, places, spoilt

from .streams import bytewise, cut

# ── JSON ──────────────────────────────────────────────────────────────────────────────────────────


fields = st.sampled_from(
    [
        *json.loads(IdentifyRequest().encode()),
        *json.loads(IdentifyResponse().encode()),
        "producers",
        "topics",
        "data",
        "broadcast_address",
    ]
)


numbers = st.one_of(st.integers(), st.floats(), st.sampled_from([0, -1, 1, 1000, 2**31, 2**63, 10**30]))


values = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, st.text(max_size=8)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(fields, inner, max_size=4)),
    max_leaves=12,
)


objects = st.dictionaries(fields, values, max_size=8)


producers = st.lists(
    st.dictionaries(st.sampled_from(["broadcast_address", "tcp_port", "http_port"]), values, max_size=3), max_size=3
)


listed = st.fixed_dictionaries({}, optional={"producers": st.one_of(producers, values), "topics": values})


texts = spoilt(
    st.one_of(values, objects, listed, st.builds(lambda one: {"data": one}, listed)).map(
        lambda one: json.dumps(one).encode()
    )
)


@explore(150, body=texts)
def test_any_answer_to_identify_is_read_or_a_breach_of_protocol(body: bytes) -> None:
    try:
        agreed = IdentifyResponse.decode(body)
    except ProtocolError as error:
        check_fit_to_show(error)
    else:
        assert IdentifyResponse.decode(agreed.encode()) == agreed
        assert agreed.msg_timeout > 0
        assert agreed.max_rdy_count > 0


@explore(150, body=texts)
def test_any_identify_is_negotiated_or_not_granted(body: bytes) -> None:
    try:
        client = negotiate(body, ServerLimits(tls=True))
    except NotGranted as refusal:
        check_fit_to_show(refusal)
    else:
        assert (
            IdentifyResponse.decode(client.agreed.encode()) == client.agreed
        )  # what a broker grants a client can take
        assert client.heartbeat_interval == 0 or 1000 <= client.heartbeat_interval <= 60_000
        (client.client_id + client.hostname + client.user_agent).encode()


@explore(150, body=texts)
def test_any_answer_of_nsqlookupd_is_read_or_a_breach_of_protocol(body: bytes) -> None:
    for read in (lookup.decode_producers, lookup.decode_topics):
        try:
            found = read(body)
        except ProtocolError as error:
            check_fit_to_show(error)
        else:
            assert isinstance(found, list)


# ── filters ───────────────────────────────────────────────────────────────────────────────────────


def through(one: Transform, chunks: list[bytes]) -> bytes | None:
    """What a filter made of `chunks`, or None where it found them damaged."""
    pieces: list[bytes] = []
    try:
        for chunk in chunks:
            pieces += one.decode(chunk)
    except ProtocolError:
        return None
    assert all(0 < len(piece) <= PIECE for piece in pieces)
    return b"".join(pieces)


def packed(make: Callable[[], Transform]) -> st.SearchStrategy[bytes]:
    def pack(parts: list[bytes]) -> bytes:
        one = make()
        return b"".join(map(one.encode, parts))

    return spoilt(
        st.lists(st.one_of(st.binary(max_size=60), st.builds(lambda n: b"ab" * n, st.integers(0, 500)))).map(pack)
    )


@explore(100, stream=packed(Snappy), ends=places)
def test_any_bytes_are_snappy_or_a_breach_of_protocol(stream: bytes, ends: list[int]) -> None:
    whole = through(Snappy(), [stream])
    assert through(Snappy(), cut(stream, ends)) == through(Snappy(), bytewise(stream)) == whole


@explore(100, stream=packed(Deflate), ends=places)
def test_any_bytes_are_deflate_or_a_breach_of_protocol(stream: bytes, ends: list[int]) -> None:
    whole = through(Deflate(), [stream])
    assert through(Deflate(), cut(stream, ends)) == through(Deflate(), bytewise(stream)) == whole


@explore(40, changes=edits, noise=st.binary(max_size=60), late=st.integers(0, 4), ends=places)
def test_any_bytes_are_tls_or_fail_to_connect(
    changes: list[tuple[str, int, bytes]], noise: bytes, late: int, ends: list[int]
) -> None:
    """A handshake that goes wrong at some flight, on either side."""
    contexts = authority()
    sides = [Tls(contexts[1], server_hostname="broker.example"), Tls(contexts[0], server_side=True)]
    try:
        for flight in range(8):
            sender, receiver = sides[flight % 2], sides[(flight + 1) % 2]
            sent = sender.encode(b"hello") if sender.established else sender.take_output()
            for chunk in cut(edited(sent, changes) + noise if flight == late else sent, ends):
                assert b"".join(receiver.decode(chunk)) in (b"", b"hello")
    except ConnectFailed as error:
        check_fit_to_show(error)
    for side in sides:
        side.take_output()
        if side.established:
            side.encode(b"more")
