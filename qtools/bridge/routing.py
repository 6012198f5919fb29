"""Flags or a routes file → the destinations of messages. In: options. Out: a Planner, and the fixed destinations.

A routes file is read at the start and at each SIGHUP. One that is invalid, or whose own tests fail, is refused with the
reason.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from typing import Any

from qtools.bridge.options import BridgeOptions
from qtools.errors import ExpressionError, UsageError
from qtools.expressions.expression import Expression, compile_expression
from qtools.routing.dead_letter import Redrive
from qtools.routing.routes import Planner, Route, Routes, To, fixed_topics
from qtools.routing.routes_file import tested_routes, to_of


@dataclass(slots=True)
class Planning:
    """planner: the destinations of each message.
    fixed: topics that do not depend on the message. passing: topics for messages that cannot be routed, with --on-error
    pass.
    """

    planner: Planner
    fixed: tuple[str, ...] = ()
    passing: tuple[str, ...] = ()


def plan_for(options: BridgeOptions, forbidden: Container[str]) -> Planning:
    """The planning for `options`. forbidden: topics that must not be written to, because they are read."""
    longest = (options.to_engine or options.engine).capabilities.longest_name
    if options.redrive:
        return Planning(Redrive(frozenset(source.topic for source in options.sources), longest))
    where = compiled("--where", options.where) if options.where is not None else None
    settings: dict[str, Any] = {
        "forbidden": forbidden,
        "max_topics": options.max_topics,
        "keep_values": options.dedupe is not None and compiled("--dedupe", options.dedupe).reads_body,
    }
    if options.routes:
        file = tested_routes(options.routes, longest)
        routes = file.make(where=where, **settings)
        passing = tuple(fixed_topics(file.default))
        lacking = f"{options.routes} has no [default] with a fixed topic"
    else:
        targets = tuple(_target(text, longest) for text in options.to)
        select = compiled("--select", options.select) if options.select is not None else None
        # --where is the condition of the one route, which has no name: so an error does not name a route.
        routes = Routes([Route("", targets, when=where, select=select)], longest_topic=longest, **settings)
        passing = tuple(fixed_topics(targets))
        lacking = "--to is a template"
    planning = Planning(routes, tuple(routes.fixed_topics), passing)
    for topic in planning.fixed:
        if topic in forbidden:
            raise UsageError(
                f"{topic} is read and written to on the same brokers: every message would come round again for ever"
            )
    if options.on_error == "pass" and not passing:
        raise UsageError(f"--on-error pass needs a topic that takes what cannot be routed, and {lacking}")
    return planning


def compiled(flag: str, text: str) -> Expression:
    """Compile the value of `flag`; UsageError if it is not an expression."""
    try:
        return compile_expression(text)
    except ExpressionError as error:
        raise UsageError(f"{flag}: {error}") from error


def _target(text: str, longest: int) -> To:
    try:
        return to_of(text, longest)
    except UsageError as error:
        raise UsageError(f"--to: {error}") from error
