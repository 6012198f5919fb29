"""Which messages pass, and with what body: --where and --select. In: batches. Out: batches of the messages that pass.

    batch ─▶ parse ─▶ where ─▶ select ─▶ the sink      one pass over the bodies of a batch, before its write
               └─ not JSON, or an expression fails ─▶ fail, skip or pass, as on_error says

A message without a body (TOMBSTONE, attributes.py) has the value null. It stays without a body if --select yields null
for it: otherwise `--select .` would turn each deletion in a compacted topic into a message with the body `null`.

Messages that do not match are finished together with those that were written, in the order of the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import compress, count
from typing import Any, Literal

from qtools.attributes import TOMBSTONE
from qtools.errors import EvaluationError, PartialFailure, QtoolsError, SinkError
from qtools.expressions.expression import NOTHING, Expression
from qtools.flow.contract import Sink
from qtools.flow.json_values import encode, encode_all, parse, parser_for
from qtools.flow.variables import Row, names_in, rows_of
from qtools.message import Batch

OnError = Literal["fail", "skip", "pass"]
ADVICE = "--on-error skip leaves such messages out, --on-error pass passes them on unchanged"

Passing = tuple[list[int], list[bytes], dict[int, EvaluationError]]


class Filter:
    """Passes the messages for which `where` is true, with the result of `select` as their new body.

    Without `where` all messages pass; without `select` they keep their bodies. A message for which `select` yields
    nothing does not pass; one without a body keeps having none if `select` yields null. An expression that does not
    read the body has a result for a message that is not JSON too. chosen: whether the user gave `on_error`, so that it
    is not the default.
    """

    def __init__(
        self, where: Expression | None, select: Expression | None, on_error: OnError, *, chosen: bool = False
    ) -> None:
        self.where, self.select, self.on_error, self.chosen = where, select, on_error, chosen
        self._variables = names_in((where, select))
        # A body that only `select` reads is parsed once `where` is true: it need not be JSON otherwise.
        selects_body = select is not None and select.reads_body
        self._parses_first = selects_body if where is None else where.reads_body
        self._parses_late = selects_body and not self._parses_first
        self._has_small_results = select is None or select.is_modest  # else results are encoded one by one

    def run(self, batch: Batch) -> Passing:
        """Returns the places of the messages that pass, their bodies, and the errors of expressions by place.

        With `on_error` "pass", a message on which an expression fails is among those that pass, unchanged. With "fail",
        the messages after the first failure are not evaluated.
        """
        rows = rows_of(batch, self._variables)
        if not self._has_small_results:
            return self._pass(batch.bodies, rows, None, [])
        selected: list[int] = []  # indices in `passing` of the bodies that are replaced
        values: list[Any] = []
        places, passing, failed = self._pass(batch.bodies, rows, selected, values)
        made = encode_all(values)
        if made is None:
            return self._pass(batch.bodies, rows, None, [])
        for nth, body in zip(selected, made, strict=True):
            passing[nth] = body
        return places, passing, failed

    def failures(self, batch: Batch) -> dict[int, EvaluationError]:
        """The error of each message on which an expression fails, by index. Not with on_error "fail", which stops at
        the first."""
        return self.run(batch)[2]

    def _pass(
        self, bodies: Sequence[bytes], rows: Sequence[Row], selected: list[int] | None, values: list[Any]
    ) -> Passing:
        """Evaluate both expressions for each of `bodies`; return what `run` returns. rows: the variables of each.

        With a list `selected`, the results of `select` are not encoded: they are appended to `values`, and their
        indices in the returned bodies to `selected`. With None, each result is encoded at once, as its message's body.
        """
        where = self.where.evaluate if self.where is not None else None
        select = self.select.evaluate if self.select is not None else None
        parses_first, parses_late = self._parses_first, self._parses_late
        loads = parser_for(bodies) if parses_first or parses_late else parse
        value: Any = None
        places: list[int] = []
        passing: list[bytes] = []
        failed: dict[int, EvaluationError] = {}
        for place, body, row in zip(count(), bodies, rows, strict=False):
            doing = ""
            try:
                if parses_first:
                    value = loads(body)
                if where is not None:
                    doing = "--where failed: "
                    truth = where(value, row)
                    if truth is None or truth is False or truth is NOTHING:
                        continue
                if select is not None:
                    if parses_late:
                        doing, value = "", loads(body)
                    doing = "--select has no result: "
                    value = select(value, row)
                    if value is NOTHING:
                        continue
                    if value is None and body is TOMBSTONE:
                        pass
                    elif selected is None:
                        body = encode(value)
                    else:
                        selected.append(len(passing))
                        values.append(value)
            except EvaluationError as error:
                failed[place] = EvaluationError(f"{doing}{error}")
                if self.on_error == "fail":
                    break
                if self.on_error == "skip":
                    continue
            places.append(place)
            passing.append(body)
        return places, passing, failed


class FilteredSink:
    """`sink` with a filter before it.

    name: returns the name of a message for the log, given its batch and place. warn: takes a line about a message that
    is left out because an expression fails. passed, passed_bytes: messages that the sink took. filtered: messages that
    did not match. left_out, let_through: messages on which an expression failed; the latter are in `passed` too.
    """

    def __init__(
        self, sink: Sink, rules: Filter, *, name: Callable[[Batch, int], str], warn: Callable[[str], None]
    ) -> None:
        self.passed = 0
        self.passed_bytes = 0
        self.filtered = 0
        self.left_out = 0
        self.let_through = 0
        self._sink = sink
        self._rules = rules
        self._name = name
        self._warn = warn

    async def write(self, batch: Batch) -> None:
        """Write the messages that pass. Raises what the sink raises, with the places of `batch`. With `on_error`
        "fail", raises SinkError at the first message on which an expression fails; the messages before it are safe."""
        places, bodies, failed = self._rules.run(batch)
        end, stop = len(batch), None
        if failed and self._rules.on_error == "fail":
            end = min(failed)
            stop = SinkError(f"{self._name(batch, end)}: {failed[end]} ({ADVICE})", end)
        refused: dict[int, QtoolsError] = {}
        if places:
            try:
                await self._sink.write(batch.pick(places).with_bodies(bodies))
            except PartialFailure as error:
                refused = {places[place]: why for place, why in sorted(error.failed.items())}
            except SinkError as error:
                # Messages up to the last one that the sink took are finished; those after it are delivered again.
                taken = error.taken
                error.taken = places[taken - 1] + 1 if taken else 0
                self._count(batch, places[:taken], bodies[:taken], failed, error.taken)
                raise
        if refused:
            fit = [place not in refused for place in places]
            self._count(batch, list(compress(places, fit)), list(compress(bodies, fit)), failed, end, len(refused))
            if stop is not None:
                refused |= dict.fromkeys(range(end, len(batch)), stop)
            raise PartialFailure(refused)
        self._count(batch, places, bodies, failed, end)
        if stop is not None:
            raise stop

    async def close(self) -> None:
        await self._sink.close()

    @property
    def unmatched(self) -> int:
        """Messages that a summary has to mention: those that did not match, and those on which an expression failed."""
        return self.filtered + self.left_out + self.let_through

    def notes(self, done: str) -> list[str]:
        """Notes for the summary: how many messages were not `done` ("sent", "printed"), and why."""
        notes = []
        if self.filtered:
            notes.append(f"{self.filtered:,} did not match")
        if self.left_out:
            notes.append(f"{self.left_out:,} failed and {_were(self.left_out)} left out")
        if self.let_through:
            notes.append(f"{self.let_through:,} failed and {_were(self.let_through)} {done} unchanged")
        return notes

    def _count(
        self,
        batch: Batch,
        taken: Sequence[int],
        bodies: Sequence[bytes],
        failed: dict[int, EvaluationError],
        end: int,
        refused: int = 0,
    ) -> None:
        """Count the messages before `end`: those at the places `taken` were written as `bodies`, the sink refused
        `refused`."""
        self.passed += len(taken)
        self.passed_bytes += sum(map(len, bodies))
        undecided = [place for place in failed if place < end]
        if self._rules.on_error == "skip":
            self.filtered -= len(undecided)
            for place in undecided:
                self._warn(f"{self._name(batch, place)}: {failed[place]}: left out")
                self.left_out += 1
        else:
            self.let_through += len(undecided)
        self.filtered += end - len(taken) - refused


def _were(count: int) -> str:
    return "was" if count == 1 else "were"
