"""The functions and operators of the filter language; each has the same result as jq's.

In and out: JSON values. Where jq fails, EvaluationError is raised with jq's text. For any values, texts are limited to
MAX_TEXT, arrays to MAX_ITEMS, and comparisons of all items with each other to MAX_STEPS.

No function changes its arguments, so a result may share parts with its input.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from typing import Any

from qtools.errors import EvaluationError
from qtools.expressions.values import (
    MAX_INTEGER,
    MAX_ITEMS,
    MAX_STEPS,
    MAX_TEXT,
    NOTHING,
    StepLimit,
    bounded,
    dump,
    equal,
    is_number,
    kind,
    rank,
    refuse,
    shown,
)

NO_SLICE = "Array/string slice indices must be integers"

# ── arithmetic ──


def number(result: int | float) -> int | float:
    """A result of arithmetic: a whole number is an integer, a number beyond the range of a double is infinite."""
    if result.__class__ is float:
        return int(result) if -1e17 < result < 1e17 and result == int(result) else result
    if -MAX_INTEGER < result < MAX_INTEGER:
        return result
    return math.inf if result > 0 else -math.inf


def add(left: Any, right: Any) -> Any:
    if left is None:
        return right
    if right is None:
        return left
    if is_number(left) and is_number(right):
        return number(left + right)
    cls = left.__class__
    if cls is not right.__class__ or cls is bool:
        raise refuse(left, right, "cannot be added")
    if cls is str:
        return bounded(left + right)
    if cls is list:
        if len(left) + len(right) > MAX_ITEMS:
            raise EvaluationError("the array made of two is too long")
        return left + right
    return {**left, **right}


def same(left: Any, right: Any, steps: StepLimit) -> bool:
    """`equal`, with its comparisons counted."""
    steps.take()
    cls = left.__class__
    if cls is list and right.__class__ is list:
        return len(left) == len(right) and all(same(*both, steps) for both in zip(left, right, strict=True))
    if cls is dict and right.__class__ is dict:
        return len(left) == len(right) and all(key in right and same(left[key], right[key], steps) for key in left)
    if cls is str:
        steps.take(len(left) >> 10)
    return equal(left, right)


def subtract(left: Any, right: Any) -> Any:
    if is_number(left) and is_number(right):
        return number(left - right)
    if left.__class__ is not list or right.__class__ is not list:
        raise refuse(left, right, "cannot be subtracted")
    steps, kept = StepLimit(), []
    for item in left:
        steps.take()
        if not any(same(item, other, steps) for other in right):
            kept.append(item)
    return kept


def multiply(left: Any, right: Any) -> Any:
    ours, theirs = left.__class__, right.__class__
    if is_number(left) and is_number(right):
        return number(left * right)
    if (ours is str and is_number(right)) or (is_number(left) and theirs is str):
        word, times = (left, right) if ours is str else (right, left)
        if not times >= 0:
            return None
        if len(word) * times > MAX_TEXT:
            raise EvaluationError("Repeat string result too long")
        return word * int(times) if word else ""
    if ours is dict and theirs is dict:
        return merge(left, right)
    raise refuse(left, right, "cannot be multiplied")


def merge(left: dict[str, Any], right: dict[str, Any]) -> dict[str, Any]:
    made = dict(left)
    for key, item in right.items():
        under = made.get(key)
        made[key] = merge(under, item) if under.__class__ is dict and item.__class__ is dict else item
    return made


def divide(left: Any, right: Any) -> Any:
    if is_number(left) and is_number(right):
        if right == 0:
            raise refuse(left, right, "cannot be divided because the divisor is zero")
        if left.__class__ is int and right.__class__ is int and left % right == 0:
            return left // right
        return number(left / right)
    if left.__class__ is str and right.__class__ is str:
        return split(left, right)
    raise refuse(left, right, "cannot be divided")


def whole(value: int | float) -> int:
    """An operand of `%` as an integer: cut towards zero; a double is limited to the range of 64 bits, as in C."""
    if value.__class__ is int:
        return value
    return (1 << 63) - 1 if value >= 2.0**63 else -(1 << 63) if value <= -(2.0**63) else int(value)


def remainder(left: Any, right: Any) -> Any:
    if not (is_number(left) and is_number(right)):
        raise refuse(left, right, "cannot be divided (remainder)")
    if left != left or right != right:
        return math.nan
    under = whole(right)
    if under == 0:
        raise refuse(left, right, "cannot be divided (remainder) because the divisor is zero")
    over = whole(left)
    rest = abs(over) % abs(under)
    return -rest if over < 0 else rest


def negate(value: Any) -> Any:
    if not is_number(value):
        raise EvaluationError(f"{shown(value)} cannot be negated")
    return -value


# ── parts of values ──


def index(value: Any, key: Any) -> Any:
    ours, theirs = value.__class__, key.__class__
    if ours is dict and theirs is str:
        return value.get(key)
    if ours is list and is_number(key):
        if key != key or abs(key) > MAX_STEPS * 1024:
            return None
        place = int(key)
        return value[place] if -len(value) <= place < len(value) else None
    if value is None and (theirs is str or is_number(key) or theirs is dict):
        return None
    if (ours is list or ours is str) and theirs is dict:
        if "start" not in key or "end" not in key:
            raise EvaluationError(NO_SLICE)
        return cut(value, key["start"], key["end"])
    if ours is list and theirs is list:
        return places(value, key)
    raise EvaluationError(f"Cannot index {kind(value)} with {shown(key)}")


def cut(value: Any, start: Any, end: Any) -> Any:
    """`value[start:end]`; null is the beginning or the end. Fractions are rounded so that the slice becomes larger."""
    if value is None:
        return None
    if value.__class__ is not list and value.__class__ is not str:
        raise EvaluationError(f"Cannot index {kind(value)} with {shown({'start': start, 'end': end})}")
    size = len(value)
    first, last = (0 if start is None else start), (size if end is None else end)
    if not (is_number(first) and is_number(last)):
        raise EvaluationError(NO_SLICE)
    if last != last:
        last = size
    first, last = (bound + size if bound < 0 else bound for bound in (first, last))
    return value[math.floor(min(size, max(0, first))) : math.ceil(min(size, max(0, last)))]


def places(value: list[Any], part: list[Any]) -> list[int]:
    """The indices at which `part` occurs in `value`."""
    if not part:
        return []
    steps = StepLimit()
    return [
        place
        for place in range(len(value))
        if len(value) - place >= len(part)
        and all(same(value[place + nth], item, steps) for nth, item in enumerate(part))
    ]


def has(value: Any, key: Any) -> bool:
    if value is None:
        return False
    if value.__class__ is dict and key.__class__ is str:
        return key in value
    if value.__class__ is list and is_number(key):
        return bool(-1 < key < len(value)) and int(key) < len(value)
    raise EvaluationError(f"Cannot check whether {kind(value)} has a {kind(key)} key")


def contains(value: Any, part: Any) -> bool:
    if rank(value) != rank(part):
        raise refuse(value, part, "cannot have their containment checked")
    return _contains(value, part, StepLimit())


def _contains(value: Any, part: Any, steps: StepLimit) -> bool:
    steps.take()
    cls = value.__class__
    if cls is not part.__class__:
        return is_number(value) and is_number(part) and bool(value == part)
    if cls is dict:
        return all(key in value and _contains(value[key], item, steps) for key, item in part.items())
    if cls is list:
        return all(any(_contains(ours, item, steps) for ours in value) for item in part)
    if cls is str:
        steps.take(len(value) >> 10)
        return part in value
    return bool(value == part)


def each(value: Any) -> Iterable[Any]:
    if value.__class__ is list:
        return value
    if value.__class__ is dict:
        return value.values()
    raise EvaluationError(f"Cannot iterate over {shown(value)}")


def any_of(value: Any, test: Callable[[Any], Any] | None) -> bool:
    for item in each(value):
        found = item if test is None else test(item)
        if found is not None and found is not False and found is not NOTHING:
            return True
    return False


def all_of(value: Any, test: Callable[[Any], Any] | None) -> bool:
    for item in each(value):
        found = item if test is None else test(item)
        if found is None or found is False:
            return False
    return True


def key_of(value: Any) -> str:
    """`value` as the key of an object; EvaluationError if it is not a string."""
    if value.__class__ is not str:
        raise EvaluationError(f"Cannot use {shown(value)} as object key")
    return value


# ── the functions ──


def length(value: Any) -> Any:
    if is_number(value):
        return abs(value)
    if value is None:
        return 0
    if value.__class__ is bool:
        raise EvaluationError(f"{shown(value)} has no length")
    return len(value)


def keys(value: Any) -> Any:
    if value.__class__ is dict:
        return sorted(value)
    if value.__class__ is list:
        return list(range(len(value)))
    raise EvaluationError(f"{shown(value)} has no keys")


_DOWN = {code: code + 32 for code in range(65, 91)}
_UP = {code: code - 32 for code in range(97, 123)}


def ascii_downcase(value: Any) -> str:
    if value.__class__ is not str:
        raise EvaluationError("explode input must be a string")
    return value.translate(_DOWN)


def ascii_upcase(value: Any) -> str:
    if value.__class__ is not str:
        raise EvaluationError("explode input must be a string")
    return value.translate(_UP)


_NUMBER = re.compile(
    r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|[+-]?(?:nan|inf(?:inity)?)", re.I | re.A
)
_INTEGER = re.compile(r"([+-]?[0-9]{1,308})\.?", re.A)


def tonumber(value: Any) -> Any:
    if is_number(value):
        return value
    if value.__class__ is not str or not _NUMBER.fullmatch(value):
        raise EvaluationError(f"{shown(value)} cannot be parsed as a number")
    whole_number = _INTEGER.fullmatch(value)
    return int(whole_number[1]) if whole_number else float(value)


def startswith(value: Any, part: Any) -> bool:
    if value.__class__ is not str or part.__class__ is not str:
        raise EvaluationError("startswith() requires string inputs")
    return bool(value.startswith(part))


def endswith(value: Any, part: Any) -> bool:
    if value.__class__ is not str or part.__class__ is not str:
        raise EvaluationError("endswith() requires string inputs")
    return bool(value.endswith(part))


def split(value: Any, separator: Any) -> list[str]:
    if value.__class__ is not str or separator.__class__ is not str:
        raise EvaluationError("split input and separator must be strings")
    if not value:
        return []
    if len(value) > MAX_ITEMS and (not separator or value.count(separator) >= MAX_ITEMS):
        raise EvaluationError("the array made by a split is too long")
    return value.split(separator) if separator else list(value)


def join(value: Any, separator: Any) -> str:
    made: list[str] = []
    size = 0
    for item in each(value):
        if made:
            # jq adds the separator to the text with `+`: null adds nothing, and other kinds are an error.
            if separator.__class__ is not str and separator is not None:
                raise refuse("".join(made), separator, "cannot be added")
            made.append(separator or "")
        cls = item.__class__
        if cls is list or cls is dict:
            raise refuse("".join(made), item, "cannot be added")
        made.append(item if cls is str else "" if item is None else dump(item))
        size += len(made[-1]) + (len(separator) if separator.__class__ is str else 0)
        if size > MAX_TEXT:
            raise EvaluationError("the text made of a value is too long")
    return "".join(made)


def matches(value: Any, search: Callable[[str], Any]) -> bool:
    """jq's `test`. search: from regex.compile_pattern."""
    if value.__class__ is not str:
        raise EvaluationError(f"{shown(value)} cannot be matched, as it is not a string")
    return search(value) is not None
