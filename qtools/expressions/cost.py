"""What an expression may cost, told from its tree alone, before it ever runs.

In: a node. Out: a Cost, generous, in terms of the input's size; whoever compiles refuses what is too much. Single
values are bounded where they are made (values.py); this bounds how often, so that no chain of doublings
and no loop in a loop of literals, however short its text, holds up a queue.
"""

from __future__ import annotations

from typing import NamedTuple

from qtools.expressions.syntax_tree import Binary, Call, Identity, If, Index, Literal, Many, Node, Slice, Text


class Cost(NamedTuple):
    """size: how many times its input's size a result can have.

    steps: how many constructs are gone through. heavy: how many times all of the input is.
    """

    size: float
    steps: float
    heavy: float


# Far above a page of honest conditions: a condition is 4 steps and not heavy, an object of 100 fields has size 100.
MOST = Cost(4_000, 20_000, 5_000)
# Up to here a result is held by its input's size.
MODEST_SIZE = 256


def _is_text(node: Node) -> bool:
    return isinstance(node, Text) or (isinstance(node, Literal) and isinstance(node.value, str))


def cost(node: Node) -> Cost:
    """The cost of `node`, with all in it."""
    parts = [cost(child) for child in node.children()]
    size = sum(part.size for part in parts)
    steps = 1 + sum(part.steps for part in parts)
    heavy = sum(part.heavy for part in parts)
    if isinstance(node, Literal):
        return Cost(1 + len(node.value) / 64 if isinstance(node.value, str) else 1, 1, 0)
    if isinstance(node, Identity):
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
        # What is text already is put in as it is, anything else may grow by its escapes.
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
