"""What routing and --explain ask of a condition."""

from __future__ import annotations

import pytest

from qtools.expressions.expression import NOTHING, compile_expression, truthy
from tests.expressions.events import EVENT


@pytest.mark.parametrize(
    ("text", "equalities"),
    [
        ('.type == "purchase"', ((("type",), "purchase"),)),
        ('"purchase" == .type', ((("type",), "purchase"),)),
        ('.a.b == 1 and .c > 2 and (.d == null and ."odd key" == true)',
         ((("a", "b"), 1), (("d",), None), (("odd key",), True))),
        ('select(.type == "a") | .b', ((("type",), "a"),)),
        ('.type == "a" or .type == "b"', ()),
        ('.type == "a" | not', ()),
        ('.type == "a" // true', ()),
        (".a == .b", ()),
        (".a[0] == 1", ()),
        (".a != 1", ()),
        ("if .a == 1 then true else false end", ()),
        ("1", ()),
    ],
)  # fmt: skip
def test_what_must_hold(text: str, equalities: tuple[object, ...]) -> None:
    assert compile_expression(text).equalities == equalities


def test_the_parts_of_a_condition_have_values_of_their_own() -> None:
    text = '.type == "purchase" and (.amount > 100 or (.user.name | test("^B"))) and (.off | not)'
    parts = compile_expression(text).parts
    assert [(part, check(EVENT)) for part, check in parts] == [
        ('.type == "purchase"', True),
        (".amount > 100", True),
        ('.user.name | test("^B")', False),
        (".off", False),
    ]
    assert [part for part, _ in compile_expression(".a.b").parts] == [".a.b"]
    texts = [
        ".a?",
        "(.a | .b)",
        '."x y"[1:]?',
        "-(.a)",
        '"a\\(.b)"',
        "{a: 1}",
        "[.a, 2]",
        "if .a then 1 end",
        "any(.x)",
    ]
    assert [part for part, _ in compile_expression(" and  ".join(texts)).parts] == [
        text.strip("()") for text in texts[:3]
    ] + texts[3:]


def test_truth_is_jqs() -> None:
    assert [truthy(value) for value in (None, False, NOTHING)] == [False] * 3
    assert [truthy(value) for value in (True, 0, "", [], {}, 0.0)] == [True] * 6
