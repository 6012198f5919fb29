"""Which command a client may send in which state of its connection. One table; session.py applies it.

    NEW ─IDENTIFY─▶ IDENTIFYING ─JSON─▶ UPGRADING ─OK of TLS, of snappy or deflate─▶ AUTHENTICATING ─▶ READY
                         └───────────────── upgrades that are not needed are skipped ─────────────────▶ READY
    READY ─SUB─▶ SUBSCRIBED ─CLS─▶ CLOSING          any state ─fatal error frame─▶ CLOSED

nsqd refuses a command in a wrong state and closes the connection (nsqd/protocol_v2.go), so such a command is a defect
of the caller and is not sent. After a fatal error the broker reads nothing more, so there all commands are dropped.
"""

from __future__ import annotations

import enum


class SessionState(enum.Enum):
    """The state of a connection. In CLOSED, messages may still arrive; replies are ignored."""

    NEW = "new"
    IDENTIFYING = "identifying"
    UPGRADING = "upgrading"
    AUTHENTICATING = "authenticating"
    READY = "ready"
    SUBSCRIBED = "subscribed"
    CLOSING = "closing"
    CLOSED = "closed"


NEW, IDENTIFYING, UPGRADING, AUTHENTICATING, READY, SUBSCRIBED, CLOSING, CLOSED = SessionState

# state → the commands that may be sent in it, each with the state that follows. PUB stands for MPUB and DPUB too.
COMMANDS: dict[SessionState, dict[str, SessionState]] = {
    NEW: {"IDENTIFY": IDENTIFYING},
    IDENTIFYING: {"NOP": IDENTIFYING},
    UPGRADING: {"NOP": UPGRADING, "AUTH": AUTHENTICATING},
    AUTHENTICATING: {"NOP": AUTHENTICATING},
    READY: {"NOP": READY, "PUB": READY, "SUB": SUBSCRIBED},
    SUBSCRIBED: {
        "NOP": SUBSCRIBED, "PUB": SUBSCRIBED,
        "RDY": SUBSCRIBED, "FIN": SUBSCRIBED, "REQ": SUBSCRIBED, "TOUCH": SUBSCRIBED, "CLS": CLOSING,
    },
    CLOSING: {"NOP": CLOSING, "PUB": CLOSING, "FIN": CLOSING, "REQ": CLOSING, "TOUCH": CLOSING},
    CLOSED: {},
}  # fmt: skip

# States in which no message may arrive. From SUB on messages are read many at a time.
BEFORE_MESSAGES = frozenset({NEW, IDENTIFYING, UPGRADING, AUTHENTICATING, READY})


class CommandNotAllowed(RuntimeError):
    """The caller asked for `command` in `state`, in which nsqd would refuse it: a defect of the caller."""

    def __init__(self, command: str, state: SessionState) -> None:
        self.command, self.state = command, state
        super().__init__(f"{command} is not allowed on a connection in the state {state.value!r}")
