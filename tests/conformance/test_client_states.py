"""Which command a client may send in which state: every command in every state, as nsqd 1.3.0 answers it."""

from __future__ import annotations

import socket
import struct

import pytest
from harness.brokers import Broker
from harness.certificates import Certificates

from qtools.broker.tcp.client_states import CLOSING, IGNORED, INIT, NAMES, SUBSCRIBED, TABLE, TLS_REQUIRED, ClientState
from qtools.engines.nsq.protocol.client_commands import Publish
from tests.conftest import MakeBroker

UNKNOWN = b"0123456789abcdef"  # the id of no message
COMMANDS = {
    "IDENTIFY": b"IDENTIFY\n\0\0\0\2{}",
    "AUTH": b"AUTH\n\0\0\0\6secret",
    "SUB": b"SUB %(topic)b c\n",
    "RDY": b"RDY 1\n",
    "FIN": b"FIN " + UNKNOWN + b"\n",
    "REQ": b"REQ " + UNKNOWN + b" 0\n",
    "TOUCH": b"TOUCH " + UNKNOWN + b"\n",
    "CLS": b"CLS\n",
    "NOP": b"NOP\n",
    "PUB": b"PUB %(topic)b-other\n\0\0\0\1x",
    "MPUB": b"MPUB %(topic)b-other\n\0\0\0\x09\0\0\0\1\0\0\0\1x",
    "DPUB": b"DPUB %(topic)b-other 1\n\0\0\0\1x",
}
# How a client comes into each state, and a command that it may send there and is answered OK, after all others.
WAYS = {TLS_REQUIRED: b"", INIT: b"", SUBSCRIBED: COMMANDS["SUB"], CLOSING: COMMANDS["SUB"] + COMMANDS["CLS"]}
MARKER = dict.fromkeys(WAYS, b"PUB %(topic)b-marker\n\x00\x00\x00\x01x") | {TLS_REQUIRED: COMMANDS["IDENTIFY"]}

OK, NOTHING, REFUSED = "OK", "", "refused"
DISABLED = "E_AUTH_DISABLED AUTH disabled"  # it ends the connection, as a refusal does
FAILED = "E_{0}_FAILED {0} 0123456789abcdef failed ID not in flight"
# nsqd 1.3.0's answers.
ANSWERS: dict[str, dict[ClientState, str]] = {
    name: dict(zip((TLS_REQUIRED, INIT, SUBSCRIBED, CLOSING), answers, strict=True))
    for name, answers in {
        "IDENTIFY": (OK, OK, REFUSED, REFUSED),
        "AUTH": (REFUSED, DISABLED, REFUSED, REFUSED),
        "SUB": (REFUSED, OK, REFUSED, REFUSED),
        "RDY": (REFUSED, REFUSED, NOTHING, NOTHING),
        "FIN": (REFUSED, REFUSED, FAILED, FAILED),
        "REQ": (REFUSED, REFUSED, FAILED, FAILED),
        "TOUCH": (REFUSED, REFUSED, FAILED, FAILED),
        "CLS": (REFUSED, REFUSED, "CLOSE_WAIT", REFUSED),
        "NOP": (REFUSED, NOTHING, NOTHING, NOTHING),
        "PUB": (REFUSED, OK, OK, OK),
        "MPUB": (REFUSED, OK, OK, OK),
        "DPUB": (REFUSED, OK, OK, OK),
    }.items()
}


@pytest.fixture
def secure_broker(make_broker: MakeBroker, certificates: Certificates) -> Broker:
    return make_broker(*certificates.server_flags, "--tls-required=true")


def answer_to(broker: Broker, topic: str, state: ClientState, name: str) -> tuple[str, bool]:
    """The answer to the command in `state`, "" when there is none; and whether the connection was closed after it."""
    names = {b"topic": topic.encode()}
    before = {TLS_REQUIRED: 0, INIT: 0, SUBSCRIBED: 1, CLOSING: 2}[state]
    with socket.create_connection(("127.0.0.1", broker.port), timeout=10) as link, link.makefile("rb") as stream:
        link.sendall(b"  V2" + (WAYS[state] + COMMANDS[name] + MARKER[state]) % names)
        answers: list[str] = []
        while (head := stream.read(8)) and len(head) == 8:
            size, _ = struct.unpack(">ii", head)
            answers.append(stream.read(size - 4).decode())
            if len(answers) == before + 2:
                break
            if len(answers) == before + 1 and answers[-1] == OK and ANSWERS[name][state] == NOTHING:
                return "", False
    mine = answers[before:]
    assert mine, f"{name} in {state}: closed without an answer"
    return mine[0], len(mine) == 1


@pytest.mark.parametrize("state", [INIT, SUBSCRIBED, CLOSING])
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_in_a_state(broker: Broker, topic: str, state: ClientState, name: str) -> None:
    expected = ANSWERS[name][state]
    if expected == REFUSED:
        assert answer_to(broker, topic, state, name) == (f"E_INVALID cannot {name} in current state", True)
    else:
        assert answer_to(broker, topic, state, name) == (expected.format(name), expected == DISABLED)


def test_commands_where_tls_is_required(secure_broker: Broker, topic: str) -> None:
    for name in COMMANDS:
        expected = (f"E_INVALID cannot {name} in current state (TLS required)", True)
        if name == "IDENTIFY":
            expected = ("OK", False)
        assert answer_to(secure_broker, topic, TLS_REQUIRED, name) == expected


def test_the_table_is_what_nsqd_answers() -> None:
    """The table refuses exactly what nsqd refuses, and knows every command."""
    kinds: dict[str, type] = {name: kind for kind, name in NAMES.items()}
    kinds |= dict.fromkeys(("PUB", "MPUB", "DPUB"), Publish)
    assert kinds.keys() == COMMANDS.keys()
    for name, answers in ANSWERS.items():
        for state, answer in answers.items():
            assert (answer == REFUSED) == (kinds[name] not in TABLE[state]), (name, state)
    after = {(state, name): TABLE[state].get(kind) for name, kind in kinds.items() for state in TABLE}
    moves = {cell: following for cell, following in after.items() if following not in (None, cell[0])}
    assert moves == {(INIT, "SUB"): SUBSCRIBED, (SUBSCRIBED, "CLS"): CLOSING, (CLOSING, "RDY"): IGNORED}


def test_stats_show_the_numbers_of_nsqd(broker: Broker, topic: str) -> None:
    with socket.create_connection(("127.0.0.1", broker.port), timeout=10) as link:
        for sent, answer, number in ((COMMANDS["SUB"], b"OK", 3), (COMMANDS["CLS"], b"CLOSE_WAIT", 4)):
            link.sendall((b"  V2" if number == 3 else b"") + sent % {b"topic": topic.encode()})
            assert link.recv(100).endswith(answer)
            (channel,) = next(one for one in broker.stats(topic, clients=True) if one["topic_name"] == topic)[
                "channels"
            ]
            assert [client["state"] for client in channel["clients"]] == [number]
