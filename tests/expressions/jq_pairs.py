"""Random expressions and random JSON that have something to say to each other, for the comparison with jq.

Made from a plain random.Random rather than from strategies: those favour what is small and repeated, and nine tenths
of the pairs would be `.` on null. What is documented to differ from jq is left out: integers above 2^53, numbers
whose text is not their shortest. Left out too, as jq has it wrong: two slices of one array or string that are
equally long are the same to it (`[1, 2] | .[1:] == .[:1]` is true there).
"""

from __future__ import annotations

import json
from random import Random
from typing import Any

NAMES = ["a", "b", "c", "items", "type"]
WORDS = [
    "",
    "a",
    "b",
    "ab",
    "purchase",
    "Abc",
    "a,b",
    "é😀",
    "12",
    "1.5",
    "-3",
    "x y",
    'q"\\',
    "\n",
    "null",
    "[1]",
    "a",
]
NUMBERS = [0, 1, 2, 3, -1, -2, 7, 10, 100, 150, 1.5, 0.5, -2.25, 1.0, 2.0, 0.25, 123456]
SMALL = ["1", "2", "0.5", "3"]  # to multiply by, so that nothing grows beyond 2^53
PATTERNS = [
    "a",
    "^a",
    "b$",
    "[a-c]+",
    "^(?<x>a|b)*$",
    r"\d+",
    r"\.",
    "",
    "é",
    r"\w \w",
    "A.c",
    r"^\W|\S\s",
    "[^a-c]$",
    "^$",
]
ORDER = ["==", "!=", "<", "<=", ">", ">="]
LOGIC = ["and", "or", "//"]
ARITHMETIC = ["+", "-", "*", "/", "%"]

# What is most often of this kind in a message; most expressions are made of operands of the kind they want.
PATHS = {
    "number": [".a", ".b.a", ".items[0].a", ".items[-1].a?", ".a?", '."a"', ".items[1.5].a", "$offset"],
    "string": [".type", ".b.type", '.["type"]', ".items[0].type", ".type[:2]", "$key", "$headers.a"],
    "array": [".items", ".items[1:]", ".b.items", ".items?"],
    "object": [".", ".b", ".items[0]", ".b?", ".", "$headers"],
    "boolean": [".c", ".b.c", ".c?"],
    "any": [
        ".",
        ".c",
        ".[.type]",
        ".a.b",
        ".[0]",
        ".a.b?",
        ".type.a?",
        ".c[0]",
        ".[.c]",
        "empty",
        '."odd key"',
        ".c.c.c",
    ],
}
VARIABLES = {
    "key": "ab", "headers": {"a": "purchase", "b": ["x y", None], "c": {"base64": "/w=="}}, "topic": "Abc",
    "timestamp": 123456, "attempts": 2, "id": "12", "partition": None, "offset": 7,
}  # fmt: skip
KINDS = list(PATHS)
# Functions by the kind of their input, each with the kind of its argument if it has one.
TAKEN = {
    "number": "tostring length type tonumber not",
    "string": "startswith:string endswith:string contains:string inside:string split:string in:object "
    "length ascii_downcase ascii_upcase tonumber tostring",
    "array": "any all any:any all:any length keys join:string contains:array inside:array has:number tostring",
    "object": "keys length has:string contains:object inside:object any:any all:any tostring type",
    "boolean": "not tostring type",
    "any": "select:any select:boolean type not tostring length",
}
CALLS = {kind: [tuple(word.split(":")) for word in words.split()] for kind, words in TAKEN.items()}
WRONG = 0.04  # how often a kind is ignored


