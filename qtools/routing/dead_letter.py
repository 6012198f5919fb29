"""A message that could not be routed, as an envelope with the reason, and back as it was.

    {"topic":…,"channel":…,"id":…,"timestamp":…,"attempts":…,"source":…,"reason":…,"route":…,"body":…}

A dead letter is an envelope (formats/envelope.py) with the keys channel, reason and route added, so
`q-pipe --format envelope` reads it too. timestamp is in ns since 1970; a body that is not UTF-8 is written as
"body_base64". A message's key and headers, and that it has no body, are written as in envelopes; a message without them
has no such keys. In: messages, errors. Out: bytes, and a plan to put dead letters back.
"""

from __future__ import annotations

import base64
from collections.abc import Container
from typing import Any, NamedTuple

import orjson

from qtools.attributes import TOMBSTONE, Attributes, Headers, headers_by_name
from qtools.errors import NameInvalid, QtoolsError, RouteFailed
from qtools.formats.envelope import (
    body_of,
    encode_bytes,
    headers_of,
    key_of,
    parse_envelope,
)  # fmt: skip
from qtools.message import Batch, Message
from qtools.names import EPHEMERAL, MAX_NAME_LENGTH, check_topic
from qtools.routing.routes import Plan

SUFFIX = ".dead"


def dead_letter_topic(source: str, longest: int = MAX_NAME_LENGTH) -> str:
    """The topic for dead letters from the topic `source`; NameInvalid if its name would be too long. longest: the most
    characters of a topic."""
    return check_topic(source.removesuffix(EPHEMERAL) + SUFFIX, longest)


class _Decoded(NamedTuple):
    """The message in a dead letter, and the topic that it came from."""

    topic: str
    body: bytes
    key: bytes | None
    headers: Headers


def encode_dead_letter(
    message: Message,
    topic: str,
    channel: str,
    source: str,
    error: QtoolsError,
    *,
    key: bytes | None = None,
    headers: Headers = (),
) -> bytes:
    """The dead letter for `message`, read from `channel` of `topic` at the broker `source`; it failed with `error`."""
    fields: dict[str, Any] = {
        "topic": topic,
        "channel": channel,
        "id": message.id.decode("latin-1"),
        "timestamp": message.timestamp,
        "attempts": message.attempts,
        "source": source,
        "reason": error.reason if isinstance(error, RouteFailed) else str(error),
        "route": error.route if isinstance(error, RouteFailed) else "",
    }
    if key is not None:
        fields["key"] = key
    if headers:
        fields["headers"] = headers_by_name(headers)
    encode_bytes(fields)
    try:
        fields["body"] = None if message.body is TOMBSTONE else message.body.decode("utf-8")
    except UnicodeDecodeError:
        fields["body_base64"] = base64.b64encode(message.body).decode("ascii")
    return orjson.dumps(fields)


class Redrive:
    """A Planner that sends the messages in dead letters back to their topics, with the body, the key and the headers
    that they had.

    forbidden: topics that are read by this run. A message for one of them would be read again, in an endless loop.
    longest: the most characters of a topic.
    """

    def __init__(self, forbidden: Container[str] = (), longest: int = MAX_NAME_LENGTH) -> None:
        self.names = ["redrive"]
        self._longest = longest
        self._forbidden = forbidden

    def plan(self, batch: Batch, skip: Container[int] = ()) -> Plan:
        bodies = batch.bodies
        keys: list[bytes | None] = [None] * len(bodies)
        headers: list[Headers] = [()] * len(bodies)
        plan = Plan(hits=[0], attributes=Attributes(keys, headers))
        groups: dict[str, tuple[list[bytes], list[int]]] = {}
        for place, letter in enumerate(bodies):
            if place in skip:
                continue
            try:
                topic, body, keys[place], headers[place] = self._decode(letter)
            except (ValueError, NameInvalid) as error:
                plan.failed[place] = RouteFailed(f"it is not a dead letter: it {error}")
                continue
            made, places = groups.setdefault(topic, ([], []))
            made.append(body)
            places.append(place)
            plan.hits[0] += 1
        for topic, (made, places) in groups.items():
            plan.groups.append((topic, made))
            plan.places.append(places)
        return plan

    def _decode(self, letter: bytes) -> _Decoded:
        """The message in a dead letter; ValueError or NameInvalid if it is none, or its topic is not allowed."""
        fields = parse_envelope(letter)
        body = body_of(fields)
        topic = fields.get("topic")
        if not isinstance(topic, str):
            raise ValueError('has no "topic" that it came from')
        if topic in self._forbidden:
            raise ValueError(f"came from {topic}, which is read here")
        return _Decoded(check_topic(topic, self._longest), body, key_of(fields), headers_of(fields))
