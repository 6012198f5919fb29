"""The filter language's tree: one class for each construct, and where it stands in the text; the functions there are.

In: the parser (parser.py) makes it. Out: the compiler (code_generator.py) walks it. Never here: any rule.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

# How many arguments each function may have.
FUNCTIONS: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(
        ("not", "empty", "length", "type", "ascii_downcase", "ascii_upcase", "tostring", "tonumber", "keys"), (0,)
    ),
    **dict.fromkeys(("any", "all"), (0, 1)),
    **dict.fromkeys(("select", "startswith", "endswith", "contains", "has", "split", "join", "in", "inside"), (1,)),
    "test": (1, 2),
}
CONSTANTS = {"null": None, "true": True, "false": False}


@dataclass(slots=True)
class Node:
    """One construct. `start` and `end` are where it stands in the text, its own parentheses left out."""

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
    """Several of a kind in a row: `kind` is "|", "//", "or", "and", or "[" for the items of an array."""

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
    """`kind` is "-" or "?"."""

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
    """A string with parts to fill in: a str stands for itself."""

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