def written(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


class Pairs:
    def __init__(self, random: Random) -> None:
        self.random = random
        self.pick = random.choice

    # ── values ──

    def scalar(self) -> Any:
        return self.pick([None, self.pick([True, False]), self.pick(NUMBERS), self.pick(WORDS), self.pick(WORDS)])

    def value(self, depth: int = 3) -> Any:
        how = self.random.random()
        if depth == 0 or how < 0.4:
            return self.scalar()
        if how < 0.65:
            return [self.value(depth - 1) for _ in range(self.random.randrange(4))]
        return {name: self.value(depth - 1) for name in self.random.sample(NAMES, self.random.randrange(5))}

    def message(self, depth: int = 2) -> Any:
        """An object whose fields have the kinds that PATHS expects, mostly."""
        if self.random.random() < WRONG:
            return self.value()
        made: dict[str, Any] = {"a": self.pick(NUMBERS), "type": self.pick(WORDS), "c": self.value(depth)}
        made["items"] = [self.message(depth - 1) if depth else self.scalar() for _ in range(self.random.randrange(3))]
        if depth:
            made["b"] = self.message(depth - 1)
        for name in list(made):
            how = self.random.random()
            if how < WRONG:
                made[name] = self.value(1)
            elif how < 2 * WRONG:
                del made[name]
        return made

    # ── expressions ──

    def literal(self, kind: str) -> str:
        match kind:
            case "number":
                return self.pick([written(abs(self.pick(NUMBERS))), "-1", "-2.5", ".5", "3."])
            case "string":
                return written(self.pick(WORDS))
            case "array":
                return self.pick(["[]", '["a", "b"]', "[1, 2.0, null]", "[.a, .b]", "[[1], [2]]", "[1]", "[.type]"])
            case "object":
                return self.pick(["{}", "{a: 1}", "{a, type}", '{"a": {"b": 1}, c: null}', "{b: {a: 2}}", "{type}"])
            case "boolean":
                return self.pick(["true", "false", "null"])
            case _:
                return self.literal(self.pick(KINDS[:-1]))

    def leaf(self, kind: str) -> str:
        return self.literal(kind) if self.random.random() < 0.3 else self.pick(PATHS[kind])

    def call(self, kind: str, depth: int) -> str:
        if kind == "string" and self.random.random() < 0.3:
            flags = self.pick(["", "", "i", "g", "x", "il", "s", "p"])
            return f"test({written(self.pick(PATTERNS))}" + (f"; {written(flags)})" if flags else ")")
        name, *argument = self.pick(CALLS[kind])
        return f"{name}({self.expression(depth, argument[0])})" if argument else name

    def key(self, depth: int) -> str:
        return self.pick(
            [
                *NAMES,
                '"odd key"',
                "if",
                "and",
                f"(if .a then {self.expression(depth, 'string')} else .type end)",
                '"x\\(.a)"',
            ]
        )

    def expression(self, depth: int, kind: str = "any") -> str:
        """Text of an expression that most often yields a `kind`, for a message."""
        if self.random.random() < WRONG:
            kind = self.pick(KINDS)
        if depth <= 0:
            return self.leaf(kind)
        some, less = self.expression, depth - 1
        choices = [lambda: f"(if {some(less, 'boolean')} then {some(less, kind)} else {some(less, kind)} end)"]
        choices += [lambda: f"({some(less, 'boolean')} // {some(less, kind)})", lambda: f"({some(less, kind)})?"]
        choices += [lambda: f"(select({some(less, 'boolean')}) | {some(less, kind)})", lambda: self.leaf(kind)]
        if kind in ("number", "string", "array", "object"):
            signs = {"number": ARITHMETIC, "string": ["+"], "array": ["+", "-"], "object": ["+", "*"]}[kind]
            choices += [lambda: self.arithmetic(self.pick(signs), kind, less)] * 4
        match kind:
            case "number":
                choices += [lambda: f"(-{self.leaf(kind)})", lambda: f"({some(less)} | length)"]
            case "string":
                choices += [
                    lambda: f"({some(less, self.pick(KINDS))} | tostring)",
                    lambda: f"({some(less, kind)} * {self.literal('number')})",
                ]
                choices += [lambda: '"' + "-".join(f"\\({some(less, self.pick(KINDS))})" for _ in range(2)) + '"'] * 2
            case "array":
                choices += [lambda: f"[{', '.join(f'({some(less)})' for _ in range(self.random.randrange(4)))}]"] * 3
                choices += [
                    lambda: f"({some(less, 'string')} / {self.literal('string')})",
                    lambda: f"({some(less, kind)})[{self.leaf('number')}:]",
                ]
            case "object":
                choices += [
                    lambda: (
                        "{"
                        + "".join(f"{self.key(less)}: {some(less)}, " for _ in range(self.random.randrange(3)))
                        + "type}"
                    )
                ] * 3
            case "boolean":
                choices += [lambda: self.comparison(less)] * 5 + [
                    lambda: f"({some(less, kind)} {self.pick(LOGIC)} {some(less, kind)})"
                ] * 3
                choices += [lambda: self.called("string", less)]
            case _:
                choices += [lambda: some(depth, self.pick(KINDS[:-1]))] * 3 + [
                    lambda: self.called(self.pick(KINDS), less)
                ] * 4
                choices += [self.unbracketed, lambda: self.looked_up(less)]
        return self.pick(choices)()

    def looked_up(self, depth: int) -> str:
        base = self.expression(depth, self.pick(["array", "object"]))
        return f"({base})[{self.expression(depth, self.pick(['number', 'string']))}]{self.pick(['', '?'])}"

    def called(self, kind: str, depth: int) -> str:
        return f"({self.expression(depth, kind)} | {self.call(kind, depth)})"

    def arithmetic(self, sign: str, kind: str, depth: int) -> str:
        right = self.pick(SMALL) if kind == "number" and sign == "*" else self.expression(depth, kind)
        return f"({self.expression(depth, kind)} {sign} {right})"

    def comparison(self, depth: int) -> str:
        kind = self.pick(KINDS)
        return f"({self.expression(depth, kind)} {self.pick(ORDER)} {self.expression(depth, kind)})"

    def unbracketed(self) -> str:
        """As it comes: what binds how tightly is jq's to say."""
        kind = self.pick(["number", "number", "boolean", "array"])
        signs = {"number": [*ARITHMETIC, *ARITHMETIC, "|"], "array": ["+", "-", "|"]}.get(kind, ["|", "//"])
        parts = [self.leaf(kind)]
        for _ in range(4):
            sign = self.pick([*signs, *LOGIC])
            parts += [sign, self.pick(SMALL) if sign == "*" else self.leaf(kind)]
        return f"({' '.join(parts)} {self.pick(ORDER)} {self.leaf(kind)})"
