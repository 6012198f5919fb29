"""What the tests of a session share: sessions in each state, and what a broker answers."""

from __future__ import annotations

import json

from qtools.engines.nsq.protocol.frames import ERROR, RESPONSE, encode_frame
from qtools.engines.nsq.protocol.identify import IdentifyRequest, IdentifyResponse
from qtools.engines.nsq.protocol.session import ClientSession, SessionState
from qtools.message import Message

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
