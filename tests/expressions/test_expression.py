"""The filter language, construct by construct, and what it says to whoever writes something else."""

from __future__ import annotations

import contextlib
import json
import re
import sys
import time
import timeit
from collections.abc import Callable
from random import Random
from types import FunctionType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qtools.errors import EvaluationError, ExpressionError, UsageError
from qtools.expressions import functions, values
from qtools.expressions.expression import NOTHING, compile_expression, truthy
from tests.expressions.jq_pairs import Pairs

EVENT = {
    "type": "purchase", "amount": 150, "user": {"name": "Ada", "tags": ["new", "vip"]}, "odd key": 1, "off": False,
    "items": [{"id": 1, "price": 5}, {"id": 2, "price": 20.5}], "messageId": "m-1", "none": None,
}  # fmt: skip


def run(text: str, value: Any = EVENT) -> Any:
    return compile_expression(text)(value)


CONSTRUCTS: list[tuple[str, Any]] = [
    # paths
    (".", EVENT),
    (".type", "purchase"),
    (".user.name", "Ada"),
    ('."odd key"', 1),
    ('.["odd key"]', 1),
    ('.user["tags"]', ["new", "vip"]),
    ('.user."name"', "Ada"),
    (".items[0].id", 1),
    (".items[-1].id", 2),
    (".items[7]", None),
    (".missing.and.more", None),
    (".[.messageId]", None),
    ('{"purchase": "shop"}[.type]', "shop"),
    (".user.tags[1:]", ["vip"]),
    (".type[:4]", "purc"),
    (".type.name?", NOTHING),
    ('.type.name? // "none"', "none"),
    # literals
    ('"a\\n\\u00e9\\ud83d\\ude00\\/"', "a\né😀/"),
    ("1.5", 1.5),
    (".5", 0.5),
    ("1e3", 1000.0),
    ("[1, null, true]", [1, None, True]),
    ("# a comment\n1 # and one more", 1),
    # comparison and order
    ('.type == "purchase"', True),
    (".amount != 150.0", False),
    ("1 == true", False),
    ("[1] == [true]", False),
    ('{"a": 1} == {"a": 1.0}', True),
    ("null < false", True),
    ("false < true", True),
    ("true < 0", True),
    ('5 < "1"', True),
    ('"z" < []', True),
    ("[9] < {}", True),
    ('"Z" < "a"', True),
    ('"\\uffff" < "\\ud83d\\ude00"', True),
    ("[1, 2] < [1, 3]", True),
    ("[1] < [1, 0]", True),
    ('{"a": 2} < {"b": 1}', True),
    (".missing < 0", True),
    # logic
    (".amount > 100 and .off", False),
    ('.off or .none or "x"', True),
    (".off | not", True),
    ("0 and \"\"", True),
    (".none // .off // 3", 3),
    (".none // .off", False),
    # arithmetic
    (".amount + 1", 151),
    ('"a" + "b"', "ab"),
    ("null + 1", 1),
    ("[1] + [2]", [1, 2]),
    ('{"a": 1, "b": 1} + {"b": 2}', {"a": 1, "b": 2}),
    ("[1, 2, 1] - [1]", [2]),
    ("2 * 3 - 4 / 2", 4),
    ("7 / 2", 3.5),
    ('"ab" * 2', "abab"),
    ('"ab" * -1', None),
    ('{"a": {"b": 1}} * {"a": {"c": 2}}', {"a": {"b": 1, "c": 2}}),
    ('"a,b" / ","', ["a", "b"]),
    ("-7 % 3", -1),
    ("7 % -3", 1),
    ("5.9 % 2.9", 1),
    ("-.amount", -150),
    ("1 - -1", 2),
    # construction
    ("{id: .messageId, amount}", {"id": "m-1", "amount": 150}),
    ('{(.type): 1, "a b": 2, "x\\(.amount)": 3, if: 4, "odd key"}',
     {"purchase": 1, "a b": 2, "x150": 3, "if": 4, "odd key": 1}),
    ("{a: 1 + 2, b: .amount | tostring}", {"a": 3, "b": "150"}),
    ("[.amount, select(.off), .type]", [150, "purchase"]),
    ("{a: select(.off)}", NOTHING),
    # interpolation
    ('"events.\\(.type)"', "events.purchase"),
    ('"\\(.amount)-\\(.user.tags)-\\(.none)"', '150-["new","vip"]-null'),
    ('"a\\("b\\("c")")"', "abc"),
    # pipes and functions
    (".user | .name", "Ada"),
    ('select(.type == "purchase") | .amount', 150),
    ("select(.off)", NOTHING),
    ("empty", NOTHING),
    ('.type | test("^PUR"; "i")', True),
    ('.type | test("a$")', False),
    ('.type | startswith("pur")', True),
    ('.type | endswith("chase")', True),
    ('.user.tags | contains(["vi"])', True),
    ('.user | contains({name: "A"})', True),
    ('"foobar" | contains("bar")', True),
    ('"bar" | inside("foobar")', True),
    ('has("none")', True),
    ('has("missing")', False),
    (".items | has(2)", False),
    ('.type | in({"purchase": 1})', True),
    (".type | length", 8),
    (".items | length", 2),
    (".none | length", 0),
    ("-5 | length", 5),
    (".items | type", "array"),
    ('"ÀB" | ascii_downcase', "Àb"),
    ('"àb" | ascii_upcase', "àB"),
    (".items[1] | tostring", '{"id":2,"price":20.5}'),
    ('"0x10" | tostring', "0x10"),
    ('"12.50" | tonumber', 12.5),
    ('"a, b" | split(", ")', ["a", "b"]),
    ('[1, null, "a", true] | join("-")', "1--a-true"),
    (".user.tags | any", True),
    ("[null, 1] | all", False),
    (".items | any(.price > 20)", True),
    (".items | all(.price > 5)", False),
    ("[] | all", True),
    ("[1, 2] | any(empty)", False),
    ("{b: 1, a: 2} | keys", ["a", "b"]),
    ("if .amount > 100 then \"big\" elif .amount > 10 then \"some\" else \"few\" end", "big"),
    ("if .off then 1 end | .type", "purchase"),
    # what binds how tightly
    ("1 + 2 * 3 == 7 and true or false", True),
    ("false and false or true", True),
    ("1 // 2 | . + 1", 2),
    (".none // 1 + 1", 2),
]  # fmt: skip


