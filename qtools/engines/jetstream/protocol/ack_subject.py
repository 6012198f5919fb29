"""The reply subject of a message of a consumer: it acknowledges the message, and tells what the server knows of it.

    $JS.ACK.<stream>.<consumer>.<deliveries>.<stream seq>.<consumer seq>.<ns since 1970>.<pending>
    $JS.ACK.<domain>.<account>.<stream>.<consumer>.<deliveries>.…the same….<pending>[.<random>]

https://docs.nats.io/reference/reference-protocols/nats_api_reference (ADR-15 for the second form). What is published to
it: nothing or +ACK (finished), -NAK (again, now or after a delay), +WPI (still being worked on), +TERM (never again).
"""

from __future__ import annotations

from typing import NamedTuple

from qtools.errors import ProtocolError

PREFIX = b"$JS.ACK."


class Delivered(NamedTuple):
    """What an ack subject tells. timestamp: when the stream stored the message, ns since 1970. pending: messages that
    the consumer has not delivered yet, when it delivered this one."""

    stream: str
    consumer: str
    deliveries: int
    stream_sequence: int
    consumer_sequence: int
    timestamp: int
    pending: int


def is_ack_subject(subject: bytes) -> bool:
    return subject.startswith(PREFIX)


def parse_ack_subject(subject: bytes) -> Delivered:
    """What `subject` tells; ProtocolError if it is none."""
    words = subject.split(b".")
    # The second form begins with a domain ("_" for none) and an account, and has 11 words, or 12 with a random one.
    first = 2 if len(words) == 9 else 4
    if (len(words) != 9 and not 11 <= len(words) <= 13) or not subject.startswith(PREFIX):
        raise ProtocolError(f"this is no subject of an acknowledgement: {subject[:100]!r}")
    numbers = words[first + 2 : first + 7]
    if not all(word.isdigit() and len(word) < 21 for word in numbers):
        raise ProtocolError(f"this is no subject of an acknowledgement: {subject[:100]!r}")
    stream, consumer = words[first].decode("utf-8", "replace"), words[first + 1].decode("utf-8", "replace")
    return Delivered(stream, consumer, *map(int, numbers))


def deliveries_place(subject: bytes) -> int:
    """At which word of `subject`, counted from 0, the number of deliveries stands."""
    return 4 if subject.count(b".") == 8 else 6


def redelivered(subjects: list[bytes]) -> int:
    """How many of `subjects`, all of one consumer, are not of a first delivery."""
    if not subjects:
        return 0
    place = deliveries_place(subjects[0])
    first = b".".join(subjects[0].split(b".", place)[:place]) + b".1."
    # A space cannot occur in a subject: each occurrence of `first` behind one is at the beginning of a subject.
    return len(subjects) - (b" " + b" ".join(subjects)).count(b" " + first)
