"""An upper bound of what an expression costs, computed from its tree before it runs.

In: a node. Out: a Cost, relative to the size of the input; the compiler refuses an expression that costs too much. The
size of a single value is limited where it is made (values.py). This limits how often that happens, so that no short
expression, such as a chain of doublings or nested loops over literals, can block a queue.
"""

from __future__ import annotations

from typing import NamedTuple

from qtools.expressions.syntax_tree import Binary, Call, Identity, If, Index, Literal, Many, Node, Slice, Text, Variable


class Cost(NamedTuple):
    """size: the size of a result, as a multiple of the size of the input.

    steps: how many constructs are evaluated. heavy: how many times the whole input is read.
    """

    size: float
    steps: float
    heavy: float


# Far above a page of usual conditions: a condition takes 4 steps and is not heavy; 100 fields in an object, size 100.
MOST = Cost(4_000, 20_000, 5_000)
# Up to this size the limit of the input also limits the result.
MODEST_SIZE = 256


def _is_text(node: Node) -> bool:
    return isinstance(node, Text) or (isinstance(node, Literal) and isinstance(node.value, str))


def cost(node: Node) -> Cost:
    """The cost of `node` and all its children."""
    parts = [cost(child) for child in node.children()]
    size = sum(part.size for part in parts)
    steps = 1 + sum(part.steps for part in parts)
    heavy = sum(part.heavy for part in parts)
    if isinstance(node, Literal):
        return Cost(1 + len(node.value) / 64 if isinstance(node.value, str) else 1, 1, 0)
    if isinstance(node, Identity | Variable):  # the input is the whole message, with its key and its headers
        return Cost(1, 1, 0)
    if isinstance(node, Index):
        return Cost(parts[0].size, steps, heavy)
    if isinstance(node, Slice):
        return Cost(parts[0].size, steps, heavy + parts[0].size)
    if isinstance(node, Many) and node.kind == "|":
        size, steps, heavy = 1, 1, 0
        for part in parts:
            steps += size * part.steps
            heavy += size * part.heavy
            size *= part.size
        return Cost(size, steps, heavy)
    if isinstance(node, Many) and node.kind in ("and", "or"):
        return Cost(1, steps, heavy)
    if isinstance(node, If) or (isinstance(node, Many) and node.kind == "//"):
        return Cost(max(part.size for part in parts), steps, heavy)
    if isinstance(node, Binary):
        ordered = node.operator in ("==", "!=", "<", "<=", ">", ">=")
        light = isinstance(node.left, Literal) or isinstance(node.right, Literal)
        return Cost(1 if ordered else size, steps, heavy + (0 if ordered and light else size))
    if isinstance(node, Text):
        # A text is inserted as it is; the JSON of any other value may grow by escapes.
        grown = sum(
            part.size * (1 if _is_text(child) else 4) for child, part in zip(node.children(), parts, strict=True)
        )
        return Cost(grown + 1, steps, heavy + grown)
    if isinstance(node, Call):
        if node.name == "select":
            return Cost(1, steps, heavy)
        return Cost(
            4 if node.name == "tostring" else 1, steps, heavy + (0 if node.name in ("not", "type") else 1 + size)
        )
    return Cost(max(size, 1), steps, heavy)