@pytest.mark.parametrize(("text", "result"), CONSTRUCTS)
def test_each_construct(text: str, result: Any) -> None:
    found = run(text)
    assert json.dumps(found, default=repr) == json.dumps(result, default=repr)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (".type.name", 'Cannot index string with string ("name")'),
        (".user[0]", "Cannot index object with number (0)"),
        ('1 + "a"', 'number (1) and string ("a") cannot be added'),
        (".amount / 0", "number (150) and number (0) cannot be divided because the divisor is zero"),
        ('.items | startswith("a")', "startswith() requires string inputs"),
        (".off | length", "boolean (false) has no length"),
        ('"x" | tonumber', 'string ("x") cannot be parsed as a number'),
        ('.amount | test("1")', "number (150) cannot be matched, as it is not a string"),
        (".type | any", 'Cannot iterate over string ("purchase")'),
        ("{(.amount): 1}", "Cannot use number (150) as object key"),
        ("-.type", 'string ("purchase") cannot be negated'),
        (".user - 1", 'object ({"name":"Ada","tags":["ne...}) and number (1) cannot be subtracted'),
    ],
)
def test_where_jq_fails_it_fails_in_jqs_words(text: str, sentence: str) -> None:
    with pytest.raises(EvaluationError) as caught:
        run(text)
    assert str(caught.value) == sentence


