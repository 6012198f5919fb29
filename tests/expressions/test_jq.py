"""The filter language means what jq means: generated expressions over generated JSON, against jq itself.

One jq program runs a handful of expressions over a handful of values, so that jq's own compiler is called seldom.
Errors are compared as errors, sentence for sentence. The documented differences are kept out of the values, and
negative zero, which is zero here, is levelled.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from functools import lru_cache
from random import Random
from typing import Any

import jq
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from qtools.errors import EvaluationError, ExpressionError
from qtools.expressions.expression import NOTHING, compile_expression
from qtools.expressions.values import LARGEST
from tests.expressions.events import EVENT
from tests.expressions.jq_pairs import VARIABLES, Pairs
from tests.expressions.test_expression import CONSTRUCTS

EXPRESSIONS, VALUES, EXAMPLES = 12, 12, 180
PAIRS = EXPRESSIONS * VALUES * EXAMPLES


compiled = lru_cache(EXPRESSIONS)(compile_expression)


def plain(value: Any) -> Any:
    """A value as JSON can say it, for a comparison that tells true from 1 but not 1 from 1.0."""
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int | float):
        if value != value:
            return None
        return ("number", float(value) if abs(value) <= LARGEST else math.copysign(LARGEST, value))
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    # jq's errors have numbers as they were written, 0.150, and as they are, 0.15.
    value = re.sub(r"(?<![\w.])([0-9]+\.[0-9]*?)0+(?![\w.])", lambda found: found[1].rstrip("."), value)
    return re.sub(r"(?<![\w.])-0(?![\w.])", "0", value)


def ours(text: str, value: Any) -> Any:
    try:
        result = compiled(text)(value, tuple(VARIABLES.values()))
    except EvaluationError as error:
        return {"error": plain(str(error))}
    return [] if result is NOTHING else [plain(result)]


def theirs(texts: list[str], inputs: list[Any]) -> list[list[Any]]:
    """What jq makes of each value by each expression."""
    tried = ", ".join(f"(. as $value | try [$value | {text}] catch {{error: .}})" for text in texts)
    found = jq.compile(f"[.[] | [{tried}]]", args=VARIABLES).input_text(json.dumps(inputs)).first()
    return [
        [{"error": plain(one["error"])} if isinstance(one, dict) else [plain(item) for item in one] for one in row]
        for row in found
    ]


def is_cheap(text: str) -> bool:
    """Whether the expression is not refused for what it may cost, which jq does not ask."""
    try:
        compiled(text)
    except ExpressionError as error:
        if "makes too much of its input" in str(error):
            return False
        raise
    return True


def compare(random: Random, seen: Counter[str]) -> None:
    pairs = Pairs(random)
    tried = [pairs.expression(random.choice([1, 2, 2, 3, 3, 4])) for _ in range(EXPRESSIONS)]
    texts = [text for text in tried if is_cheap(text)]
    inputs = [pairs.message() for _ in range(VALUES)]
    for value, row in zip(inputs, theirs(texts, inputs), strict=True):
        for text, expected in zip(texts, row, strict=True):
            assert (text, value, ours(text, value)) == (text, value, expected)
            seen["error" if isinstance(expected, dict) else "nothing" if not expected else "result"] += 1


def test_it_means_what_jq_means() -> None:
    seen: Counter[str] = Counter()

    @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @seed(20_000)
    @given(st.randoms(use_true_random=True))
    def run(random: Random) -> None:
        compare(random, seen)

    run()
    assert seen.total() >= 20_000
    # It is no comparison of errors with errors.
    assert seen["result"] > seen.total() / 2
    assert min(seen["error"], seen["nothing"]) > seen.total() / 100


TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[A-Za-z_]+|\.[A-Za-z_]+|[0-9.]+|==|!=|<=|>=|//|.', re.DOTALL)
STRAY = [
    "(", ")", "[", "]", "{", "}", ",", ":", ";", "|", "?", "-", "+", "*", "%", "/", "==", "<", "and", "or", "not", "//",
    ".", "..", ".a", ".[0]", "1", "1.5", '"a"', "if", "then", "else", "elif", "end", "#", "empty", "null", "length",
    "\\(", "as", "{a}", ".a?", "[1:]", "'", "$", "@text", "=", "?//", "{a:1}", "..a", '."a"',
]  # fmt: skip
INPUTS: list[Any] = [EVENT, {"a": 1, "b": {"a": 2, "c": [1]}, "items": [{"a": 1}], "type": "a"}, None]


def mutated(random: Random) -> str:
    """An expression with a token or two lost, added, or exchanged."""
    tokens = TOKEN.findall(Pairs(random).expression(random.choice([1, 2, 2, 3])))
    for _ in range(random.choice([1, 1, 2, 3])):
        place = random.randrange(len(tokens) + 1)
        tokens[place : place + random.choice([0, 0, 1])] = random.choice([[], [random.choice(STRAY)]])
    return random.choice(["", " "]).join(tokens)


def accepted_means_the_same(random: Random, count: int) -> int:
    """Of `count` mutated texts, those that are accepted jq accepts as well, and means the same; how many they were."""
    accepted = 0
    for _ in range(count):
        text = mutated(random)
        try:
            compile_expression(text)
        except ExpressionError:
            continue
        accepted += 1
        row = [found[0] for found in theirs([f"\n{text}\n"], INPUTS)]  # it may end with a comment
        assert (text, [ours(text, value) for value in INPUTS]) == (text, row)
    return accepted


def test_what_is_accepted_is_accepted_by_jq_and_means_the_same() -> None:
    assert accepted_means_the_same(Random(1), 3000) > 200


# What chance finds seldom.
CORNERS = [
    '"nan" | tonumber | [., . < ., . == ., . < 1, . > 1, 1 < ., tostring, -(.), . + 1, length, . % 2, 3 % .]',
    '"nan" | tonumber | [. <= ., . >= ., . >= 1, [.] < [1], ({a: .} | .a < 0), . != .]',
    '"inf" | tonumber | [., tostring, -(.), (. - .), (. > 1e308), . * 0, . == ., [.] == [.], -(.) < 0]',
    '"-Infinity" | tonumber | [., tostring, . < -1e308]',
    '[1, 2, 3] | .["nan" | tonumber]', "[1, 2, 3] | .[1e18]", "[1, 2, 3] | .[-1e18]",
    '[1, 2, 3] | has("nan" | tonumber)',
    "[1] | [has(-0.5), has(0.5), has(1), has(-1)]",
    "[] | has(-0.5)",
    '"1." | tonumber | tostring', '"+1" | tonumber | tostring', '"-.5" | tonumber | tostring',
    '[1, 2, 3] | .[("nan" | tonumber):]', '[1, 2, 3] | .[:("nan" | tonumber)]',
    "1e15 * 100 | tostring", "1.5e20 * 1 | tostring", "123456789e14 * 1.5 | tostring", "1.23456789e24 * 1 | tostring",
    "-1e15 * 100 | tostring", "1e-5 * 1 | tostring", "0.0001 * 1 | tostring", "0.1 + 0.2 | tostring",
    "1e16 * 1.5 | tostring",
    "1e300 * 1e300 | tostring", "1e300 * 1 | tostring", "-1e300 * 1e300 | tostring", "1e300 * 1e300 - 1e300 * 1e300",
    '{} | .[{"start": 1, "end": 2}]', 'null | .[{"start": 1, "end": 2}]', "null | .[1:2]", "{} | .[1:2]",
    "true | .[1:2]",
    '"abc" | .[{"start": 1, "end": null}]', '[1] | .[{"start": 1}]', '"aé😀f" | .[1:-1]', '"abcdef" | .[-2:]',
    "[1] | .[[]]",
    "[1, 2, 1, 2] | .[[1, 2]]", "[1, 2] | .[[2, 3]]", '"a" * ("nan" | tonumber)', '"a" * 0',
    "[3, 1] | contains([1.0])",
    "[[1]] | contains([1])", '5 % ("inf" | tonumber)', "5 % -1e30", "-5 % 1e30", "1e30 % 7", "-1e30 % 7", "5 % 0.9",
    "5 % -1",
    "[1, [2]] - [[2]]", '[] | join(",")', "[null] | join(1)", '["a", "b"] | join(1)', "[[1]] | join(\",\")",
    "{} | join(\",\")",
    '"" | split("")', '",a," | split(",")', '"aXbX" | split("X")', "0 == -0",
    '"\\u007f\\u0000\\"\\\\/\\ud83d\\ude00" | [.] | tostring',
    '"\\(1)\\("a\\("b")")" | length',
]  # fmt: skip


@pytest.mark.parametrize("text", [*(text for text, _ in CONSTRUCTS), *CORNERS])
def test_each_construct_means_what_jq_means(text: str) -> None:
    assert [ours(text, EVENT)] == theirs([f"\n{text}\n"], [EVENT])[0]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_what_is_accepted_means_the_same_for_long() -> None:
    assert accepted_means_the_same(Random(), 100_000) > 5000


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_it_means_what_jq_means_for_long() -> None:
    seen: Counter[str] = Counter()
    random = Random()
    while seen.total() < 500_000:
        compare(random, seen)
