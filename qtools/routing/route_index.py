"""Which conditions can be true for a message, without trying them all. In: conditions, a value. Out: their numbers.

A condition that begins with a field's equality to a scalar, as `.type == "purchase" and …` does, is false for every
other value of that field. So for each field that several conditions begin with, one look at it tells which of them
are left; the others are not called. What remains is as if all had been tried: a condition is left out only where its
first words, the ones that are tried first, are false and not an error.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from qtools.expressions.expression import Expression, Path, Scalar, compile_expression

MIN_SHARED = 2  # conditions that begin with the same field: below that a look at it saves nothing
MAX_REMEMBERED = 4096  # combinations of what several fields hold

Key = Any  # of a dict: a string or number, or one of these
_TRUE, _FALSE, _OTHER, _ERROR = "true", "false", "other", "error"
_KEYS: dict[Any, Key] = {True: (_TRUE,), False: (_FALSE,)}  # apart from 1 and 0, to which Python has them equal
OTHER = (_OTHER,)  # an array, an object: equal to no scalar
ERROR = (_ERROR,)  # the field cannot be asked for: the conditions themselves shall say why


class RouteIndex:
    """`conditions` by number; None is always true."""

    def __init__(self, conditions: Sequence[Expression | None]) -> None:
        first = [_first_equality(condition) for condition in conditions]
        shared = Counter(equality[0] for equality in first if equality is not None)
        paths = [path for path, count in shared.items() if count >= MIN_SHARED]
        self._all = tuple(range(len(conditions)))
        self._getters = [_getter(path) for path in paths]
        # For each condition: which of the getters it hangs on, and what that must give.
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
        """The conditions that can be true for `value`, or fail."""
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
    """What `condition` tries before anything else, if that is a field's equality to a scalar."""
    if condition is None or not condition.equalities:
        return None
    text = condition.parts[0][0]
    if "select" in text or "|" in text:  # there may be more in it
        return None
    equalities = compile_expression(text).equalities
    return equalities[0] if len(equalities) == 1 and equalities[0] == condition.equalities[0] else None


def _key(value: Any) -> Key:
    """What a scalar or other value is found by."""
    kind = value.__class__
    if kind is str or kind is int or kind is float or value is None:
        return value
    return _KEYS[value] if kind is bool else OTHER


def _getter(path: Path) -> Callable[[Any], Key]:
    """The function that gives the key of what stands at `path`: null where it is missing, as in jq."""
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
