"""One client connection without its socket: the handshake in all its shapes, heartbeats, answers, errors, endings."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import trustme

from qtools.engines.nsq.protocol import commands
from qtools.engines.nsq.protocol.client_commands import Close, Finish, Nop, Publish, Ready, Requeue, Sub, Touch
from qtools.engines.nsq.protocol.frames import ERROR, RESPONSE, encode_frame, encode_message
from qtools.engines.nsq.protocol.identify import IdentifyRequest, IdentifyResponse
from qtools.engines.nsq.protocol.negotiate import ServerLimits
from qtools.engines.nsq.protocol.session import Answered, ClientSession, Established, RefusedRequest, SessionState
from qtools.engines.nsq.protocol.transforms import Deflate, Snappy
from qtools.errors import AuthError, BrokerError, ConnectFailed, PeerError, ProtocolError, SizeError, UpgradeRefused
from qtools.message import Message

from .peer import Peer, converse
from .streams import bytewise

OK = b"\x00\x00\x00\x06\x00\x00\x00\x00OK"
HEARTBEAT = b"\x00\x00\x00\x0f\x00\x00\x00\x00_heartbeat_"
CLOSE_WAIT = b"\x00\x00\x00\x0e\x00\x00\x00\x00CLOSE_WAIT"

A, B, C = (Message(1, 1, b"%016x" % place, b"body %d" % place) for place in range(3))


def answer(**fields: object) -> bytes:
    """The frame that answers IDENTIFY, with the fields given and all others as nsqd has them by default."""
    told = json.loads(IdentifyResponse(version="1.3.0").encode()) | fields
    return encode_frame(RESPONSE, json.dumps(told).encode())


def error(text: str) -> bytes:
    return encode_frame(ERROR, text.encode())


def started(wishes: IdentifyRequest | None = None, **options: object) -> ClientSession:
    """A session that has said hello, and what it said taken away."""
    session = ClientSession(wishes or IdentifyRequest(), **options)  # type: ignore[arg-type]
    session.start()
    session.take_output()
    return session


def established() -> ClientSession:
    session = started()
    session.receive(answer())
    assert session.state is SessionState.READY
    return session


def subscribed() -> ClientSession:
    """A session that may receive messages; its SUB is answered and taken away."""
    session = established()
    session.subscribe("t", "c", "sub")
    session.receive(OK)
    session.take_output()
    return session


# ── hello ──


def test_a_session_says_nothing_before_it_starts() -> None:
    session = ClientSession(IdentifyRequest())
    assert not session.has_output
    assert session.take_output() == b""
    assert session.state is SessionState.NEW


def test_it_begins_with_the_magic_and_identify_and_nothing_else() -> None:
    session = ClientSession(IdentifyRequest(client_id="c", hostname="h", user_agent="qtools/1"))
    session.start()
    out = session.take_output()
    assert out.startswith(b"  V2IDENTIFY\n")
    body = out[17:]
    assert int.from_bytes(out[13:17], "big") == len(body)
    assert json.loads(body) == {
        "client_id": "c",
        "hostname": "h",
        "user_agent": "qtools/1",
        "feature_negotiation": True,
        "heartbeat_interval": 30000,
        "msg_timeout": 0,
        "output_buffer_size": 65536,
        "output_buffer_timeout": 25,
        "tls_v1": False,
        "snappy": False,
        "deflate": False,
        "deflate_level": 6,
    }
    assert session.take_output() == b""
    assert session.state is SessionState.IDENTIFYING


def test_the_answer_to_identify_establishes_a_plain_session() -> None:
    session = started()
    told = answer(max_rdy_count=100, msg_timeout=5000)
    assert session.receive(told[:-1]) == ([], [])
    assert session.state is SessionState.IDENTIFYING
    agreed = IdentifyResponse(version="1.3.0", max_rdy_count=100, msg_timeout=5000)
    assert session.receive(told[-1:]) == ([], [Established(agreed)])
    assert session.state is SessionState.READY
    assert session.agreed == agreed
    assert session.take_output() == b""


def test_a_broker_too_old_to_negotiate_says_ok_and_is_taken_with_the_defaults() -> None:
    assert started().receive(OK) == ([], [Established(IdentifyResponse())])


def test_nothing_more_is_said_when_what_was_asked_for_was_too_much() -> None:
    session = started()
    with pytest.raises(BrokerError) as caught:
        session.receive(error("E_BAD_BODY IDENTIFY msg timeout (1) is invalid"))
    assert (caught.value.code, caught.value.command) == ("E_BAD_BODY", "IDENTIFY")
    assert session.state is SessionState.CLOSED


# ── the table of handshakes ──


@dataclass
class Certificates:
    """What a broker and its clients have to show."""

    broker: ssl.SSLContext
    client: ssl.SSLContext
    nobody: ssl.SSLContext  # a client without a certificate
    stranger: ssl.SSLContext  # a client that trusts another authority


@pytest.fixture(scope="module", params=[ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["TLS 1.2", "TLS 1.3"])
def certificates(request: pytest.FixtureRequest) -> Certificates:
    authority, other = trustme.CA(), trustme.CA()
    broker = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("broker.example").configure_cert(broker)
    authority.configure_trust(broker)
    broker.verify_mode = ssl.CERT_REQUIRED
    broker.maximum_version = request.param

    def client(trusts: trustme.CA, shows: bool) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        trusts.configure_trust(context)
        if shows:
            authority.issue_cert("client.example").configure_cert(context)
        return context

    return Certificates(broker, client(authority, True), client(authority, False), client(other, True))


SHAPES = {
    "plain": {},
    "snappy": {"snappy": True},
    "deflate": {"deflate": True, "deflate_level": 3},
    "TLS": {"tls_v1": True},
    "TLS and snappy": {"tls_v1": True, "snappy": True},
    "TLS and deflate": {"tls_v1": True, "deflate": True},
}


@pytest.mark.parametrize("chunk", [1, 7, 1 << 20], ids=["byte by byte", "in sevens", "whole"])
@pytest.mark.parametrize("secret", [None, b"secret"], ids=["", "AUTH"])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_handshake_of_every_shape_ends_established_and_carries_messages(
    shape: str, secret: bytes | None, chunk: int, certificates: Certificates
) -> None:
    peer = Peer(ServerLimits(tls=True, auth_required=secret is not None), tls=certificates.broker, secret=secret or b"")
    wishes = IdentifyRequest(**SHAPES[shape])
    session = ClientSession(wishes, tls=certificates.client, server_hostname="broker.example", secret=secret)
    session.start()
    assert converse(session, peer, chunk) == ([], [Established(session.agreed)])
    assert session.state is SessionState.READY
    agreed = session.agreed
    assert (agreed.tls_v1, agreed.snappy, agreed.deflate) == (wishes.tls_v1, wishes.snappy, wishes.deflate)

    session.subscribe("t", "c", "sub")
    session.ready(10)
    session.publish(commands.mpub("t", [b"x" * 100_000] * 4), 1, "mpub")
    peer.deliver(A)
    peer.say(RESPONSE, b"_heartbeat_")
    large = Message(2, 3, B.id, bytes(range(256)) * 4000)
    peer.deliver(large)
    messages, events = converse(session, peer, max(chunk, 1000))
    assert messages == [A, large]
    assert events == [Answered("sub"), Answered("mpub")]
    session.finish([A.id, B.id])
    converse(session, peer, chunk)
    assert peer.heard == [
        Sub("t", "c"),
        Ready(10),
        Publish("MPUB", "t", [b"x" * 100_000] * 4),
        Nop(),
        Finish(commands.fin([A.id, B.id])),
    ]


@pytest.mark.parametrize(("shape", "filters"), [("snappy", (Snappy, Snappy)), ("deflate", (Deflate, Deflate))])
def test_the_ok_of_compression_may_come_in_the_chunk_of_the_answer_or_in_any_other(
    shape: str, filters: tuple[Callable[[], Snappy | Deflate], ...]
) -> None:
    server, _ = (make() for make in filters)
    stream = answer(**{shape: True}) + server.encode(OK) + server.encode(HEARTBEAT + encode_message(A)[:0])
    for place in range(len(stream)):
        session = started(IdentifyRequest(snappy=shape == "snappy", deflate=shape == "deflate"))
        events = session.receive(stream[:place])[1] + session.receive(stream[place:])[1]
        assert events == [Established(session.agreed)]
        assert session.heartbeats == 1
    session = started(IdentifyRequest(snappy=shape == "snappy", deflate=shape == "deflate"))
    assert [event for byte in bytewise(stream) for event in session.receive(byte)[1]] == [Established(session.agreed)]
    assert b"".join(filters[1]().decode(session.take_output())) == b"NOP\n"


@pytest.mark.parametrize("shape", ["snappy", "deflate"])
def test_nothing_is_compressed_before_the_answer_and_everything_behind_it(shape: str) -> None:
    session = ClientSession(IdentifyRequest(snappy=shape == "snappy", deflate=shape == "deflate"))
    session.start()
    assert session.take_output().startswith(b"  V2IDENTIFY\n")
    session.receive(answer(**{shape: True}))
    assert session.state is SessionState.UPGRADING
    assert session.take_output() == b""
    server = Snappy() if shape == "snappy" else Deflate()
    session.receive(server.encode(OK))
    session.nop()
    assert b"".join(server.decode(session.take_output())) == commands.NOP


def test_auth_is_sent_when_it_is_required_and_only_then() -> None:
    session = started(secret=b"secret")
    assert session.receive(answer()) == ([], [Established(session.agreed)])
    assert session.take_output() == b""

    session = started(secret=b"secret")
    assert session.receive(answer(auth_required=True)) == ([], [])
    assert session.state is SessionState.AUTHENTICATING
    assert session.take_output() == b"AUTH\n\x00\x00\x00\x06secret"
    told = encode_frame(RESPONSE, b'{"identity":"me","identity_url":"","permission_count":1}')
    assert session.receive(told) == ([], [Established(session.agreed)])


def test_without_a_secret_a_broker_that_requires_one_is_refused_with_advice() -> None:
    with pytest.raises(AuthError, match="--auth-secret-file") as caught:
        started().receive(answer(auth_required=True))
    assert caught.value.code == "E_AUTH_FIRST"


def test_a_wrong_secret_is_an_auth_error() -> None:
    session = ClientSession(IdentifyRequest(), secret=b"wrong")
    session.start()
    with pytest.raises(AuthError) as caught:
        converse(session, Peer(ServerLimits(auth_required=True), secret=b"secret"))
    assert (caught.value.code, caught.value.command) == ("E_AUTH_FAILED", "AUTH")
    assert session.state is SessionState.CLOSED


# ── upgrades that fail ──


@pytest.mark.parametrize(
    ("wishes", "granted", "what"),
    [
        (IdentifyRequest(tls_v1=True), {}, "TLS"),
        (IdentifyRequest(tls_v1=True, snappy=True), {"snappy": True}, "TLS"),
        (IdentifyRequest(snappy=True), {}, "snappy"),
        (IdentifyRequest(deflate=True), {"snappy": False}, "deflate"),
    ],
)
def test_what_was_asked_for_and_not_granted_is_not_gone_without(
    wishes: IdentifyRequest, granted: dict[str, object], what: str
) -> None:
    session = started(wishes, tls=ssl.create_default_context())
    with pytest.raises(UpgradeRefused, match="leave --") as caught:
        session.receive(answer(**granted))
    assert caught.value.what == what
    assert session.take_output() == b""


@pytest.mark.parametrize("granted", ["tls_v1", "snappy", "deflate"])
def test_what_was_granted_and_not_asked_for_is_a_breach_of_protocol(granted: str) -> None:
    with pytest.raises(ProtocolError, match="without being asked"):
        started(tls=ssl.create_default_context()).receive(answer(**{granted: True}))


def test_a_broker_without_tls_is_not_spoken_to_in_clear() -> None:
    session = ClientSession(IdentifyRequest(tls_v1=True), tls=ssl.create_default_context(), secret=b"secret")
    session.start()
    with pytest.raises(UpgradeRefused):
        converse(session, Peer(ServerLimits(tls=False, auth_required=True), secret=b"secret"))
    assert session.take_output() == b""


def shake(client: ssl.SSLContext, name: str, certificates: Certificates) -> tuple[ConnectFailed, Peer]:
    """How a TLS handshake failed, and the broker it failed with."""
    peer = Peer(ServerLimits(tls=True), tls=certificates.broker)
    session = ClientSession(IdentifyRequest(tls_v1=True), tls=client, server_hostname=name)
    session.start()
    with pytest.raises(ConnectFailed) as caught:
        converse(session, peer)
    peer.receive(session.take_output())  # the alert
    assert session.state is not SessionState.READY
    return caught.value, peer


def test_a_certificate_of_an_unknown_authority_is_not_accepted(certificates: Certificates) -> None:
    failure, peer = shake(certificates.stranger, "broker.example", certificates)
    assert failure.permanent
    assert failure.address == "broker.example"
    assert "certificate was not accepted: self-signed certificate in certificate chain" in failure.reason
    assert peer.refused_tls is not None


def test_a_certificate_for_another_name_is_not_accepted(certificates: Certificates) -> None:
    failure, peer = shake(certificates.client, "other.example", certificates)
    assert failure.permanent
    assert failure.address == "other.example"
    assert "Hostname mismatch" in failure.reason
    assert peer.refused_tls is not None


def test_a_client_without_the_certificate_that_is_required_is_told_so(certificates: Certificates) -> None:
    failure, peer = shake(certificates.nobody, "broker.example", certificates)
    assert failure.permanent
    assert "TLS" in failure.reason
    assert peer.refused_tls is not None
    assert "CERTIFICATE" in peer.refused_tls.reason


@pytest.mark.parametrize(
    "garbage", [OK, b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x00" * 400, b"\x15\x03\x03\x00\x02\x02\x28"]
)
def test_a_broker_that_does_not_speak_tls_after_granting_it_fails_to_connect(
    garbage: bytes, certificates: Certificates
) -> None:
    for rest in ([garbage], bytewise(garbage)):
        session = started(IdentifyRequest(tls_v1=True), tls=certificates.client, server_hostname="broker.example")
        session.receive(answer(tls_v1=True))
        with pytest.raises(ConnectFailed):
            list(map(session.receive, rest))


def test_a_heartbeat_in_the_way_of_tls_is_not_answered_in_clear(certificates: Certificates) -> None:
    """From its answer on nsqd reads TLS and nothing else: a NOP there would end the handshake."""
    session = started(IdentifyRequest(tls_v1=True), tls=certificates.client, server_hostname="broker.example")
    session.receive(HEARTBEAT + answer(tls_v1=True))
    assert session.take_output()[:2] == b"\x16\x03"


@pytest.mark.parametrize("first", [error("E_TLS_FAILED no"), encode_frame(RESPONSE, b"NO"), answer()])
def test_another_answer_than_ok_where_an_upgrade_is_due_ends_the_handshake(first: bytes) -> None:
    server = Snappy()
    with pytest.raises(PeerError):
        started(IdentifyRequest(snappy=True)).receive(answer(snappy=True) + server.encode(first))


@pytest.mark.parametrize(
    "bad", [b"", b"nope", b"5", b"[]", b'{"max_rdy_count": "2500"}', b'{"tls_v1": 1}', b"\xff\xfe", b"[" * 100_000]
)
def test_an_answer_to_identify_that_is_none_is_a_breach_of_protocol(bad: bytes) -> None:
    with pytest.raises(ProtocolError):
        started().receive(encode_frame(RESPONSE, bad))


# ── heartbeats ──


def nops(session: ClientSession) -> int:
    out = session.take_output()
    assert out == commands.NOP * (len(out) // 4)
    return len(out) // 4


def test_heartbeats_are_answered_in_every_state() -> None:
    session = started(IdentifyRequest(deflate=True), secret=b"s")
    server = Deflate()
    session.receive(HEARTBEAT * 2)
    assert (session.state, nops(session)) == (SessionState.IDENTIFYING, 2)

    session.receive(answer(deflate=True, auth_required=True))
    session.receive(server.encode(HEARTBEAT))
    assert session.state is SessionState.UPGRADING
    assert b"".join(server.decode(session.take_output())) == commands.NOP

    session.receive(server.encode(OK + HEARTBEAT))
    assert session.state is SessionState.AUTHENTICATING
    assert b"".join(server.decode(session.take_output())) == commands.auth(b"s") + commands.NOP

    session.receive(server.encode(encode_frame(RESPONSE, b"{}") + HEARTBEAT))
    assert session.state is SessionState.READY
    assert b"".join(server.decode(session.take_output())) == commands.NOP

    session.subscribe("t", "c", None)
    session.stop_receiving(None)
    session.receive(server.encode(OK + HEARTBEAT + CLOSE_WAIT + HEARTBEAT))
    out = b"".join(server.decode(session.take_output()))
    assert out == b"SUB t c\nCLS\nNOP\nNOP\n"
    assert session.heartbeats == 7


def test_a_heartbeat_answers_no_command() -> None:
    session = established()
    session.publish(commands.pub("t", b"x"), 1, "first")
    assert session.receive(HEARTBEAT) == ([], [])
    assert session.unanswered == ["first"]
    assert session.receive(OK) == ([], [Answered("first")])


def test_what_is_said_and_the_answer_to_a_heartbeat_leave_in_one_piece() -> None:
    session = subscribed()
    session.finish([A.id])
    session.receive(HEARTBEAT)
    session.ready(5)
    assert session.has_output
    assert session.take_output() == b"FIN 0000000000000000\nNOP\nRDY 5\n"
    assert not session.has_output


# ── commands and answers ──


def test_intents_are_said_in_the_protocol_s_words() -> None:
    session = established()
    session.subscribe("t", "c", 1)
    session.ready(2)
    session.finish([A.id, B.id])
    session.requeue([A.id], 1500)
    session.touch([C.id])
    session.nop()
    session.stop_receiving(2)
    session.publish(commands.pub("t", b"x"), 1, 3)
    heard = Peer(ServerLimits())
    heard.receive(b"  V2" + session.take_output())
    assert heard.heard == [
        Sub("t", "c"),
        Ready(2),
        Finish(commands.fin([A.id, B.id])),
        Requeue(A.id, 1500),
        Touch(C.id),
        Nop(),
        Close(),
        Publish("PUB", "t", [b"x"]),
    ]
    assert session.unanswered == [1, 2, 3]


def test_nothing_is_said_about_no_messages() -> None:
    session = established()
    session.finish([])
    session.requeue([], 0)
    session.touch([])
    assert not session.has_output


def test_answers_are_matched_to_commands_in_their_order() -> None:
    session = established()
    session.subscribe("t", "c", "sub")
    for place in range(3):
        session.publish(commands.pub("t", b"x"), 1, place)
        session.finish([A.id])  # not answered
    session.stop_receiving("cls")
    _, events = session.receive(OK * 3)
    assert events == [Answered("sub"), Answered(0), Answered(1)]
    assert session.unanswered == [2, "cls"]
    _, events = session.receive(OK + CLOSE_WAIT)
    assert events == [Answered(2), Answered("cls")]
    assert session.unanswered == []


def test_commands_sent_as_one_are_answered_one_by_one_with_their_tag() -> None:
    session = established()
    session.publish(commands.pub("t", b"x") * 3, 3, "three")
    session.publish(commands.pub("t", b"x"), 1, "one")
    assert session.receive(OK * 2)[1] == [Answered("three")] * 2
    assert session.unanswered == ["three", "one"]
    assert session.receive(OK * 2)[1] == [Answered("three"), Answered("one")]


def test_messages_heartbeats_and_answers_may_come_mixed() -> None:
    stream = b"".join(
        [encode_message(A), OK, encode_message(B), HEARTBEAT, OK, error("E_FIN_FAILED FIN x failed"), encode_message(C)]
    )
    for chunks in ([stream], bytewise(stream)):
        session = subscribed()
        session.publish(b"", 1, 1)
        session.publish(b"", 1, 2)
        received = [session.receive(chunk) for chunk in chunks]
        assert [message for messages, _ in received for message in messages] == [A, B, C]
        events = [event for _, events in received for event in events]
        assert events[:2] == [Answered(1), Answered(2)]
        assert isinstance(events[2], RefusedRequest)
        assert session.heartbeats == 1


def test_messages_in_the_chunk_of_the_answer_to_sub_are_not_lost() -> None:
    session = established()
    session.subscribe("t", "c", "sub")
    assert session.receive(OK + encode_message(A) + encode_message(B)) == ([A, B], [Answered("sub")])


@pytest.mark.parametrize("code", ["E_FIN_FAILED", "E_REQ_FAILED", "E_TOUCH_FAILED"])
def test_three_errors_are_not_fatal_and_answer_nothing(code: str) -> None:
    session = established()
    session.publish(b"", 1, "pub")
    _, events = session.receive(error(f"{code} FIN 0123456789abcdef failed ID not in flight") + OK)
    refused, done = events
    assert isinstance(refused, RefusedRequest)
    assert (refused.tag, refused.fatal, refused.error.code) == (None, False, code)
    assert done == Answered("pub")
    assert session.state is SessionState.READY


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("E_INVALID", BrokerError),
        ("E_BAD_TOPIC", BrokerError),
        ("E_BAD_CHANNEL", BrokerError),
        ("E_PUB_FAILED", BrokerError),
        ("E_MPUB_FAILED", BrokerError),
        ("E_DPUB_FAILED", BrokerError),
        ("E_SUB_FAILED", BrokerError),
        ("E_SOMETHING_NEW", BrokerError),
        ("E_BAD_MESSAGE", SizeError),
        ("E_BAD_BODY", SizeError),
        ("E_UNAUTHORIZED", AuthError),
        ("E_AUTH_FIRST", AuthError),
        ("E_AUTH_FAILED", AuthError),
    ],
)
def test_every_other_error_is_fatal_and_answers_the_oldest_command(code: str, kind: type[BrokerError]) -> None:
    session = established()
    session.publish(b"", 1, "first")
    session.publish(b"", 1, "second")
    _, (event,) = session.receive(error(f"{code} why not"))
    assert isinstance(event, RefusedRequest)
    assert (event.tag, event.fatal) == ("first", True)
    assert type(event.error) is kind
    assert (event.error.code, event.error.text) == (code, "why not")
    assert session.state is SessionState.CLOSED
    assert session.unanswered == ["second"]


def test_a_fatal_error_that_answers_no_command_is_told_without_a_tag() -> None:
    session = established()
    _, (event,) = session.receive(error("E_INVALID RDY count 9999 out of range 0-2500"))
    assert isinstance(event, RefusedRequest)
    assert event.tag is None
    assert event.fatal


def test_after_a_fatal_error_nothing_is_answered_any_more_however_it_is_cut() -> None:
    stream = error("E_BAD_TOPIC no") + encode_message(A) + OK + HEARTBEAT + error("E_INVALID x") + encode_message(B)
    for chunks in ([stream], bytewise(stream)):
        session = subscribed()
        for place in range(3):
            session.publish(b"", 1, place)
        received = [session.receive(chunk) for chunk in chunks]
        assert [message for messages, _ in received for message in messages] == [A, B]
        (event,) = (event for _, events in received for event in events)
        assert isinstance(event, RefusedRequest)
        assert event.tag == 0
        assert session.state is SessionState.CLOSED
        assert session.unanswered == [1, 2]


# ── what is no NSQ ──


@pytest.mark.parametrize("chunked", [False, True])
def test_an_http_server_is_recognised(chunked: bool) -> None:
    told = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n400 Bad Request"
    with pytest.raises(ProtocolError) as caught:
        list(map(started().receive, bytewise(told) if chunked else [told]))
    assert caught.value.looks_like == "HTTP"


@pytest.mark.parametrize("unasked", [OK, CLOSE_WAIT])
def test_an_answer_that_no_command_waits_for_is_a_breach_of_protocol(unasked: bytes) -> None:
    with pytest.raises(ProtocolError, match="no command was waiting"):
        established().receive(unasked)


def test_an_answer_that_is_none_is_a_breach_of_protocol() -> None:
    session = established()
    session.publish(b"", 1, 1)
    with pytest.raises(ProtocolError, match="answers no command"):
        session.receive(encode_frame(RESPONSE, b"SURE"))


def test_a_message_before_the_handshake_has_ended_is_a_breach_of_protocol() -> None:
    with pytest.raises(ProtocolError, match="before anything was subscribed"):
        started().receive(encode_message(A))


def test_a_message_before_sub_is_a_breach_of_protocol_however_it_arrives() -> None:
    """A publisher's connection would keep it for ever."""
    for stream in (encode_message(A), HEARTBEAT + encode_message(A) + error("E_INVALID x")):
        for chunks in ([stream], bytewise(stream)):
            session = established()
            with pytest.raises(ProtocolError, match="before anything was subscribed"):
                list(map(session.receive, chunks))


def test_its_repr_says_what_it_is_doing() -> None:
    session = established()
    session.publish(b"", 1, 1)
    assert repr(session) == "<Session ready unanswered=1>"
