"""Which messages pass, and with what body: --where and --select, as a step. In: batches. Out: the messages that pass.

    batch ─▶ parse ─▶ where ─▶ select      one pass over the bodies of a batch
               └─ not JSON, or an expression fails ─▶ fail, skip or pass, as --on-error says (steps.py)

A message without a body (TOMBSTONE, attributes.py) has the value null. It stays without a body if --select yields null
for it: otherwise `--select .` would turn each deletion in a compacted topic into a message with the body `null`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import Any

from qtools.attributes import TOMBSTONE
from qtools.errors import EvaluationError
from qtools.expressions.expression import NOTHING, Expression
from qtools.flow.json_values import encode, encode_all, parse, parser_for
from qtools.flow.steps import OnError, Passed, Step, Steps
from qtools.flow.variables import Row, names_in, rows_of
from qtools.message import Batch

Passing = tuple[list[int], list[bytes], dict[int, EvaluationError]]


class Filter:
    """A step that passes the messages for which `where` is true, with the result of `select` as their new body.

    Without `where` all messages pass; without `select` they keep their bodies. A message for which `select` yields
    nothing does not pass; one without a body keeps having none if `select` yields null. An expression that does not
    read the body has a result for a message that is not JSON too.
    """

    def __init__(self, where: Expression | None, select: Expression | None) -> None:
        self.where, self.select = where, select
        self._variables = names_in((where, select))
        # A body that only `select` reads is parsed once `where` is true: it need not be JSON otherwise.
        selects_body = select is not None and select.reads_body
        self._parses_first = selects_body if where is None else where.reads_body
        self._parses_late = selects_body and not self._parses_first
        self._has_small_results = select is None or select.is_modest  # else results are encoded one by one

    async def start(self) -> None:
        """There is nothing to do."""

    async def apply(self, batch: Batch) -> Passed:
        """The messages that pass."""
        places, bodies, failed = self.run(batch)
        if self.select is not None:
            return Passed(batch.pick(places).with_bodies(bodies), places, failed)
        if len(places) == len(batch):
            return Passed(batch, range(len(batch)), failed)
        return Passed(batch.pick(places), places, failed)

    async def close(self) -> None:
        """There is nothing to do."""

    def run(self, batch: Batch) -> Passing:
        """Returns the places of the messages that pass, their bodies, and the errors of expressions by place."""
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
                continue
            places.append(place)
            passing.append(body)
        return places, passing, failed


class Rules(Steps):
    """A filter, and the steps `then` that follow it: what the flags --where, --select and --on-error say."""

    def __init__(
        self, rules: Filter, on_error: OnError = "fail", *, chosen: bool = False, then: Sequence[Step] = ()
    ) -> None:
        self.where, self.select = rules.where, rules.select
        first = () if rules.where is None and rules.select is None else (rules,)
        super().__init__((*first, *then), on_error, chosen=chosen)