def test_integers_stay_exact_where_jq_rounds() -> None:
    number = 2**64 + 1
    assert run(".n", {"n": number}) == number
    assert run(f".n == {number}", {"n": number}) is True
    assert run(f".n == {number - 1}", {"n": number}) is False
    assert run(f".n > {number - 1}", {"n": number}) is True
    assert run(".n + 1", {"n": number}) == number + 1
    assert run("(.n * .n) / .n", {"n": number}) == number
    assert run(".n % 10", {"n": number}) == number % 10
    assert run('"\\(.n)"', {"n": number}) == str(number)
    assert run("tonumber", str(number)) == number


@pytest.mark.parametrize(
    ("text", "column", "words"),
    [
        ("", 1, "an expression was expected"),
        (".a ==", 6, "a value was expected, and the expression ends here"),
        (".a = 1", 4, "equality is written =="),
        (".a == 'x'", 7, "double quotes"),
        ("(.a", 4, "')' was expected"),
        ("[1, 2", 6, "']' was expected"),
        ("{a: 1", 6, "'}' was expected"),
        ("{1: 2}", 2, "a key was expected"),
        ("{(1): 2}", 2, "a key has to be a string"),
        (".a.", 4, "a name was expected after the dot"),
        ('.a == "x', 7, "never closed"),
        ('"a\\q"', 3, "\\q is no escape"),
        ('. == "\\ud83d"', 6, "half of a \\u pair"),
        ('"a\udcff"', 1, "half of a"),
        ("\udcff", 1, "means nothing here"),
        ('"a\\(.b"', 7, "')' was expected"),
        ("if .a then 1", 13, "'end' was expected"),
        ("if .a 1 end", 7, "'then' was expected"),
        ("1 == 1 == 1", 8, "cannot stand in a row"),
        (".a b", 4, "the end or an operator was expected, not 'b'"),
        ("lenght", 1, "did you mean length?"),
        ("purchase", 1, "a field is written .purchase"),
        ("select", 1, "select takes one argument, not 0"),
        ("length(1)", 1, "length takes no argument, not 1"),
        (".a ^ 1", 4, "'^' means nothing here"),
        ("[.a, .b | .c]", 9, "parentheses"),
        ("[.a | .b, .c]", 9, "parentheses"),
        # what other languages write
        ('.a == "a" && .b', 11, "'&&' is not in this language: write 'and'"),
        (".a & .b", 4, "'&' is not in this language: write 'and'"),
        (".a || .b", 4, "'||' is not in this language: write 'or'"),
        ("[(.a || .b)]", 6, "write 'or'"),
        (".a AND .b", 4, "'AND' is not in this language: write 'and'"),
        (".a Or .b", 4, "'Or' is not in this language: write 'or'"),
        (".a == 1 and not .b", 13, "'not' cannot stand here: 'not' is written behind the value"),
        ("not(.a)", 1, ".b and (.a | not)"),
        ("NOT .a", 1, "'NOT' is not"),
        (".a xor .b", 4, "write !="),
        (".user-id == 1", 1, '.user-id is not a plain name: such a field is written ."user-id"'),
        (".Headers.X-Request-Id", 9, 'written ."X-Request-Id"; a difference is written .a - .b'),
        ("(.a.user-id | length)", 4, '."user-id"'),
        (".a-id-2b", 1, '."a-id-2b"'),
        (".2fa", 1, '."2fa"'),
        (".a.0", 3, 'written ."0"; an item of an array is written .[0]'),
        (".café", 1, '."café"'),
        (".a !== 1", 4, "'!==' is not in this language: write !="),
        (".a => 1", 4, "write >="),
        (".a =< 1", 4, "write <="),
        (".a !~ 1", 4, "| not"),
        (".a == /b/", 7, "test("),
        (".a == 'x'", 7, '"\'" is not in this language: text is written in double quotes'),
        ('.a == \\"x\\"', 7, "the shell needs none"),
        (".a == None", 7, "'None' is not in this language: write null"),
        (".a == nil", 7, "write null"),
        (".a == NULL", 7, "write null"),
        (".a == undefined", 7, "write null"),
        (".a is null", 4, "write =="),
        (".a isnull", 4, ".a == null"),
        ("exists(.a)", 1, ".a != null"),
        (".a == True", 7, "'True' is not in this language: write true"),
        (".a == FALSE", 7, "write false"),
        (".a in (1, 2)", 4, "write .a == 1 or .a == 2"),
        ('.a like "x%"', 4, "'like' is not in this language: write test(…)"),
        ('.a contains "x"', 4, "'contains' is a function here: write it behind a pipe, as in .a | contains(…)"),
        ('.a.startsWith("x")', 14, ".startsWith(…) is a method in other languages"),
        ("len(.a)", 1, "write .a | length"),
        ("lower(.a)", 1, "ascii_downcase"),
        (".a between 1 and 2", 4, "write .a >= 1 and .a <= 2"),
        (".a eq 1", 4, "write =="),
        (".a ? 1 : 2", 6, "write if .a then 1 else 2 end"),
        (".a ?? 1", 4, "'??' is not in this language: write //"),
        (".a ?: 1", 4, "write //"),
        (".a ** 2", 4, "no powers"),
        (".a++", 3, ".a + 1"),
        (".a->b", 3, "written .a.b"),
        ("$.a", 1, "the message itself is written as a dot"),
        (".a[*]", 3, "any(…) and all(…)"),
        (".a == 1; .b", 8, "joined by and"),
        ("or .a", 1, "a value was expected, not 'or'"),
        (".a null", 4, "the end or an operator was expected, not 'null'"),
        ("!.a", 1, ".a | not"),
        ("not .a", 1, ".a | not"),
        (".a <> 3", 4, "!="),
        ('.a =~ "x"', 4, "test("),
        (".a ~ 1", 4, "test("),
        (".a == “x”", 7, "double quotes"),
        ("length(.a)", 1, ".a | length"),
        ('.a | contains "x"', 6, ".a | contains(…)"),
        ('.a in ["a"]', 4, "'in' cannot stand here"),
        (".a === 1", 4, "'===' is not in this language: write =="),
        ("select(.a; .b)", 1, "joined by and"),
        # what full jq has
        ("def f: 1; f", 1, "jq"),
        ("reduce .a as $x (0; . + $x)", 1, "jq"),
        ("foreach .a as $x (0; 1)", 1, "jq"),
        ("recurse", 1, "jq"),
        ("..", 1, "jq"),
        (".a | ..", 6, "jq"),
        ("env.HOME", 1, "jq"),
        ("$ENV.HOME", 1, "jq"),
        ("$__loc__", 1, "jq"),
        ("input", 1, "jq"),
        (".a as $x | $x", 4, "jq"),
        (".a | $x", 6, "jq"),
        (".items[]", 7, "any(…) and all(…)"),
        (".[] | .a", 2, "jq"),
        (".a, .b", 3, "jq"),
        ("map(.a)", 1, "jq"),
        ("to_entries", 1, "jq"),
        ("any(.a[]; .b)", 7, "any(…) and all(…)"),
        ("any(.a; .b)", 1, "any(condition)"),
        (".a |= 1", 4, "jq"),
        ("@base64", 1, "jq"),
        ("try .a", 1, ".a?"),
        ('import "a" as b; 1', 1, "jq"),
        # patterns
        ('test("(")', 6, "missing )"),
        ('.a | test("a(?=b)")', 11, "look-ahead"),
        ('test("(?<!a)b")', 6, "look-behind"),
        ('test("(a)\\\\1")', 6, "back reference"),
        ('test("a++")', 6, "possessive"),
        ('test("(?>a)")', 6, "atomic"),
        ('test("a"; "n")', 11, "n"),
        ('test("a"; "q")', 11, "q"),
        ("test(.re)", 6, "text in quotes"),
    ],
)
def test_what_it_says_at_start(text: str, column: int, words: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        compile_expression(text)
    assert caught.value.column == column
    assert words in caught.value.why
    assert caught.value.text == text
    said = str(caught.value)
    assert f"column {column}: " in said
    assert "\n" not in said
    assert isinstance(caught.value, UsageError)


def test_an_expression_of_a_stranger_has_no_patterns() -> None:
    with pytest.raises(ExpressionError, match=r"column 6: test\(…\) is not allowed here"):
        compile_expression('.a | test("a")', regex=False)
    assert compile_expression('.a | startswith("a")', regex=False)({"a": "ab"}) is True


# ── bounds ──


@pytest.mark.parametrize(
    "text",
    [
        "(" * 5000 + "1" + ")" * 5000,
        "[" * 200 + "]" * 200,
        "-" * 3000 + "1",
        ".a" * 4000,
        "1" + " + 1" * 3000,
        '"\\(' * 200 + "1" + ')"' * 200,
        "if " * 500 + "1",
        "{a: " * 200 + "1" + "}" * 200,
        ". + . | " * 30 + ".",
        "[., .] | " * 30 + ".",
        "any([1, 1] | " * 40 + "true" + ")" * 40,
        "any([., .] | " * 14 + 'tostring == "x"' + ")" * 14,
        "{a: ., b: .} | " * 14 + "tostring",
        "x" * 100_000,
    ],
)
def test_text_that_is_too_much_is_refused(text: str) -> None:
    with pytest.raises(ExpressionError):
        compile_expression(text)


@pytest.mark.parametrize(
    "text",
    [
        " and ".join(f".f{place} == {place}" for place in range(300)),
        " or ".join(f'.type == "t{place}"' for place in range(300)),
        " | ".join(["."] * 300),
        " // ".join([".x"] * 300),
        "[" + ", ".join(f".f{place}" for place in range(300)) + "]",
        "{" + ", ".join(f"f{place}" for place in range(300)) + "}",
        "if .a == 0 then 0 " + "".join(f"elif .a == {place} then {place} " for place in range(1, 100)) + "end",
        "(" * 45 + "1" + ")" * 45,
        "(.a and " * 20 + ".a" + ")" * 20,
    ],
)
def test_long_expressions_are_none_of_it(text: str) -> None:
    compile_expression(text)({"a": 1})


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('"x" * 1e9', None),
        ('"x" * .n', {"n": 10**400}),
        (".a * .n", {"a": "x" * 1000, "n": 10**6}),
        (". - .", [[place] for place in range(20_000)]),
        ("contains(.)", [[place] for place in range(20_000)]),
        (". - [[1]] - .", [[0] * 500 + [place] for place in range(500)]),
        (".[.b]", {"a": [0] * 100_000, "b": 1}),
        ("[.a, .b] | .[0][.[1]]", {"a": [0] * 100_000, "b": [0] * 1000 + [1]}),
        ('split("") | join("' + "x" * 1000 + '")', "y" * 100_000),
        (" | ".join([". + ."] * 8), "x" * 10**6),
    ],
)
def test_values_that_are_too_much_are_an_error_and_soon(text: str, value: Any) -> None:
    with pytest.raises(EvaluationError):
        run(text, value)


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("text", ["tostring", ". == [.]", ". < [.]", "contains([.])", "{a: .} * {a: .}"])
def test_a_value_that_is_nested_too_deeply_is_an_error_and_no_traceback(text: str) -> None:
    value = nested(100_000)
    with contextlib.suppress(EvaluationError):
        run(text, value)


