"""Filter expressions: a subset of jq, compiled once, run on every message.

In: text such as `.type == "purchase" and .amount > 100`. Out: an Expression, a function from a parsed JSON value and
the variables of its message ($key, $headers …) to the one result, or NOTHING if `select(…)` lets the value not pass. A
valid expression has the same meaning as in jq; docs/expressions.md describes the language. Every expression ends, in
time and memory that are bounded by the size of the text and of the message.

    parser.py            text → tree; uses tokens.py, syntax_tree.py, and for errors hints.py, foreign_syntax.py
    code_generator.py    tree → function, which calls functions.py and values.py
    regex.py             patterns of test(…)
    cost.py              refuses expressions that cost too much

An expression reads only the value and the variables that it is given. JSON is parsed elsewhere (flow/json_values.py),
and variables are made elsewhere (flow/variables.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from qtools.expressions.code_generator import NO_VARIABLES, Evaluate, compile_node, variables_in
from qtools.expressions.cost import MODEST_SIZE, cost
from qtools.expressions.parser import parse
from qtools.expressions.syntax_tree import VARIABLES, Binary, Call, Identity, Index, Literal, Many, Node
from qtools.expressions.values import NOTHING

__all__ = ["NOTHING", "NO_VARIABLES", "VARIABLES", "Expression", "compile_expression", "truthy"]

Path = tuple[str, ...]
Scalar = str | int | float | bool | None


def truthy(value: Any) -> bool:
    """Whether jq takes `value` for true: all values except null and false. NOTHING is not true."""
    return value is not None and value is not False and value is not NOTHING


class Expression:
    """A compiled expression. Call it with a parsed JSON value, and the variables of its message.

    It returns the one result, or NOTHING, and raises EvaluationError where jq would fail. `evaluate` is the compiled
    function itself, which is faster to call in a loop.

    variables: the names of the variables that the expression has. reads_body: whether the value matters. It does not to
    an expression of variables and literals only, such as `$key == "a"` or `"a"`, which so has a result for a message
    that is not JSON.
    """

    __slots__ = ("_regex", "_tree", "evaluate", "reads_body", "text", "variables")

    def __init__(self, text: str, tree: Node, regex: bool) -> None:
        self.text, self._tree, self._regex = text, tree, regex
        self.evaluate: Evaluate = compile_node(text, tree, regex=regex)
        self.variables = variables_in(tree)
        self.reads_body = _reads_input(tree)

    def __call__(self, value: Any, variables: Sequence[Any] = NO_VARIABLES, /) -> Any:
        return self.evaluate(value, variables)

    def __repr__(self) -> str:
        return f"<Expression {self.text}>"

    @property
    def is_modest(self) -> bool:
        """Whether the size of a result is limited to a small multiple of the size of the input."""
        return cost(self._tree).size <= MODEST_SIZE

    @property
    def equalities(self) -> tuple[tuple[Path, Scalar], ...]:
        """Equalities without which the result cannot be true: (("a", "b"), 1) for `.a.b == 1 and …`.

        A missing path counts as null; True is not 1, though they are equal in Python.
        """
        return tuple(_equalities(self._tree))

    @property
    def parts(self) -> tuple[tuple[str, Evaluate], ...]:
        """The conditions that `and`, `or` and `not` join at the top level, each with its text; at least one."""
        return tuple(
            (self.text[node.start : node.end], compile_node(self.text, node, regex=self._regex))
            for node in _leaves(self._tree)
        )


def _leaves(node: Node) -> Iterator[Node]:
    if isinstance(node, Many) and node.kind in ("and", "or"):
        for item in node.items:
            yield from _leaves(item)
    elif isinstance(node, Many) and node.kind == "|" and len(node.items) == 2 and _is_not(node.items[1]):
        yield from _leaves(node.items[0])
    else:
        yield node


def _reads_input(node: Node) -> bool:
    """Whether the result of a node may depend on its input, and not on variables and literals only."""
    if isinstance(node, Identity):
        return True
    if isinstance(node, Call):
        return node.name != "empty"
    if isinstance(node, Many) and node.kind == "|":
        for item in node.items[:-1]:
            if not (isinstance(item, Call) and item.name == "select"):
                return _reads_input(item)
            if _reads_input(item.arguments[0]):
                return True
        return _reads_input(node.items[-1])  # all before it are selects, which pass the input on
    return any(map(_reads_input, node.children()))


def _is_not(node: Node) -> bool:
    return isinstance(node, Call) and node.name == "not"


def _equalities(node: Node) -> Iterator[tuple[Path, Scalar]]:
    if isinstance(node, Many) and node.kind == "and":
        for item in node.items:
            yield from _equalities(item)
    elif isinstance(node, Many) and node.kind == "|":
        # The items behind a select are evaluated only if it lets the whole value pass.
        if isinstance(node.items[0], Call):
            yield from _equalities(node.items[0])
    elif isinstance(node, Call) and node.name == "select":
        yield from _equalities(node.arguments[0])
    elif isinstance(node, Binary) and node.operator == "==":
        for side, other in ((node.left, node.right), (node.right, node.left)):
            path = _path(side)
            if path is not None and isinstance(other, Literal):
                yield path, other.value


def _path(node: Node) -> Path | None:
    if isinstance(node, Identity):
        return ()
    if isinstance(node, Index) and isinstance(node.key, Literal) and isinstance(node.key.value, str):
        before = _path(node.base)
        return None if before is None else (*before, node.key.value)
    return None


def compile_expression(text: str, *, regex: bool = True) -> Expression:
    """Compile `text`. regex: whether test(…) is allowed; it is not in expressions from clients of the gateway.

    Raises ExpressionError with the column, and what was expected there.
    """
    return Expression(text, parse(text), regex)
