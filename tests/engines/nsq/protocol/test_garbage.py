"""Anything at all, cut in any way: it is understood or refused with the error that is documented, and nothing else.

However a stream is cut, it means the same. Each property runs quickly everywhere, and deeply where slow tests run.
"""

from __future__ import annotations

import json
import ssl
import struct
from collections.abc import Callable
from datetime import timedelta
from functools import cache
from typing import Any

import pytest
import trustme
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qtools.engines.nsq.protocol import commands, lookup, session
from qtools.engines.nsq.protocol.client_commands import Publish, RefusedCommand
from qtools.engines.nsq.protocol.command_reader import CommandLimits
from qtools.engines.nsq.protocol.frames import MAX_FRAME_SIZE, encode_frame, encode_message
from qtools.engines.nsq.protocol.identify import IdentifyRequest, IdentifyResponse
from qtools.engines.nsq.protocol.negotiate import NotGranted, ServerLimits, negotiate
from qtools.engines.nsq.protocol.session import ClientSession, Event
from qtools.engines.nsq.protocol.transforms import PIECE, Deflate, Snappy, Tls, Transform
from qtools.errors import BrokerError, ConnectFailed, ProtocolError, UpgradeRefused
from qtools.message import Message

from .recordings import TALKS
from .streams import bytewise, cut, decode, understand

LONGEST = timedelta(seconds=5)  # nothing hangs


