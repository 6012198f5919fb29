"""Which conditions can be true for a message, without evaluating all. In: conditions, a value. Out: their numbers.

A condition that begins by comparing a field with a scalar, such as `.type == "purchase" and …`, is false for every
other value of that field. So for each field with which several conditions begin, one lookup of its value finds those
that can be true. The result is the same as if all were evaluated: a condition is left out only if its first comparison
is false, and not if that comparison is an error.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from qtools.expressions.expression import Expression, Path, Scalar, compile_expression

MIN_SHARED = 2  # conditions that begin with the same field: with fewer, a lookup saves nothing
MAX_REMEMBERED = 4096  # combinations of the values of several fields

Key = Any  # of a dict: a string, a number, None, or one of the following
_TRUE, _FALSE, _OTHER, _ERROR = "true", "false", "other", "error"
_KEYS: dict[Any, Key] = {True: (_TRUE,), False: (_FALSE,)}  # tuples, as True == 1 and False == 0 in Python
OTHER = (_OTHER,)  # an array, an object: equal to no scalar
ERROR = (_ERROR,)  # the field cannot be read: the conditions are evaluated, and raise the error


class RouteIndex:
    """An index of `conditions`, which are known by number; None is a condition that is always true."""

    def __init__(self, conditions: Sequence[Expression | None]) -> None:
        first = [_first_equality(condition) for condition in conditions]
        shared = Counter(equality[0] for equality in first if equality is not None)
        paths = [path for path, count in shared.items() if count >= MIN_SHARED]
        self._all = tuple(range(len(conditions)))
        self._getters = [_getter(path) for path in paths]
        # For each condition: the number of its getter, and the key that the getter has to return.
        self._wanted: list[tuple[int, Key] | None] = [
            (paths.index(equality[0]), _key(equality[1])) if equality is not None and equality[0] in paths else None
            for equality in first
        ]
        self._known: list[set[Key]] = [
            {wanted[1] for wanted in self._wanted if wanted is not None and wanted[0] == nth}
            for nth in range(len(paths))
        ]
        self._remembered: dict[Any, tuple[int, ...]] = {}

    def candidates(self, value: Any) -> tuple[int, ...]:
        """The numbers of the conditions that can be true for `value`, or fail."""
        getters = self._getters
        if not getters:
            return self._all
        if len(getters) == 1:
            key = getters[0](value)
            if key not in self._known[0] and key is not ERROR:
                key = OTHER
            keys: Any = key
        else:
            keys = tuple(
                key if (key := getter(value)) in known or key is ERROR else OTHER
                for getter, known in zip(getters, self._known, strict=True)
            )
        found = self._remembered.get(keys)
        return self._remember(keys) if found is None else found

    def _remember(self, keys: Any) -> tuple[int, ...]:
        each = keys if len(self._getters) > 1 else (keys,)
        found = tuple(
            number
            for number, wanted in enumerate(self._wanted)
            if wanted is None or each[wanted[0]] is ERROR or each[wanted[0]] == wanted[1]
        )
        if len(self._remembered) >= MAX_REMEMBERED:
            self._remembered.clear()
        self._remembered[keys] = found
        return found


def _first_equality(condition: Expression | None) -> tuple[Path, Scalar] | None:
    """The first comparison of `condition`, if it compares a field with a scalar."""
    if condition is None or not condition.equalities:
        return None
    text = condition.parts[0][0]
    if "select" in text or "|" in text:  # the part is no single comparison
        return None
    equalities = compile_expression(text).equalities
    return equalities[0] if len(equalities) == 1 and equalities[0] == condition.equalities[0] else None


def _key(value: Any) -> Key:
    """The key of a value in the index."""
    kind = value.__class__
    if kind is str or kind is int or kind is float or value is None:
        return value
    return _KEYS[value] if kind is bool else OTHER


def _getter(path: Path) -> Callable[[Any], Key]:
    """A function that returns the key of the value at `path`; a missing value is null, as in jq."""
    if len(path) == 1:
        (name,) = path

        def get(value: Any) -> Key:
            if value.__class__ is dict:
                found = value.get(name)
                return found if found.__class__ is str else _key(found)
            return None if value is None else ERROR

        return get

    def walk(value: Any) -> Key:
        for name in path:
            if value.__class__ is dict:
                value = value.get(name)
            elif value is not None:
                return ERROR
        return _key(value)

    return walk