PIECES = [
    '"', "\\(", "(", ")", "[", "]", "{", "}", ".", "..", ".a", "a", ",", ":", ";", "|", "==", "=", "//", "?", "-", "+",
    "*", "1", "and", "or", "not", "if", "then", "else", "end", "$x", "@b", "select(", "test(", "any(", "as", "#", "\\",
    "'", "é", "1e999", "null", '"a"', ".a?", "[1:]", '"\\(.a)"',
]  # fmt: skip


@settings(deadline=None)
@given(st.text() | st.lists(st.sampled_from([*PIECES, " ", "\n", "\0"])).map("".join))
def test_garbage_is_an_expression_or_an_expression_error(text: str) -> None:
    try:
        compiled = compile_expression(text)
    except ExpressionError as error:
        column = error.column
    else:
        column = 1
        with contextlib.suppress(EvaluationError):
            compiled({"a": [1, {"b": "x"}]})
    assert 1 <= column <= len(text) + 1


@pytest.mark.parametrize(
    "word", ["__class__", "__import__", "v", "NOTHING", "EvaluationError", "index", "t1", "k1", "f1"]
)
def test_no_word_of_the_text_is_a_name_of_ours(word: str) -> None:
    assert run(f".{word}", {word: "found"}) == "found"
    assert run(f'{{{word}: "{word}"}}', {}) == {word: word}
    with pytest.raises(ExpressionError):
        compile_expression(word)


