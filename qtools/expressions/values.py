"""JSON values as in jq: their kinds, their text, their order; and limits of their size.

In: values of Python (None, bool, int, float, str, list, dict). Out: text, comparisons, and EvaluationError with jq's
texts. Integers are exact up to the range of a double, where jq rounds above 2^53.

The functions and operators of the language are in functions.py. No function changes a value.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from json.encoder import ESCAPE
from typing import Any

from qtools.errors import EvaluationError

# Far above any message (nsqd's limit is 1 MiB), and far below what would exhaust the memory.
MAX_TEXT = 16 * 1024 * 1024  # characters
MAX_ITEMS = 1 << 20  # items of an array
MAX_STEPS = 1 << 20  # comparisons of all items of two values with each other: about a second
# Integers up to this are exact; larger numbers are infinite, as a double would be.
MAX_INTEGER = 1 << 1023
LARGEST = 1.7976931348623157e308


class Nothing:
    """The type of NOTHING."""

    def __repr__(self) -> str:
        return "NOTHING"

    def __bool__(self) -> bool:
        return False


NOTHING = Nothing()
"""The result of an expression whose `select(…)` did not let the value pass: no value, which is not null."""

KINDS = {
    type(None): "null",
    bool: "boolean",
    int: "number",
    float: "number",
    str: "string",
    list: "array",
    dict: "object",
}


def kind(value: Any) -> str:
    """jq's `type`."""
    return KINDS[value.__class__]


def is_number(value: Any) -> bool:
    return value.__class__ is int or value.__class__ is float


class StepLimit:
    """Counts steps, and raises EvaluationError after MAX_STEPS."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = MAX_STEPS

    def take(self, count: int = 1) -> None:
        self.left -= count
        if self.left < 0:
            raise EvaluationError("comparing each with each takes too long: these values are too large for it")


# ── as text ──

# jq escapes DEL, Python's json module does not.
_ESCAPES = {**{chr(code): f"\\u{code:04x}" for code in (*range(0x20), 0x7F)}, '"': '\\"', "\\": "\\\\"}
_ESCAPES |= {"\n": "\\n", "\r": "\\r", "\t": "\\t", "\f": "\\f", "\b": "\\b"}
_ESCAPED = re.compile(ESCAPE.pattern.replace("\\x00-\\x1f", "\\x00-\\x1f\\x7f"))


def quoted(text: str) -> str:
    return '"' + _ESCAPED.sub(lambda found: _ESCAPES[found[0]], text) + '"'


def number_text(number: int | float) -> str:
    """The shortest decimal that is read back as `number`; null for NaN, which JSON does not have."""
    if number.__class__ is int:
        return str(number)
    if number != number:
        return "null"
    if math.isinf(number):
        number = math.copysign(LARGEST, number)
    shortest = repr(number)
    digits, _, exponent = shortest.partition("e+")
    if exponent:
        # jq writes up to 15 zeros where Python writes an exponent.
        before, _, after = digits.lstrip("-").partition(".")
        zeros = int(exponent) - len(after)
        if zeros < 15:
            return "-" * (number < 0) + before + after + "0" * zeros
    return shortest


def _write(value: Any, out: list[str], room: list[int]) -> None:
    cls = value.__class__
    if cls is str:
        piece = quoted(value)
        out.append(piece)
        room[0] -= len(piece)
    elif value is None:
        out.append("null")
    elif cls is bool:
        out.append("true" if value else "false")
    elif cls is list:
        lead = "["
        for item in value:
            out.append(lead)
            _write(item, out, room)
            lead = ","
        out.append("]" if value else "[]")
    elif cls is dict:
        lead = "{"
        for key, item in value.items():
            out.append(f"{lead}{quoted(key)}:")
            _write(item, out, room)
            lead = ","
            room[0] -= len(key)
        out.append("}" if value else "{}")
    else:
        out.append(number_text(value))
    room[0] -= 4
    if room[0] < 0:
        raise EvaluationError("the text made of a value is too long")


def dump(value: Any) -> str:
    """Compact JSON, as jq's tostring writes it."""
    out: list[str] = []
    _write(value, out, [MAX_TEXT])
    return "".join(out)


def text(value: Any) -> str:
    """jq's `tostring`."""
    return value if value.__class__ is str else dump(value)


def joined(pieces: Iterable[Any]) -> str:
    """The result of a string interpolation."""
    return bounded("".join([piece if piece.__class__ is str else dump(piece) for piece in pieces]))


def bounded(made: str) -> str:
    if len(made) > MAX_TEXT:
        raise EvaluationError("the text made of a value is too long")
    return made


