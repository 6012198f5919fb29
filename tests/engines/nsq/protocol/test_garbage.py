"""Any bytes at all are frames, commands or a session, or a breach of protocol, however they are cut."""

from __future__ import annotations

import json
import struct

from hypothesis import strategies as st

from qtools.engines.nsq.protocol import commands, session
from qtools.engines.nsq.protocol.client_commands import Publish, RefusedCommand
from qtools.engines.nsq.protocol.command_reader import CommandLimits
from qtools.engines.nsq.protocol.frames import MAX_FRAME_SIZE, encode_frame, encode_message
from qtools.engines.nsq.protocol.identify import IdentifyRequest
from qtools.engines.nsq.protocol.session import ClientSession, Event
from qtools.engines.nsq.protocol.transforms import Deflate, Snappy, Transform
from qtools.errors import BrokerError, ConnectFailed, ProtocolError, UpgradeRefused
from qtools.message import Message
from tests.engines.nsq.protocol.garbage import authority, check_fit_to_show, explore, places, spoilt

from .recordings import TALKS
from .streams import bytewise, cut, decode, understand

# ── streams, and what becomes of them ─────────────────────────────────────────────────────────────


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


# ── frames ────────────────────────────────────────────────────────────────────────────────────────


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


# ── commands ──────────────────────────────────────────────────────────────────────────────────────


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


# ── sessions ──────────────────────────────────────────────────────────────────────────────────────


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
