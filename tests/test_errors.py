"""The tree of errors is the one drawn, and each sentence is one line that names the thing."""

from __future__ import annotations

import inspect
import re

import pytest

from qtools import errors
from qtools.errors import (
    AddressInvalid,
    AuthError,
    BrokerError,
    ConnectFailed,
    ConnectionLost,
    InputError,
    NameInvalid,
    PartialFailure,
    ProtocolError,
    QtoolsError,
    SinkClosed,
    StartError,
    UpgradeRefused,
    UsageError,
)


def drawn() -> dict[str, str]:
    """What the tree at the head of the file says: each class and the one it stands under."""
    assert errors.__doc__ is not None
    above: list[tuple[int, str]] = []
    found: dict[str, str] = {}
    for line in errors.__doc__.splitlines():
        entry = re.match(r"[ │├└─]*(?=[A-Z])(\w+)\b", line)
        if entry is None or not line.startswith("    "):
            continue
        depth = entry.start(1)
        while above and above[-1][0] >= depth:
            above.pop()
        found[entry[1]] = above[-1][1] if above else "Exception"
        above.append((depth, entry[1]))
    return found


def test_the_tree_is_the_one_that_is_drawn() -> None:
    classes = {name: kind for name, kind in vars(errors).items() if inspect.isclass(kind)}
    assert {name: kind.__base__.__name__ for name, kind in classes.items()} == drawn()
    assert len(classes) > 15


def test_every_error_says_what_it_is_for() -> None:
    for name in drawn():
        assert vars(errors)[name].__doc__


@pytest.mark.parametrize(
    ("kind", "status"), [(UsageError, 2), (NameInvalid, 2), (AddressInvalid, 2), (StartError, 3), (QtoolsError, 1)]
)
def test_the_exit_status_says_whose_fault_it_is(kind: type[QtoolsError], status: int) -> None:
    assert kind.exit_status == status


def test_all_that_is_not_the_user_s_nor_the_start_s_ends_with_1() -> None:
    for name in drawn():
        kind = vars(errors)[name]
        if not issubclass(kind, UsageError | StartError):
            assert kind.exit_status == 1


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (NameInvalid("topic", "a b", "has ' '"), "topic name 'a b' has ' '"),
        (AddressInvalid("h:x", "has no port"), "address 'h:x' has no port"),
        (InputError("line 5 is no JSON", 70), "line 5 is no JSON"),
        (BrokerError("E_INVALID", "no", "SUB"), "the broker refused SUB: E_INVALID no"),
        (BrokerError("E_BAD_PROTOCOL"), "the broker says: E_BAD_PROTOCOL"),
        (BrokerError("", ""), "the broker says: "),
        (AuthError("E_AUTH_FAILED", "AUTH failed", "AUTH"), "the broker refused AUTH: E_AUTH_FAILED AUTH failed"),
        (
            UpgradeRefused("TLS", "leave --tls away"),
            "the broker does not offer TLS, which was asked for: leave --tls away",
        ),
        (ConnectFailed("h:4150", "refused"), "h:4150: refused"),
        (ConnectionLost("h:4150", "closed"), "h:4150: closed"),
        (SinkClosed("the output was closed"), "the output was closed"),
        (
            PartialFailure({3: ConnectionLost("h:1", "gone"), 4: ConnectionLost("h:2", "gone")}),
            "2 of a batch failed, first: h:1: gone",
        ),
    ],
)
def test_an_error_composes_its_own_sentence(error: QtoolsError, sentence: str) -> None:
    assert str(error) == sentence


def test_errors_carry_what_a_program_wants_to_know() -> None:
    assert ProtocolError("no", looks_like="HTTP").looks_like == "HTTP"
    assert ProtocolError("no").looks_like == ""
    assert InputError("no", 7).offset == 7
    assert ConnectFailed("h:1", "no", permanent=True).permanent
    assert not ConnectFailed("h:1", "no").permanent
    error = BrokerError("E_X", "text", "PUB")
    assert (error.code, error.text, error.command) == ("E_X", "text", "PUB")


def test_a_broker_s_words_stay_on_one_line_and_off_the_terminal_s_controls() -> None:
    error = BrokerError("E_INVALID", "first\nsecond\r\x1b[31mred\x00\x7f\u2028end", "PUB")
    assert str(error) == "the broker refused PUB: E_INVALID first second [31mred end"
    assert error.text == "first\nsecond\r\x1b[31mred\x00\x7f\u2028end"
