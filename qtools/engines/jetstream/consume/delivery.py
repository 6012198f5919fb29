"""The origin of the messages of one read. In: ack subjects, header blocks. Out: keys, headers, timestamps, attempts.

A record is the ack subject of a message, or (ack subject, header block) where a message of the read has headers.
Nothing is parsed before it is asked for.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Any

from qtools.attributes import Attributes
from qtools.engines.connections.in_flight import Delivery
from qtools.engines.jetstream.protocol.ack_subject import deliveries_place, parse_ack_subject, redelivered
from qtools.engines.jetstream.protocol.attributes import HeaderFields
from qtools.engines.redelivery import MOST_ATTEMPTS
from qtools.message import Messages


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
        ids: list[bytes] = []
        timestamps: list[int] = []
        attempts: list[int] = []
        if not records:
            return Messages(ids, bodies, timestamps, attempts)
        place = deliveries_place(ack_of(records[0]))
        for record in records:
            is_plain = record.__class__ is bytes
            try:
                words = (record if is_plain else record[0]).split(b".")
                deliveries, sequence, timestamp = int(words[place]), int(words[place + 1]), int(words[place + 3])
            except (IndexError, ValueError):
                told = parse_ack_subject(ack_of(record))  # it says what is wrong
                deliveries, sequence, timestamp = told.deliveries, told.stream_sequence, told.timestamp
            if not is_plain:
                timestamp = _fields_of(record).timestamp or timestamp
            ids.append(b"%016x" % sequence)
            timestamps.append(timestamp)
            attempts.append(deliveries if deliveries < MOST_ATTEMPTS else MOST_ATTEMPTS)
        return Messages(ids, bodies, timestamps, attempts)

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
        acks = [ack_of(record) for record in records]
        if times > 0 and not redelivered(acks):  # as nearly always
            return {}
        found: dict[int, int] = {}
        place = deliveries_place(acks[0]) if acks else 0
        for index, ack in enumerate(acks):
            deliveries = int(ack.split(b".", place + 1)[place])
            if deliveries > times:
                found[index] = deliveries
        return found
