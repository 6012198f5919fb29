"""Keys of messages: two values that JSON tells apart have two keys, to the last digit."""

from __future__ import annotations

import pytest

from qtools.errors import EvaluationError
from qtools.expressions.expression import compile_expression
from qtools.flow.dedupe_key import make_key
from qtools.flow.json_values import parser_for


def key(body: bytes, expression: str = ".id") -> bytes | None:
    return make_key(compile_expression(expression)(parser_for([body])(body)), body)


def keys(*numbers: str, expression: str = ".id") -> list[bytes | None]:
    return [key(b'{"id":%s}' % number.encode(), expression) for number in numbers]


# Also what the bridge's tests have: each differs from its neighbours in its last digit.
DIFFERENT = [
    *(str(2**power + more) for power in (53, 63, 64, 100, 1000) for more in (-1, 0, 1)),
    *(str(-(2**power) - more) for power in (53, 63, 64, 100, 1000) for more in (-1, 0, 1)),
    "0.12345678901234567890", "0.12345678901234567891", "1.00000000000000000001", "1.00000000000000000002", "1",
    "18446744073709551617.5", "18446744073709551618.5", "12345678901234567e-3", "12345678901234568e-3",
    "1.2345678901234567891E+300", "1.2345678901234567892E+300",
]  # fmt: skip


@pytest.mark.parametrize("expression", [".id", "[.id]", "{id, a: 1}", '"\\(.id)"', ".id | tostring"])
def test_values_that_differ_have_different_keys(expression: str) -> None:
    found = keys(*DIFFERENT, expression=expression)
    assert None not in found
    assert len(set(found)) == len(DIFFERENT)


@pytest.mark.parametrize("numbers", [("1", "1"), ("0.1", "0.1", "1e-1"), ("2.50", "2.5"), ("1.5e3", "1.50E+3"),
                                     ("0.123456789012345678", "0.123456789012345678")])  # fmt: skip
def test_values_that_are_equal_have_one_key(numbers: tuple[str, ...]) -> None:
    assert len(set(keys(*numbers))) == 1


def test_a_long_number_beside_the_key_does_not_change_it() -> None:
    assert key(b'{"id":"a","at":1.23456789012345678901}') == key(b'{"id":"a","at":1.23456789012345678902}') == b'"a"'
    assert key(b'{"id":0.5,"at":1.23456789012345678901}') == key(b'{"id":0.5}') == b"0.5"


def test_what_has_no_key() -> None:
    assert keys("null") == [None]
    assert key(b"{}") is None
    assert key(b'{"id":1}', "select(.id > 1)") is None
    with pytest.raises(EvaluationError):
        key(b"[1]")
