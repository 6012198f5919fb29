"""The table of states, and a session that is driven through all of it: every command in every state."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from qtools.engines.nsq.protocol import commands
from qtools.engines.nsq.protocol.client_states import COMMANDS, CommandNotAllowed, SessionState
from qtools.engines.nsq.protocol.frames import ERROR, RESPONSE, encode_frame
from qtools.engines.nsq.protocol.identify import IdentifyRequest, IdentifyResponse
from qtools.engines.nsq.protocol.session import ClientSession
from qtools.engines.nsq.protocol.transforms import Deflate

IDENT = b"0123456789abcdef"
OK = encode_frame(RESPONSE, b"OK")

SEND: dict[str, Callable[[ClientSession], None]] = {
    "IDENTIFY": lambda session: session.start(),
    "SUB": lambda session: session.subscribe("t", "c", None),
    "RDY": lambda session: session.ready(1),
    "FIN": lambda session: session.finish([IDENT]),
    "REQ": lambda session: session.requeue([IDENT], 0),
    "TOUCH": lambda session: session.touch([IDENT]),
    "CLS": lambda session: session.stop_receiving(None),
    "PUB": lambda session: session.publish(commands.pub("t", b"x"), 1, None),
    "NOP": lambda session: session.nop(),
}

ANY = {"PUB", "NOP"}
ALLOWED = {
    SessionState.NEW: {"IDENTIFY"},
    SessionState.IDENTIFYING: {"NOP"},
    SessionState.UPGRADING: {"NOP"},
    SessionState.AUTHENTICATING: {"NOP"},
    SessionState.READY: {"SUB", *ANY},
    SessionState.SUBSCRIBED: {"RDY", "FIN", "REQ", "TOUCH", "CLS", *ANY},
    SessionState.CLOSING: {"FIN", "REQ", "TOUCH", *ANY},
    SessionState.CLOSED: set(),
}


def agreed(**fields: object) -> bytes:
    answer = json.loads(IdentifyResponse(version="1.3.0").encode()) | fields
    return encode_frame(RESPONSE, json.dumps(answer).encode())


def session_in(state: SessionState) -> ClientSession:
    """A session that has reached `state` as real ones do; its output is taken."""
    session = ClientSession(IdentifyRequest(deflate=state is SessionState.UPGRADING), secret=b"secret")
    if state is not SessionState.NEW:
        session.start()
    if state is SessionState.UPGRADING:
        session.receive(agreed(deflate=True))
    elif state is SessionState.AUTHENTICATING:
        session.receive(agreed(auth_required=True))
    elif state not in (SessionState.NEW, SessionState.IDENTIFYING):
        session.receive(agreed())
    if state in (SessionState.SUBSCRIBED, SessionState.CLOSING):
        session.subscribe("t", "c", None)
    if state is SessionState.CLOSING:
        session.stop_receiving(None)
    if state is SessionState.CLOSED:
        session.receive(encode_frame(ERROR, b"E_INVALID x"))
    session.take_output()
    assert session.state is state
    return session


@pytest.mark.parametrize("command", SEND)
@pytest.mark.parametrize("state", SessionState)
def test_a_command_is_sent_where_nsqd_accepts_it_and_nowhere_else(state: SessionState, command: str) -> None:
    session = session_in(state)
    if command in ALLOWED[state]:
        SEND[command](session)
        assert session.has_output
        assert session.state is COMMANDS[state][command]
        return
    if state is SessionState.CLOSED:  # the connection is about to close: an acknowledgement is late, and no defect
        SEND[command](session)
    else:
        with pytest.raises(CommandNotAllowed, match=f"^{command} is not allowed .*{state.value}"):
            SEND[command](session)
    assert not session.has_output
    assert session.state is state


def test_a_publish_after_a_fatal_error_is_known_as_unanswered() -> None:
    session = session_in(SessionState.CLOSED)
    session.publish(commands.pub("t", b"x"), 1, "late")
    assert session.unanswered == ["late"]


@pytest.mark.parametrize("state", SessionState)
def test_a_heartbeat_is_answered_in_each_state_but_the_first_and_the_last(state: SessionState) -> None:
    session = session_in(state)
    beat = encode_frame(RESPONSE, b"_heartbeat_")
    if state is SessionState.NEW:
        return
    session.receive(Deflate().encode(beat) if state is SessionState.UPGRADING else beat)
    assert session.has_output == (state is not SessionState.CLOSED)


def test_every_state_is_in_the_table_and_can_be_left_or_is_an_end() -> None:
    assert set(COMMANDS) == set(SessionState)
    assert {after for row in COMMANDS.values() for after in row.values()} == {
        SessionState.IDENTIFYING,
        SessionState.UPGRADING,
        SessionState.AUTHENTICATING,
        SessionState.READY,
        SessionState.SUBSCRIBED,
        SessionState.CLOSING,
    }
