"""A message of AMQP as one of this project: attributes ↔ routing key and properties. In: records. Out: columns. No I/O.

    key          the routing key; in a header where it cannot be one: it is empty, or has more than 255 bytes
    headers      the header table; values that are no strings arrive as text
    timestamp    the property, in s; what is finer is in the header timestamp_in_ms, as RabbitMQ's plugins have it
    tombstone    a header, and an empty body
    attempts     x-delivery-count of quorum queues + 1; 2 for what a classic queue delivers again

A record is what protocol/deliveries.py keeps of a message: its envelope, and the bytes of its properties.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Container, Sequence
from typing import Any

from qtools.attributes import TOMBSTONE, Attributes, Headers
from qtools.engines.amqp.protocol.deliveries import Envelope, Record
from qtools.engines.amqp.protocol.properties import PERSISTENT, Properties, decode_properties
from qtools.engines.amqp.protocol.values import Table
from qtools.errors import MessageRefused, ProtocolError
from qtools.message import Messages

LONGEST_KEY = 255  # bytes of a routing key
MOST_ATTEMPTS = 65_535  # that a Message can hold
LATEST = 2**63 - 1  # ns since 1970: the latest timestamp that a Message can hold

KEY, ATTEMPTS, NO_BODY, MILLISECONDS = "qtools-key", "qtools-attempts", "qtools-tombstone", "timestamp_in_ms"
DELIVERIES = "x-delivery-count"
_OURS = frozenset({KEY, ATTEMPTS, NO_BODY, MILLISECONDS, DELIVERIES})
# Of the broker's dead letters. They are shown, and never published: the broker would take them for its own, and drop a
# message that seems to go round in a circle.
_OF_DEAD_LETTERS = ("x-death", "x-first-death-", "x-last-death-")


# ── reading ──


def decode_record(record: Record) -> Properties:
    """The properties of a record; empty ones if they are malformed, so that one message does not stop a run."""
    try:
        return decode_properties(record[1])
    except ProtocolError:
        return Properties()


def _header(properties: Properties, name: str) -> Any:
    for each, value in properties.headers or ():
        if each == name:
            return value
    return None


def attempts_of(envelope: Envelope, properties: Properties) -> int:
    """How often the message was delivered, this time included."""
    before = _header(properties, ATTEMPTS) or 0
    count = _header(properties, DELIVERIES)
    more = count if isinstance(count, int) else int(envelope.redelivered)
    return min(MOST_ATTEMPTS, 1 + more + (before if isinstance(before, int) else 0))


def timestamp_of(properties: Properties) -> int:
    """ns since 1970; 0 if the message has none."""
    milliseconds = _header(properties, MILLISECONDS)
    if isinstance(milliseconds, int) and 0 < milliseconds * 1_000_000 <= LATEST:
        return milliseconds * 1_000_000
    return min(LATEST, (properties.timestamp or 0) * 1_000_000_000)


def key_of(envelope: Envelope, properties: Properties) -> bytes | None:
    """The key; the routing key of a message that came to a queue by its name is no key."""
    key = _header(properties, KEY)
    if isinstance(key, bytes):
        return bytes(key)
    return (envelope.routing_key or None) if envelope.exchange else None


def headers_of(properties: Properties) -> Headers:
    """The headers of the message's own. Those of a dead letter are left out if a delay of ours has made it one."""
    found = [(name, value) for name, value in properties.headers or () if name not in _OURS]
    if _header(properties, ATTEMPTS) is not None:
        found = [(name, value) for name, value in found if not name.startswith(_OF_DEAD_LETTERS)]
    return [(name, _as_bytes(value)) for name, value in found]


def _as_bytes(value: Any) -> bytes | None:
    """The value of a header; text for what is no string."""
    if value is None or isinstance(value, bytes):
        return value if value is None else bytes(value)
    if isinstance(value, bool):
        return b"true" if value else b"false"
    if isinstance(value, list):
        return json.dumps(_as_json(value), ensure_ascii=False).encode("utf-8", "replace")
    return str(value).encode()


