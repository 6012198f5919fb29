"""The filter pass: which bodies pass, as what, and what becomes of the others."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qtools.errors import EvaluationError
from qtools.expressions.expression import compile_expression
from qtools.flow.filter import Filter, Rules
from qtools.flow.json_values import encode, encode_all, parse, parse_exactly, parser_for
from qtools.flow.steps import OnError
from qtools.message import Batch, Message, Messages
from tests.formats.test_envelope import Place


def rules(where: str | None = None, select: str | None = None) -> Filter:
    return Filter(
        None if where is None else compile_expression(where),
        None if select is None else compile_expression(select),
    )


def batch(bodies: Sequence[bytes]) -> Batch:
    messages = [Message(nth, 1, b"%016d" % nth, body) for nth, body in enumerate(bodies)]
    return Batch.of(Place("events", "here"), Messages.of(messages))


BODIES = [b'{"n": 1}', b'{"n": 2}', b"no", b'{"n": "x"}', b'{"n":  3}', b"[]"]


@pytest.mark.parametrize(
    ("on_error", "places", "bodies", "failed"),
    [
        ("fail", [1, 4], [b'{"n": 2}', b'{"n":  3}'], [2, 3, 5]),
        ("skip", [1, 4], [b'{"n": 2}', b'{"n":  3}'], [2, 3, 5]),
        ("pass", [1, 2, 3, 4, 5], [b'{"n": 2}', b"no", b'{"n": "x"}', b'{"n":  3}', b"[]"], [2, 3, 5]),
    ],
)
async def test_where_lets_bodies_pass_as_they_are(
    on_error: OnError, places: list[int], bodies: list[bytes], failed: list[int]
) -> None:
    found = await Rules(rules(".n - 1 > 0"), on_error).apply(batch(BODIES))
    assert (found.places, found.batch.bodies, list(found.failed)) == (places, bodies, failed)


def test_what_is_said_of_those_without_an_answer() -> None:
    _, _, failed = rules(".n - 1 > 0", "{n: (.n - 2)}").run(batch([*BODIES[2:4], b'{"n": null}', b'{"n": 3}', b""]))
    assert [str(failed[place]) for place in failed] == [
        "it is not JSON (invalid literal, expected 'null': line 1 column 1 (char 0))",
        '--where failed: string ("x") and number (1) cannot be subtracted',
        "--where failed: null (null) and number (1) cannot be subtracted",
        "it is not JSON (the body is empty)",
    ]
    _, _, failed = rules(None, ".n.m").run(batch([b'{"n": 1}']))
    assert str(failed[0]) == '--select has no result: Cannot index number with string ("m")'


def test_select_makes_compact_json_and_nothing_passes_nothing() -> None:
    places, bodies, failed = rules(None, "select(.n > 1) | {n, twice: (.n * 2)}").run(
        batch([b'{"n": 1}', b'{"n": 2}', b'{ "n": 3.5 }'])
    )
    assert (places, bodies, failed) == ([1, 2], [b'{"n":2,"twice":4}', b'{"n":3.5,"twice":7}'], {})
    # Text is JSON too, with its quotes: what comes out of --select can always be read as JSON.
    assert rules(None, ".n").run(batch([b'{"n": "a"}', b'{"n": null}']))[1] == [b'"a"', b"null"]


@pytest.mark.parametrize("number", [2**63, 2**64 - 1, 2**64, 2**64 + 1, -(2**63) - 1, 10**30 + 1, -(10**300) - 1])
def test_no_digit_is_lost(number: int) -> None:
    body = b'{"n": %d}' % number
    assert rules(f".n == {number}" if number > 0 else f".n == -{-number}").run(batch([body]))[0] == [0]
    assert rules(f".n == {abs(number) + 1}").run(batch([body]))[0] == []
    assert rules(None, ".n").run(batch([body]))[1] == [b"%d" % number]
    assert rules(None, "{n: [.n]}").run(batch([body]))[1] == [b'{"n":[%d]}' % number]
    assert rules(None, ".n | tostring").run(batch([body]))[1] == [b'"%d"' % number]


@given(
    st.lists(st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text("0123456789.e-"), max_size=8)
)
def test_numbers_are_read_as_pythons_json_reads_them(values: list[Any]) -> None:
    body = json.dumps(values).encode()
    assert parser_for([b"{}", body])(body) == json.loads(body)
    assert parse_exactly(body) == json.loads(body)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"nope", b"\xff", b'"\\ud800"', b"NaN", b"Infinity", b"1 2", b"{'a': 1}",
        b"\xef\xbb\xbf", b'{"a": \xef\xbb\xbf1}',
        b"[" * 5000, b"[" * 5000 + b"1" * 30, b"NaN, " + b"1" * 30, "[1]".encode("utf-16"), b"1e400", b"1" * 5000,
    ],
)  # fmt: skip
def test_what_is_no_json_says_so(body: bytes) -> None:
    for read in (parse, parse_exactly, parser_for([body])):
        with pytest.raises(EvaluationError, match=r"^it is not JSON \("):
            read(body)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
    max_leaves=5,
)


@settings(max_examples=50, deadline=None)
@given(st.lists(anything, max_size=5))
def test_what_is_encoded_can_be_read_back(values: list[Any]) -> None:
    assert [json.loads(encode(value)) for value in values] == values
    together = encode_all(values)
    assert together is None or [json.loads(body) for body in together] == values


def test_encode_is_compact() -> None:
    assert encode_all([]) == []
    assert encode_all([{"a": [1, "é\n"]}, 1.5, None]) == ['{"a":[1,"é\\n"]}'.encode(), b"1.5", b"null"]
    assert encode_all([{"a": 2**64}, "x"]) is None
    assert encode({"a": 2**64}) == b'{"a":18446744073709551616}'


def test_a_result_that_is_many_times_its_message_has_no_answer() -> None:
    select = "[., .] | " * 9 + "."
    assert compile_expression(select).is_modest is False
    assert compile_expression("{id: .messageId, amount, a: [.b, .c]}").is_modest is True
    places, _, failed = rules(None, select).run(batch([b'"%s"' % (b"x" * 100_000), b'"x"']))
    assert places == [1]
    assert str(failed[0]) == "--select has no result: the text made of a value is too long"


@pytest.mark.parametrize("depth", [200, 500, 1000])
def test_a_result_that_is_nested_deeply_is_written_or_has_no_answer(depth: int) -> None:
    deep = b"[" * depth + b"]" * depth
    places, bodies, failed = rules(None, "[.]").run(batch([b"1", deep, b"2"]))
    assert (places, bodies) in (([0, 2], [b"[1]", b"[2]"]), ([0, 1, 2], [b"[1]", b"[%s]" % deep, b"[2]"]))
    assert list(failed) == ([1] if len(places) == 2 else [])


def test_json_that_is_nested_deeply_is_read_or_has_no_answer() -> None:
    deep = b"[" * 1000 + b"1" * 30 + b"]" * 1000
    places, _, failed = rules("true", None).run(batch([deep, b"1"]))
    assert sorted([*places, *failed]) == [0, 1]
    assert places[-1] == 1