KNOWN = {name for room in (values, functions) for name in vars(room)} | {
    "NOTHING", "EvaluationError", "TOO_DEEP", "dict", "int", "float", "get", "append", "__class__",
    "RecursionError", "OverflowError", "ValueError",
}  # fmt: skip


@given(st.integers(0))
def test_what_is_compiled_has_our_names_and_no_literal_of_the_text(seed: int) -> None:
    """Whatever the text: bytecode that names our helpers and numbered things alone, and holds no constant but None and
    the like. So nothing of the text can have become code."""
    evaluate = compile_expression(Pairs(Random(seed)).expression(3)).evaluate
    codes = [thing.__code__ for thing in evaluate.__globals__.values() if isinstance(thing, FunctionType)]
    for code in (code for code in codes if code.co_filename == "<expression>"):
        names = {*code.co_names, *code.co_varnames}
        assert {name for name in names if not re.fullmatch(r"v|evaluate|[tkf][0-9]+", name)} <= KNOWN
        assert set(code.co_consts) <= {None, True, False}
    assert evaluate.__globals__["__builtins__"] == {}


# ── what routing and --explain ask of it ──


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


# ── speed ──


@pytest.mark.skipif(sys.gettrace() is not None, reason="a tracer, as of coverage, is all that would be measured")
def test_a_condition_costs_little_more_than_pythons_own() -> None:
    """As a ratio, so that it holds on a slow machine: the same condition by hand takes an eighth of a microsecond."""
    compiled = compile_expression('.type == "purchase" and .amount > 100')

    def by_hand(value: Any) -> bool:
        return value.get("type") == "purchase" and isinstance(value.get("amount"), int) and value["amount"] > 100

    def cost(call: Callable[[Any], Any]) -> float:
        return timeit.timeit(lambda: call(EVENT), timer=time.process_time, number=5000)

    # In turns, and the time of this process alone: the machine may be busy.
    rounds = [(cost(compiled.evaluate), cost(by_hand)) for _ in range(20)]
    assert min(ours for ours, _ in rounds) < 3 * min(theirs for _, theirs in rounds)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda inside: [inside],
        lambda inside: {"k": inside},
        lambda inside: [0, inside, ""],
        lambda inside: {"a": [], "k": inside},
    ],
)
def test_values_of_any_depth_are_compared(wrap: Callable[[object], object]) -> None:
    """More deeply nested than Python calls itself: as deep as JSON is read at all."""

    def nested(inside: int) -> object:
        made: object = inside
        for _ in range(5000):
            made = wrap(made)
        return made

    value = {"a": nested(1), "b": nested(1), "c": nested(2)}
    for text, told in (
        (".a == .b", True), (".a == .c", False), (".a != .c", True), (".a < .c", True), (".a >= .b", True),
        (".c <= .a", False),
    ):  # fmt: skip
        assert compile_expression(text)(value) is told, text
