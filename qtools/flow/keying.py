"""Gives messages a key, headers and an id for the broker's search for duplicates before they are published. In:
expressions. Out: attributes, and the errors of messages on which an expression failed.

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

KEY, HEADER, DEDUPE_ID = "--key", "--header ", "--dedupe-id"  # the flags, for errors


class Keying(NamedTuple):
    """key: None for the key that a message has. headers: (name, expression), instead of
    headers of that name, beside the others that a message has. encode_key: makes the bytes of a key from the result of
    `key`, instead of the rules above; EvaluationError for a value that it cannot encode. dedupe_id: of
    Attributes.dedupe_ids."""

    key: Expression | None = None
    headers: tuple[tuple[str, Expression], ...] = ()
    encode_key: Callable[[Any], bytes] | None = None
    dedupe_id: Expression | None = None

    @property
    def _by_flag(self) -> list[tuple[str, Expression]]:
        named = [(KEY, self.key), *((HEADER + name, each) for name, each in self.headers), (DEDUPE_ID, self.dedupe_id)]
        return [(flag, expression) for flag, expression in named if expression is not None]

    @property
    def expressions(self) -> list[Expression]:
        return [expression for _, expression in self._by_flag]

    @property
    def _first_reader(self) -> str:
        """The flag of the first expression that reads the body, for the error of a body that is not JSON; "" if none
        does."""
        return next((flag for flag, expression in self._by_flag if expression.reads_body), "")

    @property
    def variables(self) -> frozenset[str]:
        """The names of the variables in the expressions."""
        return names_in(self.expressions)

    def evaluate(self, bodies: Sequence[bytes], rows: Sequence[Row]) -> tuple[Attributes, dict[int, RouteFailed]]:
        """Keys, headers and ids for each of `bodies`, and the errors by index. rows: the variables of each message. A
        message on which an expression failed has none of them."""
        keys: list[bytes | None] = []
        ids: list[bytes | None] = []
        headers: list[list[tuple[str, bytes | None]]] = []
        failed: dict[int, RouteFailed] = {}
        reader = self._first_reader
        loads = parser_for(bodies) if reader else None
        for place, body, row in zip(count(), bodies, rows, strict=False):
            what, key, ident = reader, None, None
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
                if self.dedupe_id is not None:
                    what = DEDUPE_ID
                    ident = _as_bytes(self.dedupe_id, value, row)
            except EvaluationError as error:
                failed[place] = RouteFailed(f"{what}: {error}")
                key, found, ident = None, [], None
            keys.append(key)
            headers.append(found)
            ids.append(ident)
        return Attributes(keys, headers, dedupe_ids=ids), failed


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
            new, failed = self._keying.evaluate(bodies, rows[number])
            keys, headers = list(new.keys or ()), list(new.headers or ())
            if failed and self._passes:
                self.let_through += len(failed)
                for place in failed:
                    keys[place] = None if had.keys is None else had.keys[place]
                failed = {}
            whole = had._replace(
                keys=keys if self._keying.key is not None else had.keys,
                headers=replace_headers(had.headers, headers) if self._keying.headers else had.headers,
                dedupe_ids=new.dedupe_ids if self._keying.dedupe_id is not None else None,
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
