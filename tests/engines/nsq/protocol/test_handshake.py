"""How a session begins, without its socket: what it says, what it makes of the answers, and the upgrades."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import trustme

from qtools.engines.nsq.protocol import commands
from qtools.engines.nsq.protocol.client_commands import Finish, Nop, Publish, Ready, Sub
from qtools.engines.nsq.protocol.frames import RESPONSE, encode_frame, encode_message
from qtools.engines.nsq.protocol.identify import IdentifyRequest, IdentifyResponse
from qtools.engines.nsq.protocol.negotiate import ServerLimits
from qtools.engines.nsq.protocol.session import Answered, ClientSession, Established, SessionState
from qtools.engines.nsq.protocol.transforms import Deflate, Snappy
from qtools.errors import AuthError, BrokerError, ConnectFailed, PeerError, ProtocolError, UpgradeRefused
from qtools.message import Message
from tests.engines.nsq.protocol.sessions import HEARTBEAT, OK, A, B, answer, error, started

from .peer import Peer, converse
from .streams import bytewise

# ── hello ─────────────────────────────────────────────────────────────────────────────────────────


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


# ── the table of handshakes ───────────────────────────────────────────────────────────────────────


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


# ── upgrades that fail ────────────────────────────────────────────────────────────────────────────


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
