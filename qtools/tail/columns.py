"""--fields with --format tsv or csv: columns of values from JSON bodies. In: batches. Out: a Format.

    tsv    values with a tab between; tab, newline, carriage return and backslash in a text as \\t \\n \\r \\\\
    csv    values with a comma between, texts in quotation marks where they need it (RFC 4180)

Each value is the result of an expression. null is empty, true and false are words, an array or an object is JSON.
"""

from __future__ import annotations

import re
from itertools import repeat

from qtools.errors import EvaluationError, ExpressionError, UsageError
from qtools.expressions.expression import NOTHING, Expression, compile_expression
from qtools.expressions.values import text
from qtools.flow.variables import names_in, rows_of
from qtools.formats.encoders import Format
from qtools.message import Batch
from qtools.tail.template import FAILED, OnFailure, values_of

_TSV = str.maketrans({"\t": "\\t", "\n": "\\n", "\r": "\\r", "\\": "\\\\"})
_NEEDS_QUOTES = re.compile('[",\r\n]')


def parse_fields(written: str) -> list[Expression]:
    """The expressions in `.id, .user.name`; UsageError."""
    fields: list[Expression] = []
    rest, failed = written, None
    while rest.strip():
        # A comma may be within an expression: the shortest piece that compiles is one.
        for end in [*(found.start() for found in re.finditer(",", rest)), len(rest)]:
            try:
                fields.append(compile_expression(rest[:end]))
            except ExpressionError as error:
                failed = failed or error
                continue
            rest, failed = rest[end + 1 :], None
            break
        else:
            raise UsageError(f"--fields: {failed}")
    if not fields:
        raise UsageError("--fields is empty: name the values of a line, as in '.id,.user.name'")
    return fields


def columns_format(fields: list[Expression], form: str, on_failure: OnFailure) -> Format:
    """A line for each message, with the results of `fields`. form: "tsv" or "csv". A message on which a field fails has
    an empty value there, and `on_failure` is called."""
    written = _tsv if form == "tsv" else _csv
    separator, end = ("\t", "\n") if form == "tsv" else (",", "\r\n")
    names = names_in(fields)
    reads_body = any(field.reads_body for field in fields)

    def pieces(batch: Batch) -> list[bytes]:
        lines: list[bytes] = []
        values = values_of(batch, on_failure) if reads_body else repeat(None, len(batch))
        for value, row in zip(values, rows_of(batch, names), strict=True):
            cells = [""] * len(fields)
            for place, field in enumerate(fields):
                if value is FAILED and field.reads_body:
                    continue
                try:
                    result = field.evaluate(value, row)
                except EvaluationError as error:
                    on_failure(EvaluationError(f"{field.text.strip()} has no result: {error}"))
                    continue
                if result is not None and result is not NOTHING:
                    cells[place] = written(text(result))
            lines.append((separator.join(cells) + end).encode("utf-8", "surrogatepass"))
        return lines

    return Format(pieces)


def _tsv(value: str) -> str:
    return value.translate(_TSV)


def _csv(value: str) -> str:
    return '"' + value.replace('"', '""') + '"' if _NEEDS_QUOTES.search(value) else value