def _as_json(value: Any) -> Any:
    if isinstance(value, list):
        if value and all(isinstance(each, tuple) for each in value):
            return {name: _as_json(each) for name, each in value}
        return [_as_json(each) for each in value]
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value if value is None or isinstance(value, bool | int | float) else str(value)


def id_of(properties: Properties) -> bytes:
    """16 bytes of the message's own id, b"" if it has none."""
    given = properties.message_id
    if given is None or len(given) == 16:
        return given or b""
    return hashlib.blake2b(given, digest_size=8).hexdigest().encode()


def messages_of(records: Sequence[Record], bodies: list[bytes], number: int) -> Messages:
    """Records as messages. number: of their channel, for the ids of those that have none."""
    decoded = [decode_record(record) for record in records]
    return Messages(
        [
            id_of(properties) or b"%04x%012x" % (number & 0xFFFF, record[2])
            for record, properties in zip(records, decoded, strict=True)
        ],
        bodies,
        [timestamp_of(properties) for properties in decoded],
        [attempts_of(record[0], properties) for record, properties in zip(records, decoded, strict=True)],
    )


def attributes_of(records: Sequence[Record], only: Container[str]) -> Attributes:
    decoded = [(record[0], decode_record(record)) for record in records]
    return Attributes(
        keys=[key_of(*each) for each in decoded] if "keys" in only else None,
        headers=[headers_of(properties) for _, properties in decoded] if "headers" in only else None,
        timestamps=[timestamp_of(properties) for _, properties in decoded] if "timestamps" in only else None,
    )


def with_tombstones(records: Sequence[Record], bodies: list[bytes]) -> None:
    """Replace the empty bodies of messages that have no body by TOMBSTONE."""
    for place, body in enumerate(bodies):
        if not body and _header(decode_record(records[place]), NO_BODY) is True:
            bodies[place] = TOMBSTONE


# ── publishing ──


def outgoing_properties(
    body: bytes, key: bytes | None, headers: Headers, timestamp: int, message_id: bytes, longest_key: int = LONGEST_KEY
) -> tuple[bytes, bytes]:
    """The routing key, and the encoded properties. timestamp: ns since 1970, negative for none, as messages of Kafka
    may have. longest_key: bytes of a key that can be the routing key. MessageRefused if AMQP cannot hold it."""
    table: Table = []
    for name, value in headers:
        if name.startswith(_OF_DEAD_LETTERS) or name in _OURS:
            continue
        if len(name.encode("utf-8", "surrogateescape")) > 255:
            raise MessageRefused(f"the name of a header, {name[:20]!r}…, has more than 255 bytes", is_too_large=False)
        table.append((name, value))
    routing_key = key or b""
    if key is not None and not 0 < len(key) <= longest_key:
        table.append((KEY, key))
        routing_key = b""
    if body is TOMBSTONE:
        table.append((NO_BODY, True))
    if timestamp > 0 and timestamp % 1_000_000_000 >= 1_000_000:
        table.append((MILLISECONDS, timestamp // 1_000_000))
    properties = Properties(
        headers=table or None, delivery_mode=PERSISTENT, message_id=message_id,
        timestamp=timestamp // 1_000_000_000 if timestamp >= 0 else None,
    )  # fmt: skip
    return routing_key, properties.encode()


def copy_properties(record: Record) -> Properties:
    """The properties of a copy of a message that is delivered again later: its attempts and its key are kept in
    headers, as its way back changes both."""
    envelope, properties = record[0], decode_record(record)
    headers = [
        (name, value)
        for name, value in properties.headers or ()
        if name not in (ATTEMPTS, KEY, DELIVERIES) and not name.startswith(_OF_DEAD_LETTERS)
    ]
    headers.append((ATTEMPTS, attempts_of(envelope, properties)))
    if (key := key_of(envelope, properties)) is not None:
        headers.append((KEY, key))
    return properties._replace(headers=headers, delivery_mode=PERSISTENT, expiration=None, user_id=None)
