"""--where and --select: which messages get a command, and with what body. In: batches. Out: batches.

    batch ─▶ does not match: finished
         ├─▶ an expression fails: a dead letter, or what --on-error says (fail, skip, pass)
         └─▶ after the last of --count: given back

A message keeps its own body until its command is started (`bodies_for`), so that a dead letter has that body.
"""

from __future__ import annotations

from qtools.cli.consume_run import name_of_message
from qtools.errors import EvaluationError, QtoolsError
from qtools.exec.outcomes import DEAD_LETTER, Outcome
from qtools.exec.settling import Settling
from qtools.flow.filter import Filter, Rules
from qtools.message import Batch


class Selection:
    """Applies `rules`. on_error: "dead-letter", "fail", "skip" or "pass". limit: how many messages get a command, None
    for no limit."""

    def __init__(self, rules: Rules, settling: Settling, *, on_error: str, limit: int | None) -> None:
        self._rules = rules
        self._select = None if rules.select is None else Filter(None, rules.select)
        self._settling = settling
        self._on_error = on_error
        self._left = limit

    @property
    def is_over(self) -> bool:
        """Whether as many messages have got a command as may."""
        return self._left == 0

    async def choose(self, batch: Batch) -> Batch:
        """The messages of `batch` that get a command, as they came. With "fail", QtoolsError at the first message on
        which an expression fails; all of `batch` is given back then."""
        made = await self._rules.apply(batch)
        places, failed = list(made.places), made.failed
        if self._left is not None and len(places) >= self._left:
            places = places[: self._left]
            batch, rest = batch.split(places[-1] + 1)
            failed = {place: why for place, why in failed.items() if place <= places[-1]}
            self._settling.give_back(rest)
        if failed and self._on_error == "fail":
            self._settling.give_back(batch)
            place = min(failed)
            advice = "--on-error says what becomes of such messages"
            raise QtoolsError(f"{name_of_message(batch, place)}: {failed[place]} ({advice})")
        if self._on_error != "pass":
            self._settle_failed(batch, failed)
        decided = {*places, *failed}
        if len(decided) < len(batch):
            self._settling.leave_out(batch.without(list(decided)))
        if self._left is not None:
            self._left -= len(places)
        return batch if len(places) == len(batch) else batch.pick(places)

    def bodies_for(self, batch: Batch) -> Batch:
        """`batch` with the bodies that its command gets. A body for which --select fails stays as it is."""
        if self._select is None:
            return batch
        places, made, _ = self._select.run(batch)
        bodies = list(batch.bodies)
        for place, body in zip(places, made, strict=True):
            bodies[place] = body
        return batch.with_bodies(bodies)

    def _settle_failed(self, batch: Batch, failed: dict[int, EvaluationError]) -> None:
        for place, why in sorted(failed.items()):
            if self._on_error == "dead-letter":
                self._settling.settle(batch.pick([place]), Outcome(DEAD_LETTER, None, str(why)))
            else:
                self._settling.drop(batch.pick([place]), str(why))
