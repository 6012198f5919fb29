"""Which command a client may send in which state. In: a state, a command. Out: the next state, or no state: refused.

    command          TLS_REQUIRED   INIT         SUBSCRIBED   CLOSING
    IDENTIFY         (stays)        (stays)      refused      refused
    AUTH             refused        (stays)      refused      refused
    SUB              refused        SUBSCRIBED   refused      refused
    RDY              refused        refused      (stays)      ignored
    FIN REQ TOUCH    refused        refused      (stays)      (stays)
    CLS              refused        refused      CLOSING      refused
    PUB MPUB DPUB    refused        (stays)      (stays)      (stays)
    NOP              refused        (stays)      (stays)      (stays)

    refused   E_INVALID cannot COMMAND in current state, and the connection ends
    ignored   no answer and no effect

A client begins in TLS_REQUIRED when the broker requires TLS, and is in INIT once its TLS handshake is complete. The
rules are nsqd 1.3.0's (nsqd/protocol_v2.go). Never here: other reasons for a refusal, such as a wrong argument.
"""

from __future__ import annotations

from enum import Enum
from typing import Final, Literal

from qtools.engines.nsq.protocol.client_commands import (
    Auth,
    Close,
    Command,
    Finish,
    Identify,
    Nop,
    Publish,
    Ready,
    Requeue,
    Sub,
    Touch,
)


class ClientState(Enum):
    """The state of a client."""

    TLS_REQUIRED = "TLS required"
    INIT = "init"
    SUBSCRIBED = "subscribed"
    CLOSING = "closing"

    @property
    def number(self) -> int:
        """nsqd's number for the state, which /stats shows (nsqd/client_v2.go)."""
        return {ClientState.SUBSCRIBED: 3, ClientState.CLOSING: 4}.get(self, 0)


TLS_REQUIRED, INIT, SUBSCRIBED, CLOSING = ClientState
IGNORED: Final = "ignored"
Next = ClientState | Literal["ignored"]

# For each state, the commands that are not refused, and the state after each.
TABLE: dict[ClientState, dict[type, Next]] = {
    TLS_REQUIRED: {Identify: TLS_REQUIRED},
    INIT: {Identify: INIT, Auth: INIT, Sub: SUBSCRIBED, Publish: INIT, Nop: INIT},
    SUBSCRIBED: {
        Publish: SUBSCRIBED,
        Finish: SUBSCRIBED,
        Nop: SUBSCRIBED,
        Ready: SUBSCRIBED,
        Requeue: SUBSCRIBED,
        Touch: SUBSCRIBED,
        Close: CLOSING,
    },
    CLOSING: {
        Publish: CLOSING,
        Finish: CLOSING,
        Nop: CLOSING,
        Ready: IGNORED,
        Requeue: CLOSING,
        Touch: CLOSING,
    },
}

NAMES: dict[type, str] = {
    Identify: "IDENTIFY",
    Auth: "AUTH",
    Sub: "SUB",
    Ready: "RDY",
    Finish: "FIN",
    Requeue: "REQ",
    Touch: "TOUCH",
    Close: "CLS",
    Nop: "NOP",
}


def refusal(state: ClientState, command: Command) -> str:
    """The text of the error E_INVALID for a command that is refused in `state`."""
    name = command.command if isinstance(command, Publish) else NAMES[type(command)]
    return f"cannot {name} in current state" + (" (TLS required)" if state is TLS_REQUIRED else "")
