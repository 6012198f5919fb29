"""Gives messages a key and headers before they are published. In: expressions. Out: attributes, and the errors of
messages on which an expression failed.

The expressions see the body as it is published, after --select. A result that is a string becomes its UTF-8; null is no
key, and no header; any other result becomes compact JSON.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from qtools.attributes import Attributes, Headers
from qtools.errors import EvaluationError, RouteFailed
from qtools.expressions.expression import NOTHING, Expression
from qtools.flow.contract import GroupAttributes, GroupPublisher, Refused
from qtools.flow.filter import encode, parser_for


class Keying(NamedTuple):
    """key: None for the key that a message has. headers: (name, expression), added to those that a message has."""

    key: Expression | None = None
    headers: tuple[tuple[str, Expression], ...] = ()

    def evaluate(
        self, bodies: Sequence[bytes]
    ) -> tuple[list[bytes | None], list[list[tuple[str, bytes | None]]], dict[int, RouteFailed]]:
        """Keys and headers for each of `bodies`, and the errors by index. A message on which an expression failed has
        no key and no headers."""
        keys: list[bytes | None] = []
        headers: list[list[tuple[str, bytes | None]]] = []
        failed: dict[int, RouteFailed] = {}
        loads = parser_for(bodies)
        for place, body in enumerate(bodies):
            what, key = "--key", None
            found: list[tuple[str, bytes | None]] = []
            try:
                value = loads(body)
                if self.key is not None:
                    key = _as_bytes(self.key.evaluate(value))
                for name, expression in self.headers:
                    what = f"--header {name}"
                    if (made := _as_bytes(expression.evaluate(value))) is not None:
                        found.append((name, made))
            except EvaluationError as error:
                failed[place] = RouteFailed(f"{what}: {error}")
                key, found = None, []
            keys.append(key)
            headers.append(found)
        return keys, headers, failed


class KeyedPublisher:
    """Publishes through `publisher`, each message with the key and the headers of `keying`."""

    def __init__(self, publisher: GroupPublisher, keying: Keying) -> None:
        self._publisher = publisher
        self._keying = keying

    async def publish(
        self, groups: Sequence[tuple[str, Sequence[bytes]]], *, attributes: GroupAttributes | None = None
    ) -> Refused:
        """As the publisher does; a message on which an expression fails is refused with RouteFailed."""
        known = attributes() if attributes is not None else [Attributes()] * len(groups)
        made: list[Attributes] = []
        passing: list[tuple[str, Sequence[bytes]]] = []
        places: list[Sequence[int]] = []
        refused: Refused = {}
        for number, ((topic, bodies), had) in enumerate(zip(groups, known, strict=True)):
            keys, headers, failed = self._keying.evaluate(bodies)
            whole = had._replace(
                keys=keys if self._keying.key is not None else had.keys,
                headers=_joined(had.headers, headers) if self._keying.headers else had.headers,
            )
            refused.update({(number, place): error for place, error in failed.items()})
            good: Sequence[int] = [place for place in range(len(bodies)) if place not in failed]
            places.append(good)
            passing.append((topic, [bodies[place] for place in good] if failed else bodies))
            made.append(whole.pick(good) if failed else whole)
        answer = await self._publisher.publish(passing, attributes=lambda: made)
        refused.update({(number, places[number][nth]): error for (number, nth), error in answer.items()})
        return refused

    async def close(self) -> None:
        await self._publisher.close()


def _joined(had: Sequence[Headers] | None, new: list[list[tuple[str, bytes | None]]]) -> Sequence[Headers]:
    return new if had is None else [[*before, *added] for before, added in zip(had, new, strict=True)]


def _as_bytes(value: object) -> bytes | None:
    if value is None or value is NOTHING:
        return None
    return value.encode("utf-8", "replace") if isinstance(value, str) else encode(value)