def shown(value: Any) -> str:
    """`kind (value)`, with the value cut to 29 bytes, as in jq's error messages."""
    whole = dump(value[:30] if value.__class__ is str else value)
    raw = whole.encode("utf-8", "replace")
    if len(raw) > 29:
        end = {'"': '"', "[": "]", "{": "}"}.get(whole[0], "")
        whole = raw[: 25 if end else 26].decode("utf-8", "ignore") + "..." + end
    return f"{kind(value)} ({whole})"


def refuse(left: Any, right: Any, why: str) -> EvaluationError:
    return EvaluationError(f"{shown(left)} and {shown(right)} {why}")


# ── order and equality ──


def rank(value: Any) -> int:
    """The place of a value's type in jq's order: null, false, true, numbers, strings, arrays, objects."""
    if value.__class__ is bool:
        return 2 if value else 1
    return {"null": 0, "number": 3, "string": 4, "array": 5, "object": 6}[kind(value)]


def equal(left: Any, right: Any) -> bool:
    if left is right:  # shared parts are not compared again
        return left.__class__ is not float or bool(left == left)
    ours, theirs = left.__class__, right.__class__
    if ours is str or theirs is str or left is None or right is None:
        return bool(left == right)
    if ours is bool or theirs is bool:
        return False  # equal booleans are the same object
    if ours is not list and ours is not dict:
        return bool(left == right)
    if ours is not theirs or len(left) != len(right):
        return False
    try:
        if ours is list:
            return all(map(equal, left, right))
        return all(key in right and equal(item, right[key]) for key, item in left.items())
    except RecursionError:
        return _equal_inside(left, right)


def _equal_inside(left: Any, right: Any) -> bool:
    """`equal` for two arrays or two objects of the same length that are nested too deeply for recursion: it keeps a
    list of the pairs that are left to compare."""
    waiting = [(left, right)]
    while waiting:
        left, right = waiting.pop()
        pairs: Iterable[tuple[Any, Any]]
        if left.__class__ is list:
            pairs = zip(left, right, strict=True)
        elif left.keys() == right.keys():
            pairs = [(item, right[key]) for key, item in left.items()]
        else:
            return False
        for one, other in pairs:
            cls = one.__class__
            if (cls is list or cls is dict) and one is not other:
                if other.__class__ is not cls or len(one) != len(other):
                    return False
                waiting.append((one, other))
            elif not equal(one, other):
                return False
    return True


def unequal(left: Any, right: Any) -> bool:
    return not equal(left, right)


def compare(left: Any, right: Any) -> int:
    """A number below 0, 0, or above 0, as `left` is less than, equal to or greater than `right` in jq's order."""
    if left is right and left.__class__ is not float:
        return 0
    place = rank(left)
    if place != (other := rank(right)):
        return place - other
    if place == 3:
        # NaN is less than all numbers, itself included.
        return -1 if left != left or left < right else int(left > right or right != right)
    if place == 4:
        # By code point, which is the order of the bytes in UTF-8.
        return -1 if left < right else int(left > right)
    if place < 5:
        return 0
    try:
        pairs, otherwise = _pairs(left, right)
        for ours, theirs in pairs:
            if found := compare(ours, theirs):
                return found
        return otherwise
    except RecursionError:
        return _compare_inside(left, right)


def _compare_inside(left: Any, right: Any) -> int:
    """`compare` for two arrays or two objects that are nested too deeply for recursion: it keeps a list of the pairs
    that are left to compare, each with the result if no pair differs."""
    waiting = [_pairs(left, right)]
    while waiting:
        pairs, otherwise = waiting[-1]
        for ours, theirs in pairs:
            cls = ours.__class__
            if (cls is list or cls is dict) and cls is theirs.__class__ and ours is not theirs:
                waiting.append(_pairs(ours, theirs))
                break
            if found := compare(ours, theirs):
                return found
        else:
            if otherwise:
                return otherwise
            waiting.pop()
    return 0


def _pairs(left: Any, right: Any) -> tuple[Iterator[tuple[Any, Any]], int]:
    """The pairs by which two arrays or two objects are compared, and the result if no pair differs."""
    if left.__class__ is list:
        return zip(left, right, strict=False), len(left) - len(right)
    names, others = sorted(left), sorted(right)
    if names != others:
        return iter(()), -1 if names < others else 1
    return iter([(left[name], right[name]) for name in names]), 0


def less(left: Any, right: Any) -> bool:
    return compare(left, right) < 0


def less_or_equal(left: Any, right: Any) -> bool:
    return compare(left, right) <= 0


def greater(left: Any, right: Any) -> bool:
    return compare(left, right) > 0


def greater_or_equal(left: Any, right: Any) -> bool:
    return compare(left, right) >= 0
