"""The parser of the filter language. In: text. Out: a syntax tree; or ExpressionError with the column and what was
expected.

The grammar is the part of jq's in which an expression yields at most one result, and ends. In ascending precedence:

    pipe      = any ("|" any)*                                   # , only between the items of an array
    any       = or ("//" or)*
    or        = and ("or" and)*           and = compare ("and" compare)*
    compare   = sum (("==" "!=" "<" "<=" ">" ">=") sum)?         # a < b < c is an error, as in jq
    sum       = product (("+" "-") product)*                     product = term (("*" "/" "%") term)*
    term      = ("-" term | primary) (".name" ".\"name\"" "[pipe]" "[pipe:pipe]" "?")*

The meaning of a node is in code_generator.py.
"""

from __future__ import annotations

from typing import NoReturn

from qtools.expressions.hints import OPERATORS, WORDS, unknown, unknown_variable
from qtools.expressions.hints import arguments as arguments_hint
from qtools.expressions.syntax_tree import (
    CONSTANTS,
    FUNCTIONS,
    VARIABLES,
    Binary,
    Call,
    Identity,
    If,
    Index,
    Literal,
    Many,
    Node,
    Object,
    Slice,
    Text,
    Unary,
    Variable,
)
from qtools.expressions.token_reader import TokenReader
from qtools.expressions.tokens import COMPARE, LEVELS, STRING, number, unescaped

MAX_DEPTH = 50  # of nested brackets, and of the tree


