"""The entries of a stream, which are lists of fields, as messages, and the other way round. No I/O.

    field               of a message
    body                its body
    null-body           empty: it has no body (a tombstone of Kafka)
    key                 its key
    timestamp-ns        its time, ns since 1970, if that is not the one in its id
    header:NAME         the header NAME, where NAME is one of these fields, or begins with header: or null-header:
    null-header:NAME    empty: the header NAME has no value
    any other NAME      the header NAME

So what this project writes is read again as it was: body, key, the headers in their order with names that occur twice,
time. An entry of another program that has one `body` is read in the same way: its other fields are headers. One without
is foreign: its body is a JSON object of all its fields.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Any, NamedTuple

from qtools.attributes import TOMBSTONE, Attributes, Headers, bytes_as_json
from qtools.engines.redis.protocol.replies import Entry
from qtools.engines.redis.protocol.stream_ids import time_of

BODY = b"body"
NULL_BODY = b"null-body"
KEY = b"key"
TIMESTAMP = b"timestamp-ns"
HEADER = b"header:"
NULL_HEADER = b"null-header:"
_RESERVED = frozenset({BODY, NULL_BODY, KEY, TIMESTAMP})
_ONCE = (BODY, NULL_BODY, KEY, TIMESTAMP)
_LATEST = (1 << 63) - 1  # ns since 1970 that a message can hold


class EntryParts(NamedTuple):
    """An entry as a message. timestamp: ns since 1970, or None for the one in its id."""

    body: bytes
    key: bytes | None = None
    headers: Headers = ()
    timestamp: int | None = None


# ── messages → fields ──


def fields_of(body: bytes, key: bytes | None, headers: Headers, timestamp: int | None) -> list[bytes]:
    """The fields and values of a message, for XADD."""
    made = [NULL_BODY, b""] if body is TOMBSTONE else [BODY, body]
    if key is not None:
        made += (KEY, key)
    if timestamp is not None and 0 <= timestamp <= _LATEST:  # as `_time` reads it; Kafka has any number, and -1
        made += (TIMESTAMP, b"%d" % timestamp)
    for name, value in headers:
        field = name.encode("utf-8", "surrogateescape")
        if value is None:
            made += (NULL_HEADER + field, b"")
        else:
            made += (field if _is_plain(field) else HEADER + field, value)
    return made


def _is_plain(field: bytes) -> bool:
    """Whether a header may have this field for its name."""
    return field not in _RESERVED and not field.startswith((HEADER, NULL_HEADER))


# ── fields → messages ──


def bodies_of(entries: Sequence[Entry]) -> list[bytes]:
    """The body of each entry."""
    found = [fields[1] for _, fields in entries if len(fields) == 2 and fields[0] == BODY]
    return found if len(found) == len(entries) else [parts_of(fields).body for _, fields in entries]


def attributes_of(entries: Sequence[Entry], only: Container[str] = Attributes._fields) -> Attributes:
    """Keys, headers and times of entries; the columns in `only`."""
    timestamps = None
    if not any(len(fields) > 2 or fields[0] != BODY for _, fields in entries):
        if "timestamps" in only:
            timestamps = [time_of(ident) for ident, _ in entries]
        return Attributes(timestamps=timestamps)
    parts = [parts_of(fields) for _, fields in entries]
    keys: list[bytes | None] | None = None
    headers: list[Headers] | None = None
    if "keys" in only and any(part.key is not None for part in parts):
        keys = [part.key for part in parts]
    if "headers" in only and any(part.headers for part in parts):
        headers = [part.headers for part in parts]
    if "timestamps" in only:
        timestamps = [
            time_of(ident) if part.timestamp is None else part.timestamp
            for (ident, _), part in zip(entries, parts, strict=True)
        ]
    return Attributes(keys, headers, timestamps)


def timestamp_of(entry: Entry) -> int:
    """When a message was published first, ns since 1970."""
    ident, fields = entry
    if len(fields) == 2 or TIMESTAMP not in fields[::2]:
        return time_of(ident)
    given = parts_of(fields).timestamp
    return time_of(ident) if given is None else given


def parts_of(fields: Sequence[bytes]) -> EntryParts:
    """The fields and values of one entry as a message."""
    if len(fields) == 2 and fields[0] == BODY:
        return EntryParts(fields[1])
    names = fields[::2]
    if any(names.count(name) > 1 for name in _ONCE) or names.count(BODY) + names.count(NULL_BODY) != 1:
        return EntryParts(_as_json(fields))
    body, key, timestamp = b"", None, None
    headers: list[tuple[str, bytes | None]] = []
    for field, value in zip(names, fields[1::2], strict=False):
        if field == BODY:
            body = value
        elif field == NULL_BODY:
            body = TOMBSTONE
        elif field == KEY:
            key = value
        elif field == TIMESTAMP and (time := _time(value)) is not None:
            timestamp = time
        elif field.startswith(NULL_HEADER):
            headers.append((_name(field[len(NULL_HEADER) :]), None))
        else:
            headers.append((_name(field.removeprefix(HEADER)), value))
    return EntryParts(body, key, headers, timestamp)


def _time(value: bytes) -> int | None:
    """ns since 1970 in a field; None if another program has put something else there."""
    return int(value) if value.isdigit() and len(value) < 20 and int(value) <= _LATEST else None


def _name(field: bytes) -> str:
    return field.decode("utf-8", "backslashreplace")


def _as_json(fields: Sequence[bytes]) -> bytes:
    """The fields of an entry as a JSON object: text, or {"base64": …} for bytes that are not UTF-8; a list of values
    where a field occurs more than once."""
    import orjson  # few streams have such entries

    found: dict[str, Any] = {}
    seen: set[str] = set()
    for field, value in zip(fields[::2], fields[1::2], strict=False):
        name, shown = _name(field), bytes_as_json(value)
        if name not in found:
            found[name] = shown
        elif name not in seen:
            found[name] = [found[name], shown]
            seen.add(name)
        else:
            found[name].append(shown)
    return orjson.dumps(found)
