"""The filter language's compiler: a tree in, one Python function out.

The function takes a parsed value, and the variables of its message as a tuple; it returns the one result, or NOTHING.
This module generates its Python source, which is compiled once: `.type == "purchase" and .amount > 100` becomes a dozen
bytecodes, without a call of a function, and `$key` an index of the tuple. A subtree whose NOTHING or whose errors are
caught (by `//`, `[…]`, `any`, `all`, `(…)?`) becomes a separate function, so that everywhere else NOTHING is a plain
`return`.

The source never contains a word of the user's text: only numbered names and fragments from this file. Literals are in a
table of constants that is passed to the compiled code. Nothing else is evaluated, and dict.get is the only attribute of
a value that is used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from qtools.errors import EvaluationError, ExpressionError
from qtools.expressions import functions as words
from qtools.expressions import values
from qtools.expressions.cost import MOST, cost
from qtools.expressions.regex import check_flags, compile_pattern
from qtools.expressions.syntax_tree import (
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

# Nested blocks, after which the rest becomes a separate function; Python allows 100.
MAX_INDENT = 12

ORDER = {"==": "equal", "!=": "unequal", "<": "less", "<=": "less_or_equal", ">": "greater", ">=": "greater_or_equal"}
ARITHMETIC = {"+": "add", "-": "subtract", "*": "multiply", "/": "divide", "%": "remainder"}
# Comparisons of numbers. They put NaN before all numbers, as jq does.
QUICK = {"<": "not {0} >= {1}", "<=": "not {0} > {1}", ">": "{0} > {1}", ">=": "{0} >= {1}"}
BOOLEAN_CALLS = frozenset(["not", "test", "startswith", "endswith", "contains", "has", "in", "inside", "any", "all"])
TOO_DEEP = "a value is nested too deeply, or a number is too large"

NO_VARIABLES: tuple[Any, ...] = tuple({} if name == "headers" else None for name in VARIABLES)
"""The variables of a message that has only a body."""


class Evaluate(Protocol):
    def __call__(self, value: Any, variables: Sequence[Any] = NO_VARIABLES, /) -> Any:
        """The result for a parsed value; variables: those of its message, in the order of VARIABLES."""


def is_boolean(node: Node) -> bool:
    """Whether a node yields true or false for every input."""
    if isinstance(node, Literal):
        return node.value is True or node.value is False
    if isinstance(node, Many):
        return node.kind in ("and", "or") or (node.kind == "|" and is_boolean(node.items[-1]))
    if isinstance(node, Binary):
        return node.operator in ORDER
    return isinstance(node, Call) and node.name in BOOLEAN_CALLS


def variables_in(node: Node) -> frozenset[str]:
    """The names of the variables in a node and its children."""
    if isinstance(node, Variable):
        return frozenset((node.name,))
    return frozenset().union(*map(variables_in, node.children()))


def may_be_nothing(node: Node) -> bool:
    if isinstance(node, Call) and node.name in ("any", "all"):
        return False
    if isinstance(node, Many) and node.kind == "[":
        return False
    if isinstance(node, Many) and node.kind == "//":
        return may_be_nothing(node.items[-1])
    if isinstance(node, Call) and node.name in ("select", "empty"):
        return True
    if isinstance(node, Unary) and node.kind == "?":
        return True
    if isinstance(node, Index | Slice) and node.optional:
        return True
    return any(map(may_be_nothing, node.children()))


class Writer:
    """Writes the functions of one expression. Each method that takes a node and the name of its input writes the lines
    that compute its result, and returns the name of the result."""

    def __init__(self, text: str, regex: bool) -> None:
        self.text, self.regex = text, regex
        self.constants: dict[str, Any] = {}
        self.functions: list[str] = []
        self.lines: list[str] = []
        self.indent = 1
        self.names = 0

    # ── writing ──

    def name(self, letter: str = "t") -> str:
        self.names += 1
        return f"{letter}{self.names}"

    def line(self, line: str) -> None:
        self.lines.append(" " * self.indent + line)

    def let(self, made: str) -> str:
        name = self.name()
        self.line(f"{name} = {made}")
        return name

    def constant(self, value: Any) -> str:
        if value is None or value is True or value is False:
            return repr(value)
        name = self.name("k")
        self.constants[name] = value
        return name

    def function(self, node: Node) -> str:
        """Write a separate function for `node`, and return its name. It takes the input, and the variables if it uses
        any."""
        lines, indent = self.lines, self.indent
        self.lines, self.indent = [], 1
        result = self.value(node, "v")
        name = self.name("f")
        takes = "v, m" if variables_in(node) else "v"
        self.functions.append("\n".join([f"def {name}({takes}):", *self.lines, f" return {result}"]))
        self.lines, self.indent = lines, indent
        return name

    def result(self, node: Node, given: str) -> str:
        """A call of a separate function for `node`."""
        return f"{self.function(node)}({given}{', m' if variables_in(node) else ''})"

    def truth(self, node: Node, name: str) -> str:
        return name if is_boolean(node) else f"({name} is not None and {name} is not False)"

    # ── nodes ──

    def value(self, node: Node, given: str) -> str:
        if self.indent > MAX_INDENT and not isinstance(node, Literal | Identity | Variable):
            name = self.let(self.result(node, given))
            if may_be_nothing(node):
                self.line(f"if {name} is NOTHING: return NOTHING")
            return name
        if isinstance(node, Literal):
            return self.constant(node.value)
        if isinstance(node, Identity):
            return given
        if isinstance(node, Variable):
            return f"m[{self.constant(VARIABLES.index(node.name))}]"
        if isinstance(node, Index):
            return self.index(node, given)
        if isinstance(node, Slice):
            return self.slice(node, given)
        if isinstance(node, Many):
            return {"|": self.pipe, "//": self.alternatives, "[": self.array}.get(node.kind, self.logic)(node, given)
        if isinstance(node, Binary):
            return self.binary(node, given)
        if isinstance(node, Unary):
            return self.unary(node, given)
        if isinstance(node, Object):
            return self.object(node, given)
        if isinstance(node, Text):
            # jq evaluates the last part first, and so raises its error if two parts fail.
            made = [part if isinstance(part, str) else self.value(part, given) for part in reversed(node.parts)]
            pieces = [
                self.constant(part) if isinstance(part, str) else name
                for part, name in zip(node.parts, reversed(made), strict=True)
            ]
            return self.let(f"joined(({', '.join(pieces)},))")
        if isinstance(node, If):
            return self.condition(node, given)
        assert isinstance(node, Call)
        return self.call(node, given)

    def index(self, node: Index, given: str) -> str:
        key = self.value(node.key, given)
        base = self.value(node.base, given)
        if node.optional:
            return self.guarded(f"index({base}, {key})")
        if isinstance(node.key, Literal) and isinstance(node.key.value, str):
            return self.let(f"{base}.get({key}) if {base}.__class__ is dict else index({base}, {key})")
        return self.let(f"index({base}, {key})")

    def slice(self, node: Slice, given: str) -> str:
        first, last, base = (self.value(part, given) for part in (node.first, node.last, node.base))
        made = f"cut({base}, {first}, {last})"
        return self.guarded(made) if node.optional else self.let(made)

    def guarded(self, made: str) -> str:
        name = self.name()
        self.line(f"try: {name} = {made}")
        self.line("except EvaluationError: return NOTHING")
        return name

    def pipe(self, node: Many, given: str) -> str:
        for stage in node.items:
            given = self.value(stage, given)
        return given

    def logic(self, node: Many, given: str) -> str:
        result = self.name()
        ahead = f"if {result}:" if node.kind == "and" else f"if not {result}:"
        for place, item in enumerate(node.items):
            if place:
                self.line(ahead)
                self.indent += 1
            self.line(f"{result} = {self.truth(item, self.value(item, given))}")
            if place:
                self.indent -= 1
        return result

    def alternatives(self, node: Many, given: str) -> str:
        result = self.name()
        *tried, last = node.items
        for place, item in enumerate(tried):
            if place:
                self.line(f"if {result} is None:")
                self.indent += 1
            made = self.result(item, given) if may_be_nothing(item) else self.value(item, given)
            self.line(f"{result} = {made}")
            self.line(f"if {result} is False or {result} is NOTHING: {result} = None")
            if place:
                self.indent -= 1
        self.line(f"if {result} is None:")
        self.indent += 1
        self.line(f"{result} = {self.value(last, given)}")
        self.indent -= 1
        return result

    def array(self, node: Many, given: str) -> str:
        if not any(map(may_be_nothing, node.items)):
            return self.let(f"[{', '.join([self.value(item, given) for item in node.items])}]")
        result = self.let("[]")
        for item in node.items:
            if may_be_nothing(item):
                name = self.let(self.result(item, given))
                self.line(f"if {name} is not NOTHING: {result}.append({name})")
            else:
                self.line(f"{result}.append({self.value(item, given)})")
        return result

    def object(self, node: Object, given: str) -> str:
        result = self.let("{}")
        for key, value in node.pairs:
            name = self.value(key, given)
            made = self.value(value, given)
            fixed = isinstance(key, Text) or (isinstance(key, Literal) and isinstance(key.value, str))
            self.line(f"{result}[{name if fixed else f'key_of({name})'}] = {made}")
        return result

    def binary(self, node: Binary, given: str) -> str:
        # jq evaluates the right side first.
        right = self.value(node.right, given)
        left = self.value(node.left, given)
        operator, literal = node.operator, node.right.value if isinstance(node.right, Literal) else node
        if operator in ("==", "!="):
            if literal is None or literal is True or literal is False:
                return self.let(f"{left} is {'not ' * (operator == '!=')}{right}")
            if isinstance(literal, str):
                return self.let(f"{left} {operator} {right}")
            if isinstance(literal, int | float):
                same = f"{left} == {right} and {left} is not True and {left} is not False"
                return self.let(same if operator == "==" else f"not ({same})")
        if operator in QUICK and isinstance(literal, int | float) and not isinstance(literal, bool):
            quick = QUICK[operator].format(left, right)
            kind = f"{left}.__class__"
            return self.let(f"{quick} if {kind} is int or {kind} is float else {ORDER[operator]}({left}, {right})")
        return self.let(f"{ORDER.get(operator) or ARITHMETIC[operator]}({left}, {right})")

    def unary(self, node: Unary, given: str) -> str:
        if node.kind == "-":
            return self.let(f"negate({self.value(node.of, given)})")
        name = self.guarded(self.result(node.of, given))
        self.line(f"if {name} is NOTHING: return NOTHING")
        return name

    def condition(self, node: If, given: str) -> str:
        result = self.name()
        start = self.indent
        otherwise = node.otherwise
        for place, (when, then) in enumerate(node.branches):
            if self.indent > MAX_INDENT and place:
                otherwise = If(when.start, node.end, node.branches[place:], otherwise)
                break
            met = self.truth(when, self.value(when, given))
            self.line(f"if {met}:")
            self.indent += 1
            self.line(f"{result} = {self.value(then, given)}")
            self.indent -= 1
            self.line("else:")
            self.indent += 1
        self.line(f"{result} = {self.value(otherwise, given)}")
        self.indent = start
        return result

    def call(self, node: Call, given: str) -> str:
        name, arguments = node.name, node.arguments
        if name == "empty":
            self.line("return NOTHING")
            return "NOTHING"
        if name == "not":
            return self.let(f"{given} is None or {given} is False")
        if name == "test":
            return self.let(f"matches({given}, {self.constant(self.pattern(node))})")
        if name in ("any", "all"):
            test = self.function(arguments[0]) if arguments else "None"
            if arguments and variables_in(arguments[0]):
                test = f"lambda v: {test}(v, m)"
            return self.let(f"{name}_of({given}, {test})")
        if not arguments:
            return self.let(f"{ {'type': 'kind', 'tostring': 'text'}.get(name, name) }({given})")
        made = self.value(arguments[0], given)
        if name == "select":
            self.line(f"if not {self.truth(arguments[0], made)}: return NOTHING")
            return given
        if name in ("in", "inside"):
            return self.let(f"{'has' if name == 'in' else 'contains'}({made}, {given})")
        return self.let(f"{name}({given}, {made})")

    def pattern(self, node: Call) -> Callable[[str], Any]:
        if not self.regex:
            raise ExpressionError(
                self.text, node.start + 1, "test(…) is not allowed here: use startswith, endswith or contains"
            )
        pattern, *flags = node.arguments
        for part in node.arguments:
            if not isinstance(part, Literal) or not isinstance(
                part.value, str | (type(None) if part is not pattern else str)
            ):
                raise ExpressionError(self.text, part.start + 1, 'test takes text in quotes, as in test("^a"; "i")')
        assert isinstance(pattern, Literal)
        mode = flags[0].value or "" if flags and isinstance(flags[0], Literal) else ""
        try:
            check_flags(mode)
        except ValueError as error:
            raise ExpressionError(self.text, flags[0].start + 1, str(error)) from None
        try:
            return compile_pattern(pattern.value, mode)
        except ValueError as error:
            raise ExpressionError(self.text, pattern.start + 1, f"in this pattern, {error}") from None
        except ImportError as error:
            raise ExpressionError(self.text, node.start + 1, str(error)) from error


def compile_node(text: str, node: Node, *, regex: bool = True) -> Evaluate:
    """Compile `node`, a part of `text`, to a function. Raises ExpressionError."""
    if any(has > most for has, most in zip(cost(node), MOST, strict=True)):
        raise ExpressionError(text, node.start + 1, "this makes too much of its input, by doubling it again and again")
    writer = Writer(text, regex)
    result = writer.value(node, "v")
    body = [" try:", *(" " + line for line in writer.lines), f"  return {result}"]
    body.append(" except (RecursionError, OverflowError, ValueError): raise EvaluationError(TOO_DEEP) from None")
    source = "\n".join([*writer.functions, "def evaluate(v, m=NO_VARIABLES):", *body])
    names = {name: thing for room in (values, words) for name, thing in vars(room).items() if callable(thing)}
    names |= writer.constants | {
        "NOTHING": values.NOTHING, "NO_VARIABLES": NO_VARIABLES, "EvaluationError": EvaluationError,
        "TOO_DEEP": TOO_DEEP, "__builtins__": {},
        "dict": dict, "int": int, "float": float,
        "RecursionError": RecursionError, "OverflowError": OverflowError, "ValueError": ValueError,
    }  # fmt: skip
    exec(compile(source, "<expression>", "exec"), names)
    evaluate: Evaluate = names["evaluate"]
    return evaluate
