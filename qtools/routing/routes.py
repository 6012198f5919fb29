"""Routes messages to topics. In: a batch. Out: a plan with the messages for each topic, and those that cannot go.

    route 1 ─▶ when? ─▶ sample? ─▶ select ─▶ to …      `last`: the routes behind it are not tried
    route 2 ─▶ …                                       if no `when` was true: the default, if there is one

A body is parsed once, and only if a route needs its value; so with the variables of a message ($key …). Conditions are
evaluated in the order of the routes. A message on which one of them fails is not routed at all: otherwise some of its
copies would be sent again at the next attempt. Routes that begin by comparing a field (`.type == "purchase" and …`) are
found by an index (route_index.py), so only those that can match are evaluated. This module uses no file and no clock,
and chance only for routes that sample.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from random import random
from typing import Any, Protocol

from qtools.attributes import TOMBSTONE, Attributes
from qtools.errors import EvaluationError, NameInvalid, QtoolsError, RouteFailed
from qtools.expressions.expression import NO_VARIABLES, NOTHING, Expression
from qtools.flow.json_values import encode, encode_all, parser_for
from qtools.flow.variables import Row, names_in, rows_of
from qtools.message import Batch
from qtools.names import MAX_NAME_LENGTH, check_topic
from qtools.routing.route_index import RouteIndex

MAX_TOPICS = 1000  # different topics that templates may name in one run: a field may have any number of values

# Topic, body, number of the route, and whether the body is a JSON value that has to be encoded.
Ship = tuple[str, Any, int, bool]


@dataclass(slots=True)
class To:
    """A destination of a route. text: as it was written. template: the expression for the topic, if it is not fixed."""

    text: str
    template: Expression | None = None


def fixed_topics(targets: Iterable[To]) -> list[str]:
    """The topics of `targets` that do not depend on a message."""
    return [to.text for to in targets if to.template is None]


@dataclass(slots=True)
class Route:
    """One route. sample: the share (0..1) of matching messages that is sent; the others count as matched."""

    name: str
    to: tuple[To, ...]
    when: Expression | None = None
    select: Expression | None = None
    sample: float = 1.0
    last: bool = False


@dataclass(slots=True)
class Plan:
    """The plan for a batch. groups: (topic, bodies) each. places: for each group, the places of its messages in the
    batch. attributes: keys and headers of the messages of the batch, instead of their own; None if they keep these."""

    groups: list[tuple[str, Sequence[bytes]]] = field(default_factory=list)
    places: list[Sequence[int]] = field(default_factory=list)
    filtered: int = 0  # messages that are sent to no topic
    failed: dict[int, QtoolsError] = field(default_factory=dict)
    hits: list[int] = field(default_factory=list)  # copies sent by each route; the last is the default
    values: list[Any] = field(default_factory=list)  # the parsed bodies, with keep_values
    attributes: Attributes | None = None

    def pass_on(self, bodies: Sequence[bytes], places: Sequence[int], topics: Iterable[str]) -> None:
        """Add the messages at `places` to the groups, unchanged, for all of `topics`. bodies: those of the batch."""
        passed = [bodies[place] for place in places]
        for topic in topics:
            self.groups.append((topic, passed))
            self.places.append(places)


class Planner(Protocol):
    """Plans where each message goes."""

    names: list[str]  # of the routes that `Plan.hits` counts

    def plan(self, batch: Batch, skip: Container[int] = ()) -> Plan:
        """The plan for all messages of `batch` but those at the places `skip`."""


class Routes:
    """Plans by `routes` in their order, and by `default` for messages that match none.

    where: only messages for which it is true are routed; the others count as filtered.
    forbidden: topics that templates may not name, as they are read: messages would be routed in an endless loop.
    max_topics: how many different topics templates may name. longest_topic: the most characters of one.
    keep_values: whether the plan has the parsed bodies.
    draw: returns a random number, 0..1, for routes that sample; default: random.random.
    """

    def __init__(
        self,
        routes: Sequence[Route],
        default: Sequence[To] = (),
        *,
        where: Expression | None = None,
        forbidden: Container[str] = (),
        max_topics: int = MAX_TOPICS,
        longest_topic: int = MAX_NAME_LENGTH,
        keep_values: bool = False,
        draw: Callable[[], float] | None = None,
    ) -> None:
        self.routes = list(routes)
        self.default = tuple(default)
        self.where = where
        self.names = [*(route.name for route in self.routes), "default"]
        self._forbidden = forbidden
        self._max_topics = max_topics
        self._longest_topic = longest_topic
        self._keep_values = keep_values
        self._rendered: set[str] = set()  # topics that templates have named
        self._draw = draw or random
        self._index = RouteIndex([route.when for route in self.routes])
        # The functions of each route as plain tuples, for the inner loop.
        self._tests = [
            (route.when and route.when.evaluate, route.select and route.select.evaluate, route) for route in self.routes
        ]
        expressions = [
            each
            for each in (
                where,
                *(expression for route in self.routes for expression in (route.when, route.select)),
                *(to.template for to in self.targets()),
            )
            if each is not None
        ]
        self.variables = names_in(expressions)
        self.reads_json = keep_values or any(each.reads_body for each in expressions)
        self._is_constant = not keep_values and not expressions and all(route.sample >= 1.0 for route in self.routes)

    def targets(self) -> Iterator[To]:
        """All destinations of the routes and of the default."""
        for route in self.routes:
            yield from route.to
        yield from self.default

    @property
    def fixed_topics(self) -> list[str]:
        """The topics that do not depend on a message."""
        return list(dict.fromkeys(fixed_topics(self.targets())))

    # ── a batch ──

    def plan(self, batch: Batch, skip: Container[int] = ()) -> Plan:
        """The plan for all messages of `batch` but those at the places `skip`."""
        if self._is_constant and not skip:
            return self._all_alike(batch.bodies)
        return self.plan_bodies(batch.bodies, rows_of(batch, self.variables), skip)

    def plan_bodies(self, bodies: Sequence[bytes], rows: Sequence[Row], skip: Container[int] = ()) -> Plan:
        """As `plan`, for messages that are in no batch. rows: the variables of each message."""
        made = self._plan(bodies, rows, skip, encode_late=True) or self._plan(bodies, rows, skip, encode_late=False)
        return made or Plan()

    def _plan(
        self, bodies: Sequence[bytes], rows: Sequence[Row], skip: Container[int], encode_late: bool
    ) -> Plan | None:
        """The plan. encode_late: encode all new bodies at once; returns None if that is not possible."""
        plan = Plan(hits=[0] * len(self.names), values=[None] * len(bodies) if self._keep_values else [])
        groups: dict[str, tuple[list[Any], list[int]]] = {}
        values: list[Any] = []  # new bodies that are not encoded yet
        homes: list[tuple[list[Any], int]] = []  # for each of them, the list and the index where it belongs
        hits, failed, ships_of = plan.hits, plan.failed, self._ships
        loads = parser_for(bodies) if self.reads_json else None
        value: Any = None
        for place, body, row in zip(count(), bodies, rows, strict=False):
            if skip and place in skip:
                continue
            try:
                if loads is not None:
                    value = loads(body)
                if self._keep_values:
                    plan.values[place] = value
                ships = ships_of(value, row, body, encode_late)
            except EvaluationError as error:
                failed[place] = RouteFailed(str(error))
                continue
            except RouteFailed as error:
                failed[place] = error
                continue
            if not ships:
                plan.filtered += 1
                continue
            for topic, made, number, is_value in ships:
                hits[number] += 1
                group = groups.get(topic)
                if group is None:
                    group = groups[topic] = ([], [])
                if is_value:
                    homes.append((group[0], len(group[0])))
                    values.append(made)
                group[0].append(made)
                group[1].append(place)
        encoded = encode_all(values)
        if encoded is None:
            return None
        for (home, at), made in zip(homes, encoded, strict=True):
            home[at] = made
        for topic, (made_bodies, places) in groups.items():
            plan.groups.append((topic, made_bodies))
            plan.places.append(places)
        return plan

    def _all_alike(self, bodies: Sequence[bytes]) -> Plan:
        """The plan if no route depends on the message: no body is parsed."""
        plan = Plan(hits=[0] * len(self.names))
        for topic, _, number, _ in self._ships(None, NO_VARIABLES, b"", False):
            plan.groups.append((topic, bodies))
            plan.places.append(range(len(bodies)))
            plan.hits[number] += len(bodies)
        plan.filtered = 0 if plan.groups else len(bodies)
        return plan

    # ── a message ──

    def _ships(self, value: Any, row: Row, body: bytes, encode_late: bool) -> list[Ship]:
        """The copies that are sent of one message; RouteFailed if an expression fails or names no valid topic."""
        ships: list[Ship] = []
        matched = False
        name = "--where"
        try:
            where = self.where
            if where is not None:
                result = where(value, row)
                if result is None or result is False or result is NOTHING:
                    return ships
            tests = self._tests
            for number in self._index.candidates(value):
                test, select, route = tests[number]
                name = route.name
                if test is not None:
                    result = test(value, row)
                    if result is None or result is False or result is NOTHING:
                        continue
                matched = True
                if route.sample >= 1.0 or self._draw() < route.sample:
                    if select is None or ((made := select(value, row)) is None and body is TOMBSTONE):
                        ships += [(self._topic(to, value, row), body, number, False) for to in route.to]
                    elif made is not NOTHING:
                        made = made if encode_late else encode(made)
                        ships += [(self._topic(to, value, row), made, number, encode_late) for to in route.to]
                if route.last:
                    break
            if not matched and self.default:
                name = "default"
                ships += [(self._topic(to, value, row), body, len(tests), False) for to in self.default]
        except (EvaluationError, NameInvalid) as error:
            raise RouteFailed(str(error), name) from error
        return ships if len(ships) < 2 else _once(ships)

    def _topic(self, to: To, value: Any, row: Row) -> str:
        """The topic of `to` for a message; NameInvalid or EvaluationError if a template yields no allowed topic."""
        if to.template is None:
            return to.text
        name = to.template(value, row)
        if name in self._rendered:
            return str(name)
        check_topic(name, self._longest_topic)
        if name in self._forbidden:
            raise NameInvalid("topic", name, "is read by this run: the message would be routed in an endless loop")
        if len(self._rendered) >= self._max_topics:
            raise NameInvalid("topic", name, f"is one more than the {self._max_topics} that templates may name")
        self._rendered.add(name)
        return str(name)

    def __repr__(self) -> str:
        return f"<Routes {', '.join(self.names)}>"


def _once(ships: list[Ship]) -> list[Ship]:
    """Remove copies with the same topic and the same body."""
    if len({ship[0] for ship in ships}) == len(ships):
        return ships
    seen: dict[tuple[str, bytes], Ship] = {}
    for topic, made, number, is_value in ships:
        body = encode(made) if is_value else made
        seen.setdefault((topic, body), (topic, body, number, False))
    return list(seen.values())
