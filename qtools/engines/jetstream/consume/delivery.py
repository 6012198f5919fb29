"""The origin of the messages of one read. In: ack subjects, header blocks. Out: keys, headers, timestamps, attempts.

A record is the ack subject of a message, or (ack subject, header block) where a message of the read has headers.
Nothing is parsed before it is asked for.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Any

from qtools.attributes import Attributes
from qtools.engines.connections.in_flight import Delivery
from qtools.engines.jetstream.protocol.ack_subject import deliveries_place, parse_ack_subject
from qtools.engines.jetstream.protocol.attributes import HeaderFields
from qtools.message import Message, Messages

MOST_ATTEMPTS = 65_535  # that a Message can hold


def ack_of(record: Any) -> bytes:
    ack: bytes = record if record.__class__ is bytes else record[0]
    return ack


def _fields_of(record: Any) -> HeaderFields:
    return HeaderFields(b"" if record.__class__ is bytes else record[1])


class JetStreamDelivery(Delivery):
    """A Delivery that is a message.RecordOrigin."""

    __slots__ = ()

    def messages_of(self, records: Sequence[Any], bodies: list[bytes]) -> Messages:
        """The id of a message is its sequence in the stream, as 16 digits of hex."""
        made = Messages.of_nothing()
        for record, body in zip(records, bodies, strict=True):
            told = parse_ack_subject(ack_of(record))
            timestamp = _fields_of(record).timestamp or told.timestamp
            attempts = min(told.deliveries, MOST_ATTEMPTS)
            made.append(Message(timestamp, attempts, b"%016x" % told.stream_sequence, body))
        return made

    def attributes_of(self, records: Sequence[Any], only: Container[str] = Attributes._fields) -> Attributes:
        columns: dict[str, Any] = {}
        if "keys" in only or "headers" in only or "timestamps" in only:
            fields = [_fields_of(record) for record in records]
            if "keys" in only:
                columns["keys"] = [each.key for each in fields]
            if "headers" in only:
                columns["headers"] = [each.headers for each in fields]
            if "timestamps" in only:
                columns["timestamps"] = [
                    each.timestamp or parse_ack_subject(ack_of(record)).timestamp
                    for each, record in zip(fields, records, strict=True)
                ]
        return Attributes(**columns)

    def delivered_more_than(self, times: int, records: Sequence[Any]) -> dict[int, int]:
        found: dict[int, int] = {}
        place = deliveries_place(ack_of(records[0])) if records else 0
        for index, record in enumerate(records):
            deliveries = int(ack_of(record).split(b".", place + 1)[place])
            if deliveries > times:
                found[index] = deliveries
        return found
