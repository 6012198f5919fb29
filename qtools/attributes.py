"""What a message may have besides its body: a key, headers, and its place in a log. Plain data, by column; and keys and
headers as JSON can hold them.

NSQ's messages have none of it; Kafka's have all. A batch makes these columns on demand (Batch.attributes). Bodies and
keys that were decoded with a schema have a value, with every engine.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from qtools.errors import one_line

Headers = Sequence[tuple[str, bytes | None]]  # in order; a name may occur more than once, a value may be missing


class Tombstone(bytes):
    """The body of a message that has no body at all, which says that its key was deleted. It equals b"", so that code
    that does not know of tombstones sees an empty body; a publisher that knows compares with `is TOMBSTONE`."""

    __slots__ = ()


TOMBSTONE = Tombstone()


# ── bodies and keys in a binary format ──
#
# Their bytes are published and stored, their JSON value is what expressions see (flow/json_values.py). As they are
# bytes, a value goes wherever its body goes: through filters, routes, keys of --dedupe and partitions.


class DecodedBody(bytes):
    """A body or a key, and its JSON value (None, bool, int, float, str, list, dict)."""

    value: Any

    @classmethod
    def of(cls, body: bytes, value: Any) -> DecodedBody:
        made = cls(body)
        made.value = value
        return made


class UndecodableBody(bytes):
    """A body that could not be decoded, and the reason, without the message's name. An expression that reads it fails
    with this text."""

    reason: str

    @classmethod
    def of(cls, body: bytes, reason: str) -> UndecodableBody:
        """The reason may have the words of a schema or of a body: it is kept as one printable line."""
        made = cls(body)
        made.reason = reason if reason.isprintable() else one_line(reason, 1000)
        return made


# ── columns ──


class Attributes(NamedTuple):
    """The attributes of the messages of a batch. A column has one entry for each message, and is None if no message has
    this attribute.

    keys: None for a message without a key. timestamps: ns since 1970; a message that is published again keeps its
    timestamp. partitions, offsets: where in the log the message was read. topics: from which topic, if their origin has
    no topic itself. These three are never published.
    dedupe_ids: by which a broker finds that it has a message already (the capability dedupe_ids); never read.
    """

    keys: Sequence[bytes | None] | None = None
    headers: Sequence[Headers] | None = None
    timestamps: Sequence[int] | None = None
    partitions: Sequence[int] | None = None
    offsets: Sequence[int] | None = None
    topics: Sequence[str] | None = None
    dedupe_ids: Sequence[bytes | None] | None = None

    def pick(self, places: Sequence[int]) -> Attributes:
        """Those of the messages at `places`."""
        columns: list[Any] = [_picked(column, places) for column in self]
        return Attributes(*columns)

    @classmethod
    def joined(cls, parts: Sequence[tuple[Attributes, int]]) -> Attributes:
        """The attributes of several batches as one; each with the number of its messages."""
        if len(parts) == 1:
            return parts[0][0]
        columns: list[Any] = [
            _joined(column, parts, empty) for column, empty in enumerate((None, (), 0, 0, 0, "", None))
        ]
        return cls(*columns)


def _picked(column: Sequence[Any] | None, places: Sequence[int]) -> list[Any] | None:
    return None if column is None else [column[place] for place in places]


def _joined(column: int, parts: Iterable[tuple[Attributes, int]], empty: Any) -> Any:
    found = [(attributes[column], count) for attributes, count in parts]
    if all(values is None for values, _ in found):
        return None
    return [value for values, count in found for value in (values if values is not None else [empty] * count)]


# ── as JSON ──


def bytes_as_json(value: Any) -> Any:
    """A key, or the value of a header, or a list of values: text, {"base64": …} for bytes that are not UTF-8, null for
    None; for a decoded key its value."""
    if value is None:
        return None
    if value.__class__ is not bytes:
        if isinstance(value, list):
            return [bytes_as_json(each) for each in value]
        if isinstance(value, DecodedBody):
            return value.value
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        import base64  # imported late, as most keys are text

        return {"base64": base64.b64encode(value).decode("ascii")}


def headers_by_name(headers: Headers) -> dict[str, Any]:
    """The value of each header by its name; a list of values where a name occurs more than once."""
    found: dict[str, Any] = {}
    for name, value in headers:
        if name not in found:
            found[name] = value
        elif isinstance(found[name], list):
            found[name].append(value)
        else:
            found[name] = [found[name], value]
    return found


def headers_as_json(headers: Headers) -> dict[str, Any]:
    """As `headers_by_name`, each value as `bytes_as_json` has it."""
    return {name: bytes_as_json(value) for name, value in headers_by_name(headers).items()}
