"""--exit, and the answers of a worker: text to what becomes of a message."""

from __future__ import annotations

import pytest

from qtools.errors import UsageError
from qtools.exec.outcomes import (
    DEAD_LETTER,
    FINISH,
    REQUEUE,
    STOP,
    Exit,
    Outcome,
    parse_answer,
    parse_rules,
)  # fmt: skip


@pytest.mark.parametrize(
    ("end", "action", "reason"),
    [
        (Exit(0), FINISH, ""),
        (Exit(1, last_words="no such table"), REQUEUE, "exit status 1: no such table"),
        (Exit(126), STOP, "exit status 126"),
        (Exit(127), STOP, "exit status 127"),
        (Exit(-9), REQUEUE, "signal SIGKILL ended it"),
        (Exit(-15, timed_out=True), REQUEUE, "it ran longer than --timeout"),
        (Exit(0, timed_out=True), REQUEUE, "it ran longer than --timeout"),
    ],
)
def test_without_rules(end: Exit, action: str, reason: str) -> None:
    outcome = parse_rules([]).outcome(end)
    assert (outcome.action, outcome.reason, outcome.delay) == (action, reason, None)
    assert outcome.exit_status == (end.status if action == STOP else 1)


def test_rules() -> None:
    rules = parse_rules(
        ["1-3=finish", "75=requeue:90s", "76=requeue", "65=dead-letter", "signal=stop", "timeout=dead-letter", "0=stop"]
    )
    assert rules.outcome(Exit(2)) == Outcome(FINISH)
    assert rules.outcome(Exit(4)).action == REQUEUE
    assert rules.outcome(Exit(75)) == Outcome(REQUEUE, 90.0, "exit status 75")
    assert rules.outcome(Exit(76)).delay is None
    assert rules.outcome(Exit(65)).action == DEAD_LETTER
    assert rules.outcome(Exit(-6)).action == STOP
    assert rules.outcome(Exit(-15, timed_out=True)).action == DEAD_LETTER
    assert rules.outcome(Exit(0)).action == STOP
    assert rules.actions == {FINISH, REQUEUE, DEAD_LETTER, STOP}


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["75"], "is not STATUS=ACTION"),
        (["=finish"], "is no exit status"),
        (["x=finish"], "is no exit status"),
        (["-1=finish"], "is no exit status"),
        (["256=finish"], "exit statuses are 0 to 255"),
        (["9-1=finish"], "exit statuses are 0 to 255"),
        (["1=drop"], "is not finish, requeue"),
        (["1=finish:3s"], "is not finish, requeue"),
        (["1=requeue:soon"], "soon"),
        (["1-3=finish", "2=stop"], "what 2 does was given before"),
        (["²=finish"], "is no exit status"),
    ],
)
def test_malformed_rules(words: list[str], part: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_rules(words)
    assert part in str(caught.value)
    assert "--exit" in str(caught.value)


@pytest.mark.parametrize(
    ("line", "outcome"),
    [
        (b"ok", Outcome(FINISH)),
        (b" ok \r", Outcome(FINISH)),
        (b"requeue", Outcome(REQUEUE, None, "the worker answered requeue")),
        (b"requeue 1.5s", Outcome(REQUEUE, 1.5, "the worker answered requeue")),
        (b"dead", Outcome(DEAD_LETTER, None, "the worker answered dead")),
        (b"dead no such user", Outcome(DEAD_LETTER, None, "no such user")),
        (b"dead \x1b[31mred \xff", Outcome(DEAD_LETTER, None, "[31mred \N{REPLACEMENT CHARACTER}")),
        (b"stop the disk is full", Outcome(STOP, None, "the disk is full")),
        (b"", None),
        (b"OK", None),
        (b"ok then", None),
        (b"okay", None),
        (b"requeue later", None),
    ],
)
def test_answers(line: bytes, outcome: Outcome | None) -> None:
    assert parse_answer(line) == outcome
