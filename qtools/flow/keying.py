"""Gives messages a key and headers before they are published. In: expressions. Out: attributes, and the errors of
messages on which an expression failed.

The expressions see the body as it is published, after --select, and the variables of the message that was read. A
result that is a string becomes its UTF-8; null is no key, and no header; a key or a header of the message that is not
text keeps its bytes; any other result becomes compact JSON.
"""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Callable, Collection, Sequence
from itertools import count
from typing import Any, NamedTuple

from qtools.attributes import Attributes, Headers
from qtools.errors import EvaluationError, RouteFailed
from qtools.expressions.expression import NO_VARIABLES, NOTHING, Expression
from qtools.flow.contract import GroupAttributes, GroupPublisher, Refused
from qtools.flow.json_values import encode, parser_for
from qtools.flow.variables import Row, names_in

KEY, HEADER = "--key", "--header "  # the flags, for errors


class Keying(NamedTuple):
    """key: None for the key that a message has. headers: (name, expression), instead of
    headers of that name, beside the others that a message has. encode_key: makes the bytes of a key from the result of
    `key`, instead of the rules above; EvaluationError for a value that it cannot encode."""

    key: Expression | None = None
    headers: tuple[tuple[str, Expression], ...] = ()
    encode_key: Callable[[Any], bytes] | None = None

    @property
    def expressions(self) -> list[Expression]:
        return [*([self.key] if self.key is not None else []), *(expression for _, expression in self.headers)]

    @property
    def _first_reader(self) -> str:
        """The flag of the first expression that reads the body, for the error of a body that is not JSON; "" if none
        does."""
        named = [
            *([(KEY, self.key)] if self.key is not None else []),
            *((HEADER + name, e) for name, e in self.headers),
        ]
        return next((name for name, expression in named if expression.reads_body), "")

    @property
    def variables(self) -> frozenset[str]:
        """The names of the variables in the expressions."""
        return names_in(self.expressions)

    def evaluate(
        self, bodies: Sequence[bytes], rows: Sequence[Row]
    ) -> tuple[list[bytes | None], list[list[tuple[str, bytes | None]]], dict[int, RouteFailed]]:
        """Keys and headers for each of `bodies`, and the errors by index. rows: the variables of each message. A
        message on which an expression failed has no key and no headers."""
        keys: list[bytes | None] = []
        headers: list[list[tuple[str, bytes | None]]] = []
        failed: dict[int, RouteFailed] = {}
        reader = self._first_reader
        loads = parser_for(bodies) if reader else None
        for place, body, row in zip(count(), bodies, rows, strict=False):
            what, key = reader, None
            found: list[tuple[str, bytes | None]] = []
            try:
                value = loads(body) if loads is not None else None
                if self.key is not None:
                    what = KEY
                    key = _as_bytes(self.key, value, row, self.encode_key)
                for name, expression in self.headers:
                    what = HEADER + name
                    if (made := _as_bytes(expression, value, row)) is not None:
                        found.append((name, made))
            except EvaluationError as error:
                failed[place] = RouteFailed(f"{what}: {error}")
                key, found = None, []
            keys.append(key)
            headers.append(found)
        return keys, headers, failed


class FixedAttributes:
    """GroupAttributes that are known. rows: the variables of each group's messages, for a publisher that asks."""

    def __init__(self, groups: Sequence[Attributes], rows: Sequence[Sequence[Row]] = ()) -> None:
        self._groups = groups
        self._rows = rows

    def __call__(self) -> Sequence[Attributes]:
        return self._groups

    def variables(self, names: Collection[str]) -> Sequence[Sequence[Row]]:
        return self._rows


class KeyedPublisher:
    """Publishes through `publisher`, each message with the key and the headers of `keying`.

    passes: whether a message on which an expression fails is published with the key and the headers that it had; such
    messages count in `let_through`.
    """

    def __init__(self, publisher: GroupPublisher, keying: Keying, *, passes: bool = False) -> None:
        self.let_through = 0
        self._passes = passes
        self._publisher = publisher
        self._keying = keying
        self._variables = keying.variables

    async def publish(
        self, groups: Sequence[tuple[str, Sequence[bytes]]], *, attributes: GroupAttributes | None = None
    ) -> Refused:
        """As the publisher does; a message on which an expression fails is refused with RouteFailed."""
        if attributes is None:
            known: Sequence[Attributes] = [Attributes()] * len(groups)
            rows: Sequence[Sequence[Row]] = [[NO_VARIABLES] * len(bodies) for _, bodies in groups]
        else:
            known, rows = attributes(), attributes.variables(self._variables)
        made: list[Attributes] = []
        passing: list[tuple[str, Sequence[bytes]]] = []
        places: list[Sequence[int]] = []
        refused: Refused = {}
        for number, ((topic, bodies), had) in enumerate(zip(groups, known, strict=True)):
            keys, headers, failed = self._keying.evaluate(bodies, rows[number])
            if failed and self._passes:
                self.let_through += len(failed)
                for place in failed:
                    keys[place] = None if had.keys is None else had.keys[place]
                failed = {}
            whole = had._replace(
                keys=keys if self._keying.key is not None else had.keys,
                headers=replace_headers(had.headers, headers) if self._keying.headers else had.headers,
            )
            refused.update({(number, place): error for place, error in failed.items()})
            good: Sequence[int] = [place for place in range(len(bodies)) if place not in failed]
            places.append(good)
            passing.append((topic, [bodies[place] for place in good] if failed else bodies))
            made.append(whole.pick(good) if failed else whole)
        answer = await self._publisher.publish(passing, attributes=FixedAttributes(made))
        refused.update({(number, places[number][nth]): error for (number, nth), error in answer.items()})
        return refused

    async def close(self) -> None:
        await self._publisher.close()


def replace_headers(had: Sequence[Headers] | None, new: Sequence[Headers]) -> Sequence[Headers]:
    """The headers of each message: the `new` ones, and those that it had under other names."""
    if had is None:
        return new
    joined: list[Headers] = []
    for before, added in zip(had, new, strict=True):
        names = {name for name, _ in added}
        joined.append([*(header for header in before if header[0] not in names), *added])
    return joined


def _as_bytes(
    expression: Expression, value: Any, row: Row, encode_value: Callable[[Any], bytes] | None = None
) -> bytes | None:
    """The result of an expression for a message, as a key or as the value of a header."""
    result = expression.evaluate(value, row)
    if result is None or result is NOTHING:
        return None
    if encode_value is not None:
        return encode_value(result)
    if isinstance(result, str):
        return result.encode("utf-8", "replace")
    if expression.variables and isinstance(result, dict) and result.keys() == {"base64"}:
        # A key, or a header, whose bytes are not text (flow/variables.py).
        with contextlib.suppress(ValueError, TypeError):
            return base64.b64decode(result["base64"], validate=True)
    return encode(result)