def explore(
    examples: int, **strategies: st.SearchStrategy[Any]
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A property as two tests in one: a few examples everywhere, fifty times as many where slow tests run."""

    def both(check: Callable[..., None]) -> Callable[..., None]:
        @pytest.mark.parametrize("times", [1, pytest.param(50, marks=[pytest.mark.slow, pytest.mark.timeout(600)])])
        def test(times: int) -> None:
            seldom = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
            runs = settings(max_examples=examples * times, deadline=LONGEST, suppress_health_check=seldom)
            runs(given(**strategies)(check))()

        test.__doc__ = check.__doc__
        return test

    return both


def check_fit_to_show(error: Exception) -> None:
    """One line, not too long, that can be printed."""
    text = str(error)
    assert text.isprintable()
    assert 0 < len(text) < 400
    text.encode()


# ── streams, and what becomes of them ──

changed = st.sampled_from(["set", "insert", "delete", "truncate"])
edits = st.lists(st.tuples(changed, st.integers(0, 2000), st.binary(min_size=1, max_size=4)), max_size=4)
places = st.lists(st.integers(1, 1200), max_size=12)


def edited(stream: bytes, changes: list[tuple[str, int, bytes]]) -> bytes:
    for what, place, value in changes:
        place %= len(stream) + 1
        match what:
            case "set":
                stream = stream[:place] + value + stream[place + len(value) :]
            case "insert":
                stream = stream[:place] + value + stream[place:]
            case "delete":
                stream = stream[:place] + stream[place + len(value) :]
            case "truncate":
                stream = stream[:place]
    return stream


def spoilt(valid: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Streams that are right, streams that were right, and noise."""
    return st.one_of(
        st.builds(edited, valid, edits),
        st.builds(edited, valid, edits),
        st.builds(bytes.__add__, valid, st.binary(max_size=60)),
        st.binary(max_size=200),
    )


messages = st.builds(
    Message,
    st.integers(-(2**63), 2**63 - 1),
    st.integers(0, 65535),
    st.just(b"0123456789abcdef"),
    st.binary(max_size=40),
)
answers = st.sampled_from([b"OK", b"OK", b"_heartbeat_", b"CLOSE_WAIT"]).map(lambda data: encode_frame(0, data))
errors = st.sampled_from(
    [b"E_INVALID no", b"E_FIN_FAILED FIN x failed", b"E_BAD_TOPIC", b"", b"\xff\xfe \xff", b"E_AUTH_FAILED a\nb"]
).map(lambda data: encode_frame(1, data))
frames = st.one_of(messages.map(encode_message), answers, errors)
frame_streams = st.lists(frames, max_size=12).map(b"".join)
recorded_answers = st.sampled_from([b"".join(talk.raw) for talk in TALKS if talk.raw])
recorded_commands = st.sampled_from([talk.sent.removeprefix(b"  V2") for talk in TALKS])

names = st.sampled_from(["t", "u", "t#ephemeral", "x" * 64])
bodies = st.binary(min_size=1, max_size=30)
idents = st.sampled_from([b"0123456789abcdef", b"fedcba9876543210"])
said = st.one_of(
    st.builds(commands.identify, bodies),
    st.builds(commands.auth, bodies),
    st.builds(commands.sub, names, names),
    st.builds(commands.rdy, st.integers(0, 3000)),
    st.builds(commands.fin, st.lists(idents, min_size=1, max_size=5)),
    st.builds(commands.req, st.lists(idents, min_size=1, max_size=3), st.integers(0, 10_000_000)),
    st.builds(commands.touch, st.lists(idents, min_size=1, max_size=3)),
    st.builds(commands.pub, names, bodies),
    st.builds(commands.dpub, names, bodies, st.integers(0, 4_000_000)),
    st.builds(commands.mpub, names, st.lists(bodies, max_size=6)),
    st.sampled_from([commands.NOP, commands.CLS, b"NOP\r\n", b"RDY\n", b"HELLO\n"]),
)
command_streams = st.lists(said, max_size=12).map(b"".join)


# ── frames ──


def reference(stream: bytes) -> tuple[list[tuple[int, bytes]], bool]:
    """The frames in `stream` as (type, data), and whether it ends in what is none: the format read off its drawing."""
    found: list[tuple[int, bytes]] = []
    at = 0
    while True:
        if at == 0 and stream[:4] == b"HTTP":
            return found, True
        if len(stream) - at < 8:
            return found, False
        size, kind = struct.unpack_from(">ii", stream, at)
        if not 4 <= size <= MAX_FRAME_SIZE or kind not in (0, 1, 2) or (kind == 2 and size < 30):
            return found, True
        if len(stream) - at < 4 + size:
            return found, False
        found.append((kind, stream[at + 8 : at + 4 + size]))
        at += 4 + size


@explore(200, stream=spoilt(st.one_of(frame_streams, recorded_answers)), ends=places)
def test_any_bytes_are_frames_or_a_breach_of_protocol(stream: bytes, ends: list[int]) -> None:
    found, bad = reference(stream)
    letters = [Message(*struct.unpack_from(">qH16s", data), data[26:]) for kind, data in found if kind == 2]
    others = [(kind, data) for kind, data in found if kind != 2]
    one_by_one = decode(bytewise(stream))
    assert (one_by_one[0], one_by_one[1], one_by_one[2] is not None) == (letters, others, bad)
    for chunks in ([stream], cut(stream, ends)):
        more, frames_, error = decode(chunks)
        assert error == one_by_one[2]
        if error is None:
            assert (more, frames_) == (letters, others)
        else:  # what came in the chunk that is wrong comes again from a broker that is right
            assert more == letters[: len(more)]
            assert frames_ == others[: len(frames_)]


# ── commands ──


@explore(200, stream=spoilt(st.one_of(command_streams, recorded_commands)), ends=places)
def test_any_bytes_are_commands_or_refused(stream: bytes, ends: list[int]) -> None:
    limits = CommandLimits(max_msg_size=500, max_body_size=900)
    whole = understand([stream], limits)
    assert understand(bytewise(stream), limits) == whole
    assert understand(cut(stream, ends), limits) == whole
    assert not any(isinstance(command, RefusedCommand) for command in whole[:-1])
    for command in whole:
        if isinstance(command, RefusedCommand):
            (command.code + command.text).encode()  # it is sent
        if isinstance(command, Publish):
            assert all(0 < len(body) <= 500 for body in command.bodies)
            assert sum(map(len, command.bodies)) <= 900


@explore(
    60, stream=st.one_of(command_streams, recorded_commands), rest=st.binary(max_size=30), place=st.integers(0, 500)
)
def test_what_was_understood_is_not_unsaid_by_what_follows(stream: bytes, rest: bytes, place: int) -> None:
    begun = understand([stream[:place]])
    assert understand([stream + rest])[: len(begun)] == begun


# ── sessions ──


@cache
def authority() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A broker's context and a client's that trusts it."""
    ca = trustme.CA()
    broker, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    ca.issue_cert("broker.example").configure_cert(broker)
    ca.configure_trust(client)
    return broker, client


def told(event: Event) -> str:
    if isinstance(event, session.RefusedRequest):
        check_fit_to_show(event.error)
        return f"{event!r} {event.error}"
    return repr(event)


class EagerSession(ClientSession):
    """Subscribes and publishes at the end of the handshake, so that what follows it in the same chunk may answer."""

    def _establish(self) -> None:
        super()._establish()
        self.subscribe("t", "c", 0)
        for tag in range(1, 20):
            self.publish(b"", 1, tag)


def outcome(wishes: IdentifyRequest, chunks: list[bytes]) -> tuple[list[Message], list[str], str, object]:
    """What a session made of `chunks`: messages, events, how it ended, and where it stands then."""
    one = EagerSession(wishes, tls=authority()[1], server_hostname="broker.example", secret=b"secret")
    one.start()
    one.take_output()
    letters: list[Message] = []
    events: list[str] = []
    try:
        for chunk in chunks:
            more, happened = one.receive(chunk)
            letters += more
            events += map(told, happened)
    except (ProtocolError, BrokerError, UpgradeRefused, ConnectFailed) as error:
        check_fit_to_show(error)
        return letters, events, type(error).__name__, None
    finally:
        one.take_output()
        repr(one)
    return letters, events, "", (one.state, one.heartbeats, one.unanswered, one.agreed)


wish = st.sampled_from(
    [
        IdentifyRequest(),
        IdentifyRequest(),
        IdentifyRequest(snappy=True),
        IdentifyRequest(deflate=True),
        IdentifyRequest(tls_v1=True),
        IdentifyRequest(tls_v1=True, snappy=True),
    ]
)
granted = st.fixed_dictionaries(
    {},
    optional={
        "tls_v1": st.booleans(),
        "snappy": st.booleans(),
        "deflate": st.booleans(),
        "deflate_level": st.integers(-1, 10),
        "auth_required": st.booleans(),
        "msg_timeout": st.integers(-1, 100),
    },
)


def conversation(wishes: IdentifyRequest, fields: dict[str, object], more: bytes, packed_from: int) -> bytes:
    """An answer to IDENTIFY and what follows it, packed as was agreed from some place on."""
    fields = {"snappy": wishes.snappy, "deflate": wishes.deflate, "tls_v1": wishes.tls_v1} | fields
    first = encode_frame(0, json.dumps(fields).encode())
    more = encode_frame(0, b"OK") * (wishes.snappy or wishes.deflate) + more
    packing: Transform | None = Snappy() if wishes.snappy else Deflate() if wishes.deflate else None
    if packing is None:
        return first + more
    return first + packing.encode(more[:packed_from]) + packing.encode(more[packed_from:])


conversations = wish.flatmap(
    lambda wishes: st.tuples(
        st.just(wishes),
        spoilt(
            st.builds(conversation, st.just(wishes), st.one_of(st.just({}), granted), frame_streams, st.integers(0, 99))
        ),
    )
)


@explore(200, spoken=conversations, ends=places)
def test_any_bytes_are_a_session_or_end_it_as_documented(
    spoken: tuple[IdentifyRequest, bytes], ends: list[int]
) -> None:
    wishes, stream = spoken
    whole = outcome(wishes, [stream])
    for chunks in (bytewise(stream), cut(stream, ends)):
        parts = outcome(wishes, chunks)
        if not whole[2]:
            assert parts == whole
        elif wishes.snappy or wishes.deflate:  # damage takes with it what was packed before it in the same chunk
            assert parts[2]
        else:
            assert parts[2] == whole[2]


# ── JSON ──

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


# ── filters ──


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
