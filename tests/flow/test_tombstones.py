"""Messages without a body, and expressions that do not read it, in each part that evaluates expressions."""

from __future__ import annotations

import pytest

from qtools.attributes import TOMBSTONE
from qtools.errors import EvaluationError
from qtools.expressions.expression import NO_VARIABLES, compile_expression
from qtools.flow.dedupe_key import make_key
from qtools.flow.filter import Filter, Rules
from qtools.flow.json_values import parse, parse_exactly, parser_for
from qtools.flow.keying import Keying
from qtools.routing.routes import Route, Routes, To
from qtools.schemas.contract import ValueMisfit
from qtools.schemas.encoding import BodyEncoder, EncodingOptions
from tests.routing.batches import batch

EMPTY = r"^it is not JSON \(the body is empty\)$"
BODIES = [b'{"a":1}', TOMBSTONE, b"null", b""]
PLAIN = [b"plain text", b"\xff\x00", TOMBSTONE, b""]


def shown(bodies: list[bytes]) -> list[bytes | None]:
    return [None if body is TOMBSTONE else body for body in bodies]


@pytest.mark.parametrize("order", [[b"", TOMBSTONE], [TOMBSTONE, b""]])
def test_an_empty_body_is_no_json_and_a_tombstone_is_null(order: list[bytes]) -> None:
    for loads in (parser_for(order), parser_for([*order, b"1" * 30]), parse, parse_exactly):
        with pytest.raises(EvaluationError, match=EMPTY):
            loads(b"")
        assert loads(TOMBSTONE) is None


def test_where_sees_null() -> None:
    where = Filter(compile_expression(". == null"), None)
    places, bodies, failed = where.run(batch(BODIES))
    assert (places, shown(bodies)) == ([1, 2], [None, b"null"])
    assert {place: str(error) for place, error in failed.items()} == {3: "it is not JSON (the body is empty)"}
    assert Filter(compile_expression(".a"), None).run(batch(BODIES))[0] == [0]


@pytest.mark.parametrize(
    ("select", "result"),
    [
        (".", [b'{"a":1}', None, b"null"]),
        (".a", [b"1", None, b"null"]),
        ("{a}", [b'{"a":1}', b'{"a":null}', b'{"a":null}']),
        ('.a // "none"', [b"1", b'"none"', b'"none"']),
        ("select(. != null)", [b'{"a":1}']),
        ("[.] | .[0]", [b'{"a":1}', None, b"null"]),
        (". + .", [b'{"a":1}', None, b"null"]),
        ('"x" * 1000 | if . then null else 1 end', [b"null", None, b"null", b"null"]),  # encoded one by one
    ],
)
def test_select_keeps_a_tombstone_only_where_its_result_is_null(select: str, result: list[bytes | None]) -> None:
    _, bodies, failed = Filter(None, compile_expression(select)).run(batch(BODIES))
    assert shown(bodies) == result
    assert list(failed) == ([] if len(result) == 4 else [3])


def test_routes_see_null_and_keep_a_tombstone() -> None:
    routes = Routes(
        [
            Route("gone", (To("gone"),), when=compile_expression(". == null"), select=compile_expression(".")),
            Route("all", (To("all.\\(.a)", compile_expression('"all.\\(.a)"')),), select=compile_expression(".a")),
        ]
    )
    plan = routes.plan(batch([*BODIES, b'{"a":18446744073709551617}']))  # a number that is encoded one by one
    assert {topic: shown(list(bodies)) for topic, bodies in plan.groups} == {
        "gone": [None, b"null"],
        "all.1": [b"1"],
        "all.null": [None, b"null"],
        "all.18446744073709551617": [b"18446744073709551617"],
    }
    assert {place: str(error) for place, error in plan.failed.items()} == {3: "it is not JSON (the body is empty)"}


def test_keys_and_headers_and_dedupe_keys_of_a_tombstone() -> None:
    keying = Keying(compile_expression(".a"), (("kind", compile_expression("type")),))
    found, failed = keying.evaluate(BODIES, [NO_VARIABLES] * 4)
    assert found.keys == [b"1", None, None, None]
    assert found.headers == [[("kind", b"object")], [("kind", b"null")], [("kind", b"null")], []]
    assert {place: str(error) for place, error in failed.items()} == {3: "--key: it is not JSON (the body is empty)"}
    assert make_key(parse(TOMBSTONE), TOMBSTONE) is None


class Suffix(BodyEncoder):
    """An encoder that takes text only."""

    def encode(self, value: object) -> bytes:
        if not isinstance(value, str):
            raise ValueMisfit("it is no text")
        return f"{value}!".encode()


@pytest.mark.parametrize("select", [None, "."])
async def test_a_tombstone_is_not_encoded(select: str | None) -> None:
    rules = Filter(None, None if select is None else compile_expression(select))
    encoder = Suffix(EncodingOptions("AVRO", None, "", "file"))
    passed = await Rules(rules, "skip", then=(encoder,)).apply(batch([b'"a"', TOMBSTONE, b"null", b""]))
    assert (list(passed.places), shown(passed.batch.bodies)) == ([0, 1], [b"a!", None])
    failed = passed.failed
    assert list(failed) in ([2, 3], [3, 2])


# ── expressions that do not read the body ──


def test_a_constant_has_a_result_for_every_body() -> None:
    keying = Keying(compile_expression('"k"'), (("src", compile_expression('"x"')), ("n", compile_expression("1 + 1"))))
    found, failed = keying.evaluate(PLAIN, [NO_VARIABLES] * 4)
    assert (found.keys, failed) == ([b"k"] * 4, {})
    assert found.headers == [[("src", b"x"), ("n", b"2")]] * 4
    places, bodies, failed_by_filter = Filter(compile_expression("true"), compile_expression('"new"')).run(batch(PLAIN))
    assert (places, bodies, failed_by_filter) == ([0, 1, 2, 3], [b'"new"'] * 4, {})
    routes = Routes([Route("", (To("t", compile_expression('"events.\\("a")"')),), when=compile_expression("1 < 2"))])
    plan = routes.plan(batch(PLAIN))
    assert [(topic, shown(list(bodies))) for topic, bodies in plan.groups] == [("events.a", shown(PLAIN))]


@pytest.mark.parametrize(
    ("key", "headers", "blamed"),
    [
        ('"k"', [("src", '"x"'), ("user", ".user"), ("n", ".n")], "--header user: it is not JSON"),
        (None, [("user", ".user")], "--header user: it is not JSON"),
        (".key", [("user", ".user")], "--key: it is not JSON"),
        ("1 + $topic", [("user", '"x"')], None),
        ('"k"', [("user", '1 + "x"')], "--header user: "),
    ],
)
def test_an_error_names_the_flag_that_needs_the_body(
    key: str | None, headers: list[tuple[str, str]], blamed: str | None
) -> None:
    keying = Keying(
        None if key is None else compile_expression(key),
        tuple((name, compile_expression(text)) for name, text in headers),
    )
    _, failed = keying.evaluate([b"plain text"], [NO_VARIABLES])
    assert [str(error).startswith(str(blamed)) for error in failed.values()] == ([] if blamed is None else [True])