class Parser(TokenReader):
    """Parses one text."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.nesting = 0

    def made(self, node: Node) -> Node:
        node.depth = 1 + max((child.depth for child in node.children()), default=0)
        if node.depth > MAX_DEPTH:
            self.fail(f"this is nested deeper than {MAX_DEPTH} levels", node.start)
        return node

    def whole(self) -> Node:
        if self.kind == "end":
            self.fail('an expression was expected, as in .type == "purchase"; . is the whole message')
        node = self.pipe()
        if self.kind != "end":
            self.unexpected()
        return node

    def unexpected(self) -> NoReturn:
        """Fail: the current token is not allowed here."""
        self.fail_if_foreign()
        if self.kind == "strange" and self.token in OPERATORS:
            self.fail(OPERATORS[self.token])
        if self.at(","):
            self.fail(OPERATORS[","])
        if self.kind == "word" and self.token in WORDS:
            self.fail(WORDS[self.token])
        if self.kind == "word" and self.token in FUNCTIONS:
            self.fail(f"a function takes what a pipe gives it: … | {self.token}")
        self.fail(f"the end or an operator was expected, not {self.token!r}")

    def deeper(self) -> None:
        self.nesting += 1
        if self.nesting > MAX_DEPTH:
            self.fail(f"this is nested deeper than {MAX_DEPTH} levels")

    def pipe(self) -> Node:
        self.deeper()
        start = self.place
        items = [self.alternatives()]
        while self.at("|"):
            self.take()
            items.append(self.alternatives())
        self.nesting -= 1
        return items[0] if len(items) == 1 else self.made(Many(start, self.end, "|", tuple(items)))

    def alternatives(self) -> Node:
        start = self.place
        items = [self.level(0)]
        while self.at("//"):
            self.take()
            items.append(self.level(0))
        return items[0] if len(items) == 1 else self.made(Many(start, self.end, "//", tuple(items)))

    def level(self, tightness: int) -> Node:
        if tightness == len(LEVELS):
            return self.term()
        start = self.place
        operators = LEVELS[tightness]
        left = self.level(tightness + 1)
        if tightness < COMPARE:
            items = [left]
            while self.at(*operators):
                self.take()
                items.append(self.level(tightness + 1))
            return left if len(items) == 1 else self.made(Many(start, self.end, operators[0], tuple(items)))
        while self.at(*operators):
            operator = self.take()
            right = self.level(tightness + 1)
            left = self.made(Binary(start, self.end, operator, left, right))
            if tightness == COMPARE and self.at(*operators):
                self.fail(
                    f"{operator} and {self.token} cannot stand in a row: put one in parentheses, or join them by and"
                )
        return left

    def term(self) -> Node:
        start = self.place
        if self.at("-"):
            self.take()
            self.deeper()
            node = self.made(Unary(start, start, "-", self.term()))
            self.nesting -= 1
            node.end = self.end
            return node
        node = self.primary()
        while True:
            if self.kind == "field":
                key = Literal(self.place + 1, self.after, self.take()[1:])
                node = self.indexed(start, node, key)
            elif self.at("."):
                self.take()
                if self.at("["):
                    node = self.bracket(start, node, dotted=True)
                elif self.at('"'):
                    node = self.indexed(start, node, self.string())
                else:
                    self.fail(
                        f'a name was expected after the dot, {self.instead()}; an unusual name is written ."odd name"'
                    )
            elif self.at("["):
                node = self.bracket(start, node)
            elif self.at("?"):
                self.take()
                node = self.made(Unary(start, self.end, "?", node))
            else:
                if self.kind == "word" and self.token == "as":
                    self.fail(WORDS["as"])
                return node

    def indexed(self, start: int, base: Node, key: Node) -> Node:
        if isinstance(base, Call) and base.name == "not":
            self.fail_if_foreign(base.start)
        optional = self.optional()
        return self.made(Index(start, self.end, base, key, optional))

    def optional(self) -> bool:
        return self.at("?") and self.take() == "?"

    def bracket(self, start: int, base: Node, *, dotted: bool = False) -> Node:
        opened = self.place
        self.take()
        if self.at("]"):
            self.fail(OPERATORS["[]"], opened)
        nothing: Node = Literal(self.place, self.place, None)
        first = nothing if self.at(":") and not dotted else self.pipe()
        if not self.at(":") or dotted:
            self.expect("]", "after the index")
            return self.indexed(start, base, first)
        self.take()
        if self.at("]") and first is nothing:
            self.fail("a slice has at least one end, as in .[2:] or .[:5]")
        last = nothing if self.at("]") else self.pipe()
        self.expect("]", "after the slice")
        optional = self.optional()
        return self.made(Slice(start, self.end, base, first, last, optional))

    def primary(self) -> Node:
        start, kind, token = self.place, self.kind, self.token
        if kind == "number":
            self.take()
            return Literal(start, self.end, number(token))
        if kind == "field":
            # ".name" is an index of the identity.
            return Identity(start, start)
        if kind == "word":
            return self.word()
        if kind == "variable":
            return self.variable()
        if kind == "strange":
            self.fail_if_foreign()
            self.fail(OPERATORS.get(token) or OPERATORS[token[0]])
        if token == '"':
            return self.string()
        if token == "." and kind == "sign":
            self.take()
            node: Node = Identity(start, self.end)
            return self.indexed(start, node, self.string()) if self.at('"') else node
        if token == "(":
            self.take()
            node = self.pipe()
            self.closing(")")
            return node
        if token == "[":
            return self.array()
        if token == "{":
            return self.object()
        self.fail_if_foreign()
        self.fail(f"a value was expected, {self.instead()}")

    def closing(self, bracket: str) -> None:
        if self.kind != "end" and not self.at(bracket) and (self.kind == "strange" or self.at(",", "as")):
            self.unexpected()
        self.expect(bracket, "to close what was opened")

    def word(self) -> Node:
        start, name = self.place, self.token
        if name == "if":
            return self.condition()
        if name in CONSTANTS:
            self.take()
            return Literal(start, self.end, CONSTANTS[name])
        if name not in FUNCTIONS:
            self.fail_if_foreign()
            self.fail(WORDS.get(name) or unknown(name, [*FUNCTIONS, *CONSTANTS], self.instead()))
        self.take()
        arguments: list[Node] = []
        if self.at("("):
            self.take()
            arguments.append(self.pipe())
            while self.at(";"):
                self.take()
                arguments.append(self.pipe())
            self.closing(")")
        if len(arguments) not in FUNCTIONS[name]:
            if name == "not":
                self.fail_if_foreign(start)
            self.fail(arguments_hint(name, FUNCTIONS[name], len(arguments)), start)
        return self.made(Call(start, self.end, name, tuple(arguments)))

    def variable(self) -> Node:
        start, name = self.place, self.token[1:]
        if name not in VARIABLES:
            self.fail(unknown_variable(name, VARIABLES))
        self.take()
        return Variable(start, self.end, name)

    def condition(self) -> Node:
        start = self.place
        branches: list[tuple[Node, Node]] = []
        while self.at("if" if not branches else "elif"):
            self.take()
            when = self.pipe()
            self.expect("then", "after the condition")
            branches.append((when, self.pipe()))
        otherwise: Node = Identity(self.place, self.place)
        if self.at("else"):
            self.take()
            otherwise = self.pipe()
        self.expect("end", "to close the if")
        return self.made(If(start, self.end, tuple(branches), otherwise))

    def array(self) -> Node:
        start = self.place
        self.take()
        self.deeper()
        items: list[Node] = []
        stages: list[Node] = []
        if not self.at("]"):
            items.append(self.alternatives())
            while self.at(",", "|"):
                if self.token == "|" and len(items) > 1:
                    self.fail("a pipe here would take each item in turn: put the item into parentheses, [.a, (.b | f)]")
                if self.token == "," and stages:
                    self.fail("put the item before the comma into parentheses: [(.a | f), .b]")
                into = stages if self.take() == "|" else items
                into.append(self.alternatives())
        if stages:
            items = [self.made(Many(items[0].start, self.end, "|", (*items, *stages)))]
        self.nesting -= 1
        self.closing("]")
        return self.made(Many(start, self.end, "[", tuple(items)))

    def object(self) -> Node:
        start = self.place
        self.take()
        pairs: list[tuple[Node, Node]] = []
        while not self.at("}"):
            pairs.append(self.pair())
            if not self.at(","):
                break
            self.take()
        self.closing("}")
        return self.made(Object(start, self.end, tuple(pairs)))

    def pair(self) -> tuple[Node, Node]:
        key_place = self.place
        alone = True  # {a} is {a: .a}
        if self.kind == "variable":
            value = self.variable()  # {$key} is {key: $key}
            return Literal(value.start + 1, value.end, self.text[value.start + 1 : value.end]), value
        if self.kind == "word":
            key: Node = Literal(key_place, self.after, self.take())
        elif self.at('"'):
            key = self.string()
        elif self.at("("):
            self.take()
            key, alone = self.pipe(), False
            self.closing(")")
            if isinstance(key, Literal) and not isinstance(key.value, str):
                self.fail("a key has to be a string", key_place)
        elif self.kind == "strange":
            self.fail(OPERATORS.get(self.token) or OPERATORS[self.token[0]])
        else:
            self.fail(
                f'a key was expected, as in {{id: .messageId, amount, "odd name": 1, (.key): 2}}, {self.instead()}'
            )
        if alone and not self.at(":"):
            return key, self.made(Index(key_place, self.end, Identity(key_place, key_place), key))
        self.expect(":", "after the key")
        return key, self.pipe()

    def unescaped(self, pieces: list[str], start: int) -> str:
        try:
            return unescaped(pieces)
        except ValueError:
            self.fail("this string has half of a \\u pair, which is no character", start)

    def string(self) -> Node:
        """A string; the current token is its opening quote."""
        start, place = self.place, self.place + 1
        parts: list[str | Node] = []
        raw: list[str] = []
        while not self.text.startswith('"', place):
            if self.text.startswith("\\(", place):
                parts.append(self.unescaped(raw, start))
                raw = []
                self.look(place + 2)
                parts.append(self.pipe())
                if not self.at(")"):
                    self.closing(")")  # this fails with the right error
                place = self.after
            elif piece := STRING.match(self.text, place):
                raw.append(piece[0])
                place = piece.end()
            elif place == len(self.text):
                self.fail("this string is never closed", start)
            else:
                self.fail(
                    f"{self.text[place : place + 2]} is no escape in a string; a backslash is written \\\\", place
                )
        parts.append(self.unescaped(raw, start))
        self.end = place + 1
        self.look(place + 1)
        if len(parts) == 1:
            return Literal(start, self.end, parts[0])
        return self.made(Text(start, self.end, tuple(part for part in parts if part != "")))


def parse(text: str) -> Node:
    """Parse `text`. Raises ExpressionError."""
    return Parser(text).whole()
