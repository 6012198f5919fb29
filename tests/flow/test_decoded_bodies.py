"""Bodies that were decoded: every part that reads a body sees its value, and passes its bytes on."""

from __future__ import annotations

import pytest

from qtools.attributes import TOMBSTONE, DecodedBody, UndecodableBody
from qtools.errors import EvaluationError
from qtools.expressions.expression import NO_VARIABLES, compile_expression
from qtools.flow.dedupe_key import make_key
from qtools.flow.filter import Filter, Rules
from qtools.flow.json_values import parse, parse_exactly, parser_for
from qtools.flow.keying import Keying
from qtools.routing.routes import Route, Routes, To
from tests.routing.batches import batch

BINARY = b"\x00\x00\x00\x00\x07\x02a"
GOOD = DecodedBody.of(BINARY, {"id": 2**63, "type": "view"})
DIGIT = DecodedBody.of(b"5", {"type": "a body that is JSON by chance"})
BAD = UndecodableBody.of(b"7", "it ends too early")
PLAIN = b'{"id": 1, "type": "plain"}'


@pytest.mark.parametrize("order", [[GOOD, DIGIT, BAD, PLAIN], [PLAIN, BAD, DIGIT, GOOD], [BAD, DIGIT, PLAIN, GOOD]])
def test_a_body_is_read_as_its_value_wherever_it_stands_in_a_batch(order: list[bytes]) -> None:
    loads = parser_for(order)
    for body in order:
        if body is BAD:
            for read in (loads, parse, parse_exactly):
                with pytest.raises(EvaluationError, match=r"^it ends too early$"):
                    read(body)
        elif body is PLAIN:
            assert loads(body) == {"id": 1, "type": "plain"}
        else:
            assert isinstance(body, DecodedBody)
            assert loads(body) is parse(body) is parse_exactly(body) is body.value


def test_many_digits_in_the_bytes_do_not_matter() -> None:
    body = DecodedBody.of(b"12345678901234567890123", [1])
    assert parser_for([PLAIN, body])(body) == [1]


def test_the_value_of_a_tombstone_is_null() -> None:
    for loads in (parser_for([GOOD, TOMBSTONE]), parser_for([TOMBSTONE]), parse, parse_exactly):
        assert loads(TOMBSTONE) is None


async def test_a_filter_passes_the_bytes_and_selects_from_the_value() -> None:
    where = compile_expression('.type == "view"')
    places, bodies, failed = Filter(where, None).run(batch([GOOD, DIGIT, BAD]))
    assert (places, bodies) == ([0], [BINARY])
    assert str(failed[2]) == "it ends too early"
    passed = await Rules(Filter(None, compile_expression(".id")), "pass").apply(batch([GOOD, BAD]))
    assert passed.batch.bodies == [b"9223372036854775808", b"7"]


def test_keys_and_routes_and_dedupe_keys_see_the_value() -> None:
    keying = Keying(compile_expression(".id"), (("t", compile_expression(".type")),))
    found, failed = keying.evaluate([GOOD, BAD], [NO_VARIABLES] * 2)
    assert found.keys == [b"9223372036854775808", None]
    assert found.headers is not None
    assert found.headers[0] == [("t", b"view")]
    assert str(failed[1]) == "--key: it ends too early"
    routes = Routes([Route("", (To("views"),), when=compile_expression('.type == "view"'))])
    plan = routes.plan(batch([GOOD, DIGIT, BAD]))
    assert plan.groups == [("views", [BINARY])]
    assert str(plan.failed[2]) == "it ends too early"
    assert make_key(1.1, DecodedBody.of(b"1.100000000000000001", 1.1)) == b"1.1"
