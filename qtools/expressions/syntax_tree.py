"""The syntax tree of the filter language: a class for each construct, with its position in the text; and the functions
and the variables.

The parser (parser.py) builds the tree, and the compiler (code_generator.py) walks it. This module has no rules.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

# The numbers of arguments that each function may have.
FUNCTIONS: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(
        ("not", "empty", "length", "type", "ascii_downcase", "ascii_upcase", "tostring", "tonumber", "keys"), (0,)
    ),
    **dict.fromkeys(("any", "all"), (0, 1)),
    **dict.fromkeys(("select", "startswith", "endswith", "contains", "has", "split", "join", "in", "inside"), (1,)),
    "test": (1, 2),
}
CONSTANTS = {"null": None, "true": True, "false": False}
# What a message has besides its body. The values for one message are a tuple in this order (flow/variables.py).
VARIABLES = ("key", "headers", "topic", "timestamp", "attempts", "id", "partition", "offset", "tombstone")


@dataclass(slots=True)
class Node:
    """One construct. start, end: its position in the text, without parentheses around it."""

    start: int
    end: int
    depth: int = field(init=False, default=1)

    def children(self) -> tuple[Node, ...]:
        return ()


@dataclass(slots=True)
class Literal(Node):
    value: Any


@dataclass(slots=True)
class Identity(Node):
    pass


@dataclass(slots=True)
class Variable(Node):
    """name: one of VARIABLES."""

    name: str


@dataclass(slots=True)
class Index(Node):
    base: Node
    key: Node
    optional: bool = False

    def children(self) -> tuple[Node, ...]:
        return (self.base, self.key)


@dataclass(slots=True)
class Slice(Node):
    base: Node
    first: Node
    last: Node
    optional: bool = False

    def children(self) -> tuple[Node, ...]:
        return (self.base, self.first, self.last)


@dataclass(slots=True)
class Many(Node):
    """A chain of nodes. kind: the operator "|", "//", "or" or "and" between them, or "[" for the items of an array."""

    kind: str
    items: tuple[Node, ...]

    def children(self) -> tuple[Node, ...]:
        return self.items


@dataclass(slots=True)
class Binary(Node):
    operator: str
    left: Node
    right: Node

    def children(self) -> tuple[Node, ...]:
        return (self.left, self.right)


@dataclass(slots=True)
class Unary(Node):
    """A node with an operator. kind: "-" before it, or "?" behind it."""

    kind: str
    of: Node

    def children(self) -> tuple[Node, ...]:
        return (self.of,)


@dataclass(slots=True)
class Object(Node):
    pairs: tuple[tuple[Node, Node], ...]

    def children(self) -> tuple[Node, ...]:
        return tuple(node for pair in self.pairs for node in pair)


@dataclass(slots=True)
class Text(Node):
    """A string with interpolations. parts: plain texts, and nodes whose results are inserted."""

    parts: tuple[str | Node, ...]

    def children(self) -> tuple[Node, ...]:
        return tuple(part for part in self.parts if isinstance(part, Node))


@dataclass(slots=True)
class If(Node):
    branches: tuple[tuple[Node, Node], ...]
    otherwise: Node

    def children(self) -> tuple[Node, ...]:
        return (*(node for branch in self.branches for node in branch), self.otherwise)


@dataclass(slots=True)
class Call(Node):
    name: str
    arguments: tuple[Node, ...]

    def children(self) -> tuple[Node, ...]:
        return self.arguments
