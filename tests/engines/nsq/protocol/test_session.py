"""An established session without its socket: heartbeats, commands and their answers, and what is no NSQ."""

from __future__ import annotations

import pytest

from qtools.engines.nsq.protocol import commands
from qtools.engines.nsq.protocol.client_commands import Close, Finish, Nop, Publish, Ready, Requeue, Sub, Touch
from qtools.engines.nsq.protocol.frames import RESPONSE, encode_frame, encode_message
from qtools.engines.nsq.protocol.identify import IdentifyRequest
from qtools.engines.nsq.protocol.negotiate import ServerLimits
from qtools.engines.nsq.protocol.session import Answered, ClientSession, RefusedRequest, SessionState
from qtools.engines.nsq.protocol.transforms import Deflate
from qtools.errors import AuthError, BrokerError, ProtocolError, SizeError
from tests.engines.nsq.protocol.sessions import (
    CLOSE_WAIT,
    HEARTBEAT,
    OK,
    A,
    B,
    C,
    answer,
    error,
    established,
    started,
    subscribed,
)

from .peer import Peer
from .streams import bytewise

# ── heartbeats ────────────────────────────────────────────────────────────────────────────────────


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


# ── commands and answers ──────────────────────────────────────────────────────────────────────────


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


# ── what is no NSQ ────────────────────────────────────────────────────────────────────────────────


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
