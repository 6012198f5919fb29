"""A message and the routes → why it goes where it goes. In: a body, variables. Out: lines for people.

{"type":"purchase","amount":150}
  route 'big purchases': matches → purchases.big
    .type == "purchase"    true
    .amount > 100          true
  route 'all': not tried, as one before it is the last
  goes to purchases.big
"""

from __future__ import annotations

from typing import Any

from qtools.attributes import DecodedBody
from qtools.errors import EvaluationError, RouteFailed
from qtools.expressions.expression import NO_VARIABLES, NOTHING, Expression, truthy
from qtools.expressions.values import dump
from qtools.flow.json_values import parse_exactly
from qtools.flow.variables import Row
from qtools.routing.routes import Routes

WIDTH = 40  # of the conditions' column


def explain(routes: Routes, body: bytes, row: Row = NO_VARIABLES) -> list[str]:
    """Every route, whether it matches, and the value of each part of its condition. row: the message's variables."""
    lines = [shown(body)]
    try:
        value = parse_exactly(body) if routes.reads_json else None
    except EvaluationError as error:
        return [*lines, f"  cannot be routed: {error}"]
    if routes.where is not None:
        lines += [f"  --where: {'lets it pass' if _matches(routes.where, value, row) else 'leaves it out'}"]
        lines += _parts(routes.where, value, row)
    tried = True
    for route in routes.routes:
        name = f"route {route.name!r}" if route.name else "--where" if route.when else "--to"
        if not tried:
            lines.append(f"  {name}: not tried, as one before it is the last")
            continue
        matches = route.when is None or _matches(route.when, value, row)
        to = ", ".join(each.text for each in route.to)
        sampled = f" (a share of {route.sample:g} of them)" if route.sample < 1 else ""
        lines.append(f"  {name}: matches → {to}{sampled}" if matches else f"  {name}: does not match")
        if route.when is not None:
            lines += _parts(route.when, value, row)
        tried = not (matches and route.last)
    return [*lines, f"  {outcome(routes, body, row)}"]


def shown(body: bytes) -> str:
    """A body as text: its JSON, if it was decoded."""
    return dump(body.value) if isinstance(body, DecodedBody) else body.decode("utf-8", "backslashreplace")


def outcome(routes: Routes, body: bytes, row: Row = NO_VARIABLES) -> str:
    """Where a message goes, in a few words."""
    plan = routes.plan_bodies([body], [row])
    if plan.failed:
        error = plan.failed[0]
        assert isinstance(error, RouteFailed)
        return f"cannot be routed: {error}"
    return f"goes to {', '.join(topic for topic, _ in plan.groups)}" if plan.groups else "goes nowhere"


def _matches(condition: Expression, value: Any, row: Row) -> bool:
    try:
        return truthy(condition(value, row))
    except EvaluationError:
        return False


def _parts(condition: Expression, value: Any, row: Row) -> list[str]:
    """Each part of a condition with its value."""
    lines = []
    for text, evaluate in condition.parts:
        try:
            result = evaluate(value, row)
            shown = "nothing" if result is NOTHING else dump(result)
        except EvaluationError as error:
            shown = f"fails: {error}"
        lines.append(f"    {text:<{WIDTH}}  {shown}")
    return lines
