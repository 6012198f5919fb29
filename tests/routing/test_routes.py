"""Routes: each message goes where a reader of the file would say, whatever the order, the index and the errors."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qtools.errors import EvaluationError, NameInvalid, RouteFailed
from qtools.expressions.expression import NOTHING, compile_expression, truthy
from qtools.flow.json_values import encode
from qtools.names import check_topic
from qtools.routing.routes import Plan, Route, Routes, To
from qtools.routing.routes_file import to_of
from tests.routing.batches import batch


def route(when: str | None, *to: str, select: str | None = None, **some: Any) -> Route:
    return Route(
        some.pop("name", ""),
        tuple(map(to_of, to)),
        compile_expression(when) if when is not None else None,
        compile_expression(select) if select is not None else None,
        **some,
    )


def bodies(*values: Any) -> list[bytes]:
    return [json.dumps(value, separators=(",", ":")).encode() for value in values]


def sent(plan: Plan) -> list[tuple[int, str, bytes]]:
    """(place, topic, body) of every copy, in order."""
    return sorted(
        (place, topic, body)
        for (topic, group), places in zip(plan.groups, plan.places, strict=True)
        for place, body in zip(places, group, strict=True)
    )


def topics(plan: Plan) -> list[list[str]]:
    """Of a plan without failures: where each message goes."""
    count = max((place for place, _, _ in sent(plan)), default=-1) + 1
    return [[topic for at, topic, _ in sent(plan) if at == place] for place in range(count)]


BUY = {"type": "purchase", "amount": 150}
LOOK = {"type": "look"}


# ── what a route says ───────────────────────────────────────────────────────────────────────────


def test_a_message_goes_to_every_route_that_matches() -> None:
    routes = Routes([route('.type == "purchase"', "buys"), route(".amount > 100", "big"), route(None, "all")])
    plan = routes.plan(batch(bodies(BUY, LOOK)))
    assert topics(plan) == [["all", "big", "buys"], ["all"]]
    assert plan.hits == [1, 1, 2, 0]
    assert (plan.filtered, plan.failed) == (0, {})


def test_a_last_one_that_matches_ends_it() -> None:
    routes = Routes([route('.type == "purchase"', "buys", last=True), route(None, "all")])
    assert topics(routes.plan(batch(bodies(BUY, LOOK)))) == [["buys"], ["all"]]


def test_what_matched_nothing_goes_to_the_default_or_nowhere() -> None:
    only = [route('.type == "purchase"', "buys")]
    plan = Routes(only, [To("unrouted")]).plan(batch(bodies(BUY, LOOK)))
    assert topics(plan) == [["buys"], ["unrouted"]]
    assert plan.hits == [1, 1]
    assert Routes(only).plan(batch(bodies(BUY, LOOK, LOOK))).filtered == 2


def test_one_route_may_name_several_topics() -> None:
    assert topics(Routes([route(None, "a", "b")]).plan(batch([b"x"]))) == [["a", "b"]]


def test_the_same_body_goes_to_a_topic_once_but_another_body_goes_too() -> None:
    routes = Routes([route(".amount", "all"), route(None, "all"), route(None, "all", select="{type}")])
    assert [body for _, _, body in sent(routes.plan(batch(bodies(BUY))))] == [*bodies(BUY), b'{"type":"purchase"}']


def test_select_makes_a_new_body_for_its_own_route_only() -> None:
    routes = Routes([route(None, "small", select="{type}"), route(None, "whole")])
    body = b'{ "type" : "x", "more": [1, 2] }'
    assert sent(routes.plan(batch([body]))) == [(0, "small", b'{"type":"x"}'), (0, "whole", body)]


def test_integers_that_a_double_cannot_hold_stay_exact() -> None:
    routes = Routes([route(None, "t", select="{id, other: .other}")])
    body = b'{"id":9007199254740993,"other":123456789012345678901234567890}'
    assert sent(routes.plan(batch([body]))) == [(0, "t", body)]


def test_a_select_that_yields_nothing_sends_nothing_and_still_counts_as_a_match() -> None:
    routes = Routes([route(None, "t", select="select(.amount > 100)", last=True), route(None, "all")], [To("unrouted")])
    plan = routes.plan(batch(bodies(BUY, LOOK)))
    assert topics(plan) == [["t"]]
    assert plan.filtered == 1


def test_a_share_is_drawn_and_the_others_count_as_matched() -> None:
    draws = iter([0.05, 0.5, 0.0999, 0.1])
    routes = Routes([route(None, "t", sample=0.1)], [To("unrouted")], draw=lambda: next(draws))
    plan = routes.plan(batch([b"a", b"b", b"c", b"d"]))
    assert sent(plan) == [(0, "t", b"a"), (2, "t", b"c")]
    assert plan.filtered == 2


def test_where_leaves_out_before_any_route() -> None:
    routes = Routes([route(None, "t")], [To("d")], where=compile_expression(".amount"))
    plan = routes.plan(batch(bodies(BUY, LOOK)))
    assert topics(plan) == [["t"]]
    assert plan.filtered == 1


# ── bodies that are not looked at ───────────────────────────────────────────────────────────────


@pytest.mark.parametrize("made", [Routes([route(None, "a", "b")]), Routes([], [To("a"), To("b")])])
def test_a_plain_copy_touches_no_body(made: Routes) -> None:
    some = [b"\xff\x00 no JSON", b"", b"{"]
    plan = made.plan(batch(some))
    assert [topic for topic, _ in plan.groups] == ["a", "b"]
    assert all(group is some for _, group in plan.groups)
    assert sum(plan.hits) == 6


def test_a_last_one_without_a_condition_ends_a_plain_copy_too() -> None:
    plan = Routes([route(None, "a", last=True), route(None, "b")], [To("c")]).plan(batch([b"x"]))
    assert [topic for topic, _ in plan.groups] == ["a"]


def test_messages_that_are_passed_on_keep_their_bodies_and_places() -> None:
    plan = Routes([route(None, "a")]).plan(batch([b"x", b"y", b"z"]), {0, 2})
    plan.pass_on([b"x", b"y", b"z"], [0, 2], ["b", "c"])
    assert plan.groups == [("a", [b"y"]), ("b", [b"x", b"z"]), ("c", [b"x", b"z"])]
    assert plan.places == [[1], [0, 2], [0, 2]]


def test_what_is_skipped_is_in_no_part_of_the_plan() -> None:
    plan = Routes([route(None, "a")]).plan(batch([b"x", b"y", b"z"]), {1})
    assert sent(plan) == [(0, "a", b"x"), (2, "a", b"z")]
    assert (plan.filtered, plan.failed) == (0, {})
    plan = Routes([route(".x", "a")]).plan(batch([b"no", b"no", b"{}"]), {0, 1})
    assert (plan.filtered, plan.failed) == (1, {})


# ── what cannot be routed ───────────────────────────────────────────────────────────────────────


def failures(routes: Routes, *some: bytes) -> dict[int, str]:
    plan = routes.plan(batch(list(some)))
    assert all(isinstance(error, RouteFailed) for error in plan.failed.values())
    assert not {place for place, _, _ in sent(plan)} & set(plan.failed)
    return {place: str(error) for place, error in plan.failed.items()}


def test_what_is_no_json_is_named_and_the_others_go_on() -> None:
    routes = Routes([route(".a", "t")])
    told = failures(routes, b'{"a":1}', b"{no}", b'{"a":1}', b"\xff", b"")
    assert sorted(told) == [1, 3, 4]
    assert all(why.startswith("it is not JSON (") for why in told.values())


def test_a_message_that_fails_one_route_goes_to_none() -> None:
    routes = Routes([route(None, "all"), route(".a.b == 1", "t", name="deep")])
    told = failures(routes, b'{"a":{"b":1}}', b'{"a":"text"}')
    assert list(told) == [1]
    assert told[1].startswith("route 'deep': ")


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ({"type": "big events"}, "has ' '"),
        ({"type": ""}, ""),
        ({"type": "x" * 60}, "at most 64"),
        ({"type": "a/b"}, "has '/'"),
        ({"type": {"x": 1}}, "has '{'"),
        ({"type": "x\nPUB y"}, "has '\\n'"),
        ({"type": "x#ephemeral#ephemeral"}, "has a '#'"),
        ({"type": "ü"}, "has 'ü'"),
    ],
)
def test_a_template_that_gives_no_name_never_reaches_the_wire(value: Any, why: str) -> None:
    told = failures(Routes([route(None, "events.\\(.type)", name="by type")]), *bodies(value))
    if why:
        assert why in told[0]
        assert told[0].startswith("route 'by type': topic name ")
    else:
        assert told == {}  # "events." is one


def test_a_template_that_names_what_is_read_is_refused() -> None:
    routes = Routes([route(None, "\\(.to)")], forbidden={"events"})
    assert "is read by this run" in failures(routes, *bodies({"to": "other"}, {"to": "events"}))[1]


def test_templates_name_only_so_many_topics() -> None:
    routes = Routes([route(None, "t.\\(.)")], max_topics=3)
    told = failures(routes, *bodies(1, 2, 1, 3, 4, 2, 5))
    assert sorted(told) == [4, 6]
    assert "t.4" in told[4]
    assert "one more than the 3" in told[4]
    assert failures(routes, *bodies(3, 2, 1)) == {}


# ── against a reader of the file ────────────────────────────────────────────────────────────────

WORDS = ["a", "b", "c", ""]
SCALARS: list[Any] = [*WORDS, 0, 1, 1.0, -1, 2**53 + 1, float(2**53), True, False, None]
FIELDS = ["type", "kind", "n"]

scalars = st.sampled_from(SCALARS)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(st.sampled_from(FIELDS), inner, max_size=3)),
    max_leaves=6,
)
paths = st.lists(st.sampled_from(FIELDS), min_size=1, max_size=2).map(lambda names: "".join(f".{n}" for n in names))
equalities = st.builds(lambda path, value: f"{path} == {json.dumps(value)}", paths, scalars)
others = st.one_of(
    paths,
    st.builds(lambda path: f"{path} > 0", paths),
    st.builds(lambda path, word: f'({path} | startswith("{word}"))', paths, st.sampled_from(WORDS)),
    st.builds(lambda left, right: f"{left} == {right}", paths, paths),
    st.builds(lambda path, value: f"select({path} == {json.dumps(value)})", paths, scalars),
)
conditions = st.one_of(
    equalities,
    equalities,
    st.builds(lambda one, other: f"{one} and {other}", equalities, st.one_of(equalities, others)),
    st.builds(lambda one, other: f"{other} and {one}", equalities, others),
    st.builds(lambda one, other: f"{one} or {other}", equalities, equalities),
    st.builds(lambda one: f"({one} | not)", equalities),
    others,
)
targets = st.sampled_from(["a", "b", "c", "t.\\(.type)", "t.\\(.n)", "\\(.kind)"])
compiled = st.builds(
    lambda when, to, last, select, nth: route(when, *to, last=last, select=select, name=f"r{nth}"),
    st.one_of(st.none(), conditions, conditions, conditions),
    st.lists(targets, min_size=1, max_size=2, unique=True),
    st.booleans(),
    st.sampled_from([None, None, "{type}", "[.kind, .n]", "select(.type)"]),
    st.integers(0, 99),
)


def naive(routes: Sequence[Route], default: Sequence[To], body: bytes) -> set[tuple[str, bytes]] | str:
    """What a reader of the file would do, one route after the other; "failed" when a route fails."""

    def topic(to: To) -> str:
        return to.text if to.template is None else check_topic(to.template(value))

    try:
        value = json.loads(body)
        copies: set[tuple[str, bytes]] = set()
        matched = False
        for each in routes:
            if each.when is not None and not truthy(each.when(value)):
                continue
            matched = True
            made = body
            if each.select is not None:
                result = each.select(value)
                if result is NOTHING:
                    if each.last:
                        break
                    continue
                made = encode(result)
            copies |= {(topic(to), made) for to in each.to}
            if each.last:
                break
        return copies if matched else {(topic(to), body) for to in default}
    except (ValueError, EvaluationError, NameInvalid):
        return "failed"


@given(
    st.lists(compiled, max_size=12),
    st.lists(st.sampled_from([To("unrouted"), to_of("d.\\(.type)")]), max_size=1),
    st.lists(
        st.one_of(values.map(lambda value: json.dumps(value).encode()), st.sampled_from([b"no", b""])), max_size=8
    ),
)
def test_the_destinations_are_those_of_a_naive_evaluator(
    routes: list[Route], default: list[To], some: list[bytes]
) -> None:
    made = Routes(routes, default)
    if not made.reads_json:
        some = [body for body in some if naive(routes, default, body) != "failed"]
    plan = made.plan(batch(some))
    copies = sent(plan)
    assert len(copies) == len(set(copies))
    nowhere = 0
    for place, body in enumerate(some):
        wanted = naive(routes, default, body)
        if wanted == "failed":
            assert place in plan.failed
            assert not [copy for copy in copies if copy[0] == place]
            continue
        assert place not in plan.failed, plan.failed[place]
        assert {(topic, made_body) for at, topic, made_body in copies if at == place} == wanted
        nowhere += not wanted
    assert plan.filtered == nowhere
    assert sum(plan.hits) == len(copies)
    for topic, group in plan.groups:  # within a topic the order is the batch's
        at = next(places for (name, _), places in zip(plan.groups, plan.places, strict=True) if name == topic)
        assert list(at) == sorted(at)
        assert len(group) == len(at)


# ── the index ───────────────────────────────────────────────────────────────────────────────────


class Counted:
    """A condition that counts how often it is asked."""

    def __init__(self, text: str) -> None:
        self.expression = compile_expression(text)
        self.asked = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.expression, name)

    def evaluate(self, value: Any, variables: Sequence[Any]) -> Any:
        self.asked += 1
        return self.expression(value, variables)


def asked(texts: Sequence[str], *some: Any) -> list[int]:
    """How often each of the conditions is asked for these messages."""
    counted = [Counted(text) for text in texts]
    routes = Routes([Route("", (To("t"),), each) for each in counted])  # type: ignore[arg-type]
    routes.plan(batch(bodies(*some)))
    return [each.asked for each in counted]


def test_of_200_routes_that_ask_one_field_a_message_meets_the_one_that_can_match() -> None:
    texts = [f'.type == "t{nth}" and .n > {nth}' for nth in range(200)]
    messages = [{"type": f"t{nth}", "n": 0} for nth in (3, 77, 3, 199)] + [{"type": "other"}, {}, None]
    wanted = [0] * 200
    wanted[3], wanted[77], wanted[199] = 2, 1, 1
    assert asked(texts, *messages) == wanted


def test_conditions_on_several_fields_are_found_by_each() -> None:
    texts = ['.a == "x"', ".b == 1", '.a == "y"', ".c > 0", ".b == 2"]
    assert asked(texts, {"a": "x", "b": 2}) == [1, 0, 0, 1, 1]
    assert asked(texts, {"a": "z"}) == [0, 0, 0, 1, 0]


def test_true_is_not_one_and_missing_is_null() -> None:
    texts = [".a == 1", ".a == true", ".a == null", '.a == "1"', ".a == 0", ".a == false"]
    assert asked(texts, {"a": 1}) == [1, 0, 0, 0, 0, 0]
    assert asked(texts, {"a": 1.0}) == [1, 0, 0, 0, 0, 0]
    assert asked(texts, {"a": True}) == [0, 1, 0, 0, 0, 0]
    assert asked(texts, {}) == [0, 0, 1, 0, 0, 0]
    assert asked(texts, {"a": False}) == [0, 0, 0, 0, 0, 1]
    assert asked(texts, {"a": [1]}) == [0] * 6


def test_a_field_of_what_is_no_object_is_asked_for_and_fails() -> None:
    routes = Routes([route(f".a.b == {nth}", f"t{nth}", name=f"r{nth}") for nth in range(5)])
    plan = routes.plan(batch(bodies({"a": "text"}, "text", {"a": {"b": 3}}, {"a": None}, None)))
    assert sorted(plan.failed) == [0, 1]
    assert str(plan.failed[0]).startswith("route 'r0': ")
    assert topics(plan)[2] == ["t3"]


def test_an_equality_behind_something_that_may_fail_is_not_jumped_to() -> None:
    routes = Routes(
        [route('(.n | startswith("x")) and .type == "a"', "a"), route('(.n + 1) > 0 and .type == "a"', "b")]
    )
    assert list(routes.plan(batch(bodies({"type": "b", "n": 1}))).failed) == [0]


def test_what_values_a_message_may_hold_is_no_way_to_fill_the_memory() -> None:
    routes = Routes([route(f'.{field} == "{nth}"', "t") for field in FIELDS for nth in range(3)])
    generator = random.Random(7)
    for _ in range(20):
        routes.plan(batch(bodies(*({field: str(generator.random()) for field in FIELDS} for _ in range(500)))))
    assert len(routes._index._remembered) <= 1
