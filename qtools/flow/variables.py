"""The variables of expressions: what a message has besides its body. In: a batch. Out: a row of values a message.

    $key        text; {"base64": …} if it is not UTF-8
    $headers    the value of each header by its name, as in an envelope (formats/envelope.py)
    $topic      the topic that the message was read from
    $timestamp  when a broker accepted it, ns since 1970
    $attempts   how many times it was delivered, this time included
    $id         as in an envelope
    $partition, $offset
    $tombstone  whether it has no body at all; `. == null` is true for a body of the JSON `null` too

What a message does not have is null; $headers is an object then, without a name in it. A row is a tuple in the order of
VARIABLES. Only the columns that an expression names are made: the others are null in all rows.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from itertools import repeat
from typing import Any

from qtools.attributes import TOMBSTONE, Attributes, bytes_as_json, headers_as_json
from qtools.expressions.expression import NO_VARIABLES, VARIABLES, Expression
from qtools.message import Batch

Row = Sequence[Any]

# The columns of Attributes that variables are made from.
_COLUMNS = {
    "key": "keys",
    "headers": "headers",
    "timestamp": "timestamps",
    "partition": "partitions",
    "offset": "offsets",
    "topic": "topics",
}
_NO_HEADERS: dict[str, Any] = {}  # shared, as no expression changes a value


def names_in(expressions: Iterable[Expression | None]) -> frozenset[str]:
    """The names of all variables in `expressions`."""
    return frozenset().union(*(each.variables for each in expressions if each is not None))


def rows_of(batch: Batch, names: Collection[str], instead: Attributes | None = None) -> Sequence[Row]:
    """A row for each message of `batch`, with the variables `names`. instead: keys and headers that the messages are
    published with, where these are not their own."""
    if not names:
        return [NO_VARIABLES] * len(batch)
    wanted = [_COLUMNS[name] for name in names if name in _COLUMNS]
    attributes = (batch.attributes(wanted) if wanted else None) or Attributes()
    if instead is not None:
        attributes = attributes._replace(keys=instead.keys, headers=instead.headers)
    nothing = [None] * len(batch)
    return list(
        zip(*(_column(name, batch, attributes) if name in names else nothing for name in VARIABLES), strict=True)
    )


def _column(name: str, batch: Batch, attributes: Attributes) -> Iterable[Any]:
    """One variable of all messages."""
    count = len(batch)
    if name == "key":
        return repeat(None, count) if attributes.keys is None else map(bytes_as_json, attributes.keys)
    if name == "headers":
        if attributes.headers is None:
            return repeat(_NO_HEADERS, count)
        return [headers_as_json(headers) if headers else _NO_HEADERS for headers in attributes.headers]
    if name == "topic":
        if attributes.topics is not None:
            return [topic or None for topic in attributes.topics]
        return [origin.topic or None for origin, start, stop in batch.parts for _ in range(start, stop)]
    if name == "timestamp":
        found = batch.messages.timestamps() if attributes.timestamps is None else attributes.timestamps
        return [when if when > 0 else None for when in found]
    if name == "attempts":
        return _attempts(batch)
    if name == "tombstone":
        return [body is TOMBSTONE for body in batch.bodies]
    if name == "id":
        return [ident.decode("latin-1") or None for ident in batch.messages.ids]
    column = attributes.partitions if name == "partition" else attributes.offsets
    return repeat(None, count) if column is None else column


def _attempts(batch: Batch) -> Iterable[Any]:
    if not batch.has_attributes:
        return [message.attempts or None for message in batch.messages]
    more = batch.delivered_more_than(1)  # makes no messages of records
    return [more.get(place, 1) for place in range(len(batch))]
