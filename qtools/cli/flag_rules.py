"""Which flags do not go together, as data. In: rules, and click's values by their names. Out: nothing, or UsageError.

A flag whose value is None, False, 0 or an empty tuple counts as missing. An empty text counts as given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from qtools.errors import UsageError


class Excludes(NamedTuple):
    """`others` cannot be given with `flag`. In the message {flag} and {other} stand for the two."""

    flag: str
    others: tuple[str, ...]
    message: str


class Needs(NamedTuple):
    """`flags` cannot be given without `needed`. In the message {flag} stands for the one that was given."""

    flags: tuple[str, ...]
    needed: str
    message: str


def check_rules(given: Mapping[str, object], rules: Sequence[Excludes | Needs]) -> None:
    """Raise UsageError with the message of the first rule that `given` breaks. given: values by parameter name."""
    for rule in rules:
        if isinstance(rule, Needs):
            if not is_given(given[rule.needed]):
                _refuse(given, rule.flags, rule.message, "flag", {})
        elif is_given(given[rule.flag]):
            _refuse(given, rule.others, rule.message, "other", {"flag": written(rule.flag)})


def remove_unused(given: dict[str, Any], names: Sequence[str], needed: str) -> None:
    """Remove the parameters `names` from `given`; UsageError if one of them was given. needed: the flag that they go
    with, which was not."""
    for name in names:
        if is_given(given[name]) and given[name] != "":
            raise UsageError(f"{written(name)} goes with {needed} only")
        del given[name]


def is_given(value: object) -> bool:
    return value not in (None, False, 0, ())


def written(name: str) -> str:
    """A parameter's name as the flag that a user writes: "dry_run" is --dry-run."""
    return f"--{name.replace('_', '-')}"


def _refuse(
    given: Mapping[str, object], names: Sequence[str], message: str, place: str, values: Mapping[str, str]
) -> None:
    for name in names:
        if is_given(given[name]):
            raise UsageError(message.format_map({**values, place: written(name)}))
