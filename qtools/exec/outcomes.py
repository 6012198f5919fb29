"""What becomes of a message, by what its command did. In: an exit status, or the answer of a worker. Out: an Outcome.

--exit 75=requeue:30s    --exit 100=dead-letter    --exit 1-9=finish    --exit signal=stop    --exit timeout=requeue
"""

from __future__ import annotations

import signal
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from qtools.durations import parse_duration
from qtools.errors import UsageError, one_line

FINISH, REQUEUE, DEAD_LETTER, STOP = "finish", "requeue", "dead-letter", "stop"
ACTIONS = (FINISH, REQUEUE, DEAD_LETTER, STOP)

TIMEOUT, SIGNAL = "timeout", "signal"  # causes beside exit statuses
# What a shell, env, nice or timeout return if the command that they were given cannot be run: no message would pass.
CANNOT_RUN = (126, 127)


class Outcome(NamedTuple):
    """action: one of ACTIONS. delay: s until a requeued message comes again; None: as --backoff says. reason: why, for
    logs and dead letters; "" for a message that is finished. exit_status: of q-exec, where the action is STOP."""

    action: str
    delay: float | None = None
    reason: str = ""
    exit_status: int = 1


class Exit(NamedTuple):
    """How a process ended. status: its exit status, or minus the signal that ended it. timed_out: q-exec ended it,
    after --timeout. last_words: the end of what it wrote to stderr."""

    status: int
    timed_out: bool = False
    last_words: str = ""

    def __str__(self) -> str:
        if self.timed_out:
            text = "it ran longer than --timeout"
        elif self.status < 0:
            text = f"signal {signal_name(-self.status)} ended it"
        else:
            text = f"exit status {self.status}"
        return f"{text}: {self.last_words}" if self.last_words else text


class ExitRules:
    """What becomes of a message for each way its command may end. rules: exit status, "signal" or "timeout" → outcome
    without a reason."""

    def __init__(self, rules: Mapping[int | str, Outcome]) -> None:
        self._rules = rules

    def outcome(self, end: Exit) -> Outcome:
        """By the rules; without one, 0 finishes the message, 126 and 127 stop the run, and all else requeues it."""
        cause: int | str = TIMEOUT if end.timed_out else SIGNAL if end.status < 0 else end.status
        if (rule := self._rules.get(cause)) is None:
            if cause == 0:
                return Outcome(FINISH)
            rule = Outcome(STOP, exit_status=end.status) if cause in CANNOT_RUN else Outcome(REQUEUE)
        return rule if rule.action == FINISH else rule._replace(reason=str(end))

    @property
    def actions(self) -> frozenset[str]:
        """The actions that rules name."""
        return frozenset(rule.action for rule in self._rules.values())


def parse_rules(words: Iterable[str]) -> ExitRules:
    """The values of --exit; UsageError for one that is malformed, or a cause that is given twice."""
    rules: dict[int | str, Outcome] = {}
    for word in words:
        causes, separator, action = word.partition("=")
        if not separator:
            raise UsageError(f"--exit {word!r} is not STATUS=ACTION, as in 75=requeue:30s")
        outcome = _parse_action(action, word)
        for cause in _parse_causes(causes.strip(), word):
            if cause in rules:
                raise UsageError(f"--exit {word!r}: what {cause} does was given before")
            rules[cause] = outcome
    return ExitRules(rules)


def parse_answer(line: bytes) -> Outcome | None:
    """The answer of a worker: `ok`, `requeue`, `requeue 5s`, `dead REASON`, `stop REASON`; None for anything else."""
    word, _, rest = line.strip().partition(b" ")
    text = one_line(rest.decode("utf-8", "replace"))
    if word == b"ok" and not text:
        return Outcome(FINISH)
    if word == b"requeue":
        try:
            return Outcome(REQUEUE, parse_duration(text) if text else None, "the worker answered requeue")
        except ValueError:
            return None
    if word == b"dead":
        return Outcome(DEAD_LETTER, None, text or "the worker answered dead")
    if word == b"stop":
        return Outcome(STOP, None, text or "the worker answered stop")
    return None


def signal_name(number: int) -> str:
    """SIGKILL for 9; the number for one that has no name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)


def _parse_causes(text: str, word: str) -> list[int | str]:
    """The exit statuses of `75` or `1-9`, or "signal", or "timeout"."""
    if text in (SIGNAL, TIMEOUT):
        return [text]
    first, separator, last = text.partition("-")
    if not (first.isascii() and first.isdigit()) or (separator and not (last.isascii() and last.isdigit())):
        raise UsageError(f"--exit {word!r}: {text!r} is no exit status, no range such as 1-9, not signal, not timeout")
    low, high = int(first), int(last or first)
    if not low <= high <= 255:
        raise UsageError(f"--exit {word!r}: exit statuses are 0 to 255")
    return list(range(low, high + 1))


def _parse_action(text: str, word: str) -> Outcome:
    action, separator, delay = text.strip().partition(":")
    if action not in ACTIONS or (separator and action != REQUEUE):
        raise UsageError(f"--exit {word!r}: {text!r} is not finish, requeue, requeue:DURATION, dead-letter or stop")
    try:
        return Outcome(action, parse_duration(delay) if separator else None)
    except ValueError as error:
        raise UsageError(f"--exit {word!r}: {error}") from error
