"""The filter language, construct by construct, and what is said of text that is no expression."""

from __future__ import annotations

import json
from typing import Any

import pytest

from qtools.errors import EvaluationError, ExpressionError, UsageError
from qtools.expressions.expression import NOTHING, compile_expression
from tests.expressions.events import EVENT, run

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
        (".a | $x", 6, "variables of one's own are jq's"),
        ("$kye", 1, "did you mean $key?"),
        (
            ".a == $header.b",
            7,
            "(known are $key, $headers, $topic, $timestamp, $attempts, $id, $partition, $offset, $tombstone)",
        ),
        ("{a: $b}", 5, "there is no variable $b"),
        ("{$ENV}", 2, "jq"),
        ("$", 1, "a variable has a name"),
        (".a $key", 4, "the end or an operator was expected, not '$key'"),
        ("$key as $x | 1", 6, "jq"),
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


ROW = ("k1", {"a": "1", "b-c": ["x", None]}, "events", 5, 2, "id", 3, 42, False)


@pytest.mark.parametrize(
    ("text", "result", "names"),
    [
        ("$key", "k1", {"key"}),
        ("$headers.a", "1", {"headers"}),
        ('$headers["b-c"][0]', "x", {"headers"}),
        ('$headers."b-c" | any(. == null)', True, {"headers"}),
        ("$headers.missing", None, {"headers"}),
        ('"\\($topic)-\\($partition)-\\($offset)"', "events-3-42", {"topic", "partition", "offset"}),
        ("{$key, id: $id, n: .n}", {"key": "k1", "id": "id", "n": [1, 2, 3]}, {"key", "id"}),
        (".n | any(. == $attempts)", True, {"attempts"}),
        ("[.n | all(. < $timestamp)]", [True], {"timestamp"}),
        (".n[:$attempts]", [1, 2], {"attempts"}),
        ("[$key, select($offset > 50)]", ["k1"], {"key", "offset"}),
        ("(.n | tonumber)? // $key", "k1", {"key"}),
        ("if $key then $id else . end", "id", {"key", "id"}),
        ("$key | . + $key", "k1k1", {"key"}),
        ("-$offset", -42, {"offset"}),
    ],
)
def test_variables(text: str, result: Any, names: set[str]) -> None:
    expression = compile_expression(text)
    assert expression({"n": [1, 2, 3]}, ROW) == result
    assert expression.variables == names
    conditions = dict(compile_expression(f"({text}) == 1 and $key").parts)
    assert conditions["$key"](None, ROW) == "k1"


def test_without_a_message_variables_are_null_and_there_are_no_headers() -> None:
    text = "[$key, $headers, $topic, $timestamp, $attempts, $id, $partition, $offset, $tombstone]"
    assert compile_expression(text)(1) == [None, {}, None, None, None, None, None, None, None]


@pytest.mark.parametrize(
    ("text", "reads_body"),
    [
        ('$key == "a"', False),
        ("$headers.a | length > 1", False),
        ("{$key, a: [$offset]}", False),
        ("select($key) | $id", False),
        ("if $key then 1 else empty end", False),
        ("if $key then 1 end", True),
        ("select($key)", True),
        ("$key and .a", True),
        ("select(.a) | $key", True),
        ("[$key] | any(. == 1)", False),
        ("length > $offset", True),
        ("true", False),
        ('"k"', False),
        ('"a" + $topic', False),
        ("{a: [1, -2]}", False),
        ('{"a": "x"}["a"]', False),
        ('"text" | length', False),
        ("empty", False),
        ("length", True),
        ("select(true)", True),
        ('"\\(.)"', True),
        (".a // 1", True),
        ("{a}", True),
        ("[1][.n]", True),
    ],
)
def test_whether_the_body_matters(text: str, reads_body: bool) -> None:
    assert compile_expression(text).reads_body is reads_body
