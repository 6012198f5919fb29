"""--output and --fields: a line made of parts of each message. In: batches. Out: a Format (formats/encoders.py).

    %t topic    %s body     %S its bytes, -1 for a tombstone    %k key    %K its bytes, -1 for none
    %T timestamp in ms      %o offset    %p partition           %h headers, as NAME=VALUE with commas between
    %i id       %a attempts                                     %{EXPR} the result of an expression    %% a percent sign

The letters are those of kcat's -f, but for %i and %a. What a message does not have is empty. A text is written as it
is, and any other result of an expression as compact JSON. Where an expression has no result the part is empty too,
and `on_failure` is called.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import repeat
from typing import Any

from qtools.attributes import TOMBSTONE, Attributes, Headers
from qtools.cli.types import parse_delimiter
from qtools.errors import EvaluationError, ExpressionError, UsageError
from qtools.expressions.expression import NOTHING, Expression, compile_expression
from qtools.expressions.values import text
from qtools.flow.json_values import parser_for
from qtools.flow.variables import names_in, rows_of
from qtools.formats.encoders import Format
from qtools.message import Batch

LETTERS = "tsSkKTophia"
_COLUMNS = {"k": "keys", "K": "keys", "h": "headers", "o": "offsets", "p": "partitions", "T": "timestamps"}

OnFailure = Callable[[EvaluationError], None]
Part = bytes | str | Expression  # literal bytes, a letter, or an expression


def parse_template(template: str) -> list[Part]:
    """The parts of `template`, which may have the escapes of --delimiter; UsageError."""
    parts: list[Part] = []
    at = 0
    for found in re.finditer("%", template):
        if found.start() < at:
            continue  # within a part that was read already
        if found.start() > at:
            parts.append(_literal(template[at : found.start()]))
        letter = template[found.end() : found.end() + 1]
        at = found.end() + 1
        if letter == "%":
            parts.append(b"%")
        elif letter == "{":
            expression, at = _expression(template, at)
            parts.append(expression)
        elif letter and letter in LETTERS:
            parts.append(letter)
        else:
            known = " ".join(f"%{each}" for each in LETTERS)
            raise UsageError(f"--output has %{letter}; there are {known} %{{EXPR}} and %% for a percent sign")
    if at < len(template):
        parts.append(_literal(template[at:]))
    return parts


def template_format(parts: Sequence[Part], delimiter: bytes, on_failure: OnFailure) -> Format:
    """Writes `parts` for each message, and `delimiter` after them."""
    expressions = [part for part in parts if isinstance(part, Expression)]
    wanted = {_COLUMNS[part] for part in parts if isinstance(part, str) and part in _COLUMNS}
    names = names_in(expressions)
    reads_body = any(expression.reads_body for expression in expressions)

    def pieces(batch: Batch) -> list[bytes]:
        attributes = (batch.attributes(wanted) if wanted else None) or Attributes()
        columns: list[Iterable[bytes]] = []
        values = list(values_of(batch, on_failure)) if reads_body else []
        rows = rows_of(batch, names) if expressions else []
        for part in parts:
            if isinstance(part, bytes):
                columns.append(repeat(part, len(batch)))
            elif isinstance(part, str):
                columns.append(_column(part, batch, attributes))
            else:
                columns.append(_results(part, values or repeat(None, len(batch)), rows, on_failure))
        return (
            [b"".join(row) + delimiter for row in zip(*columns, strict=True)] if columns else [delimiter] * len(batch)
        )

    return Format(pieces)


FAILED = object()  # the value of a body that is not JSON


def values_of(batch: Batch, on_failure: OnFailure) -> Iterator[Any]:
    """The JSON value of each body, FAILED for one that is not JSON."""
    loads = parser_for(batch.bodies)
    for body in batch.bodies:
        try:
            yield loads(body)
        except EvaluationError as error:
            on_failure(error)
            yield FAILED


def _results(
    expression: Expression, values: Iterable[Any], rows: Iterable[Sequence[Any]], on_failure: OnFailure
) -> Iterator[bytes]:
    evaluate = expression.evaluate
    for value, row in zip(values, rows, strict=True):
        if value is FAILED and expression.reads_body:
            yield b""
            continue
        try:
            result = evaluate(value, row)
            yield b"" if result is NOTHING or result is None else text(result).encode("utf-8", "surrogatepass")
        except EvaluationError as error:
            on_failure(EvaluationError(f"%{{{expression.text}}} has no result: {error}"))
            yield b""


def _column(letter: str, batch: Batch, attributes: Attributes) -> Iterable[bytes]:
    """One part of all messages of `batch`."""
    nothing = repeat(b"", len(batch))
    if letter == "t":
        if attributes.topics is not None:
            return [topic.encode() for topic in attributes.topics]
        return [origin.topic.encode() for origin, start, stop in batch.parts for _ in range(start, stop)]
    if letter == "s":
        return batch.bodies
    if letter == "S":
        return [b"-1" if body is TOMBSTONE else b"%d" % len(body) for body in batch.bodies]
    if letter == "i":
        return batch.messages.ids
    if letter == "a":
        return [b"%d" % message.attempts for message in batch.messages]
    if letter == "T":
        stamps = batch.messages.timestamps() if attributes.timestamps is None else attributes.timestamps
        return [b"%d" % (stamp // 1_000_000) for stamp in stamps]
    if letter == "k":
        return nothing if attributes.keys is None else [key or b"" for key in attributes.keys]
    if letter == "K":
        keys: Iterable[bytes | None] = repeat(None, len(batch)) if attributes.keys is None else attributes.keys
        return [b"-1" if key is None else b"%d" % len(key) for key in keys]
    if letter == "h":
        return nothing if attributes.headers is None else map(_joined_headers, attributes.headers)
    numbers = attributes.offsets if letter == "o" else attributes.partitions
    return nothing if numbers is None else [b"%d" % number for number in numbers]


def _joined_headers(headers: Headers) -> bytes:
    return b",".join([name.encode() + b"=" + (b"NULL" if value is None else value) for name, value in headers])


def _literal(written: str) -> bytes:
    try:
        return parse_delimiter(written)
    except ValueError as error:
        raise UsageError(f"--output: {error}") from error


def _expression(template: str, start: int) -> tuple[Expression, int]:
    """The expression that begins at `start` and ends with a brace that is not its own, and where what follows it
    begins."""
    failed: ExpressionError | None = None
    for end in (found.start() for found in re.finditer("}", template[start:])):
        try:
            return compile_expression(template[start : start + end]), start + end + 1
        except ExpressionError as error:
            failed = failed or error
    if failed is None:
        raise UsageError(f"--output: %{{{template[start:]} has no closing brace")
    raise UsageError(f"--output: {failed}") from failed
