"""A message that could not be routed, as an envelope with the reason, and back as it was.

    {"topic":…,"channel":…,"id":…,"timestamp":…,"attempts":…,"source":…,"reason":…,"route":…,"body":…}

A dead letter is an envelope (formats/envelope.py) with the keys channel, reason and route added, so
`q-pipe --format envelope` reads it too. timestamp is in ns since 1970; a body that is not UTF-8 is written as
"body_base64". In: messages, errors. Out: bytes, and a plan to put dead letters back.
"""

from __future__ import annotations

import base64
from collections.abc import Container, Sequence
from typing import Any

import orjson

from qtools.errors import NameInvalid, QtoolsError, RouteFailed
from qtools.formats.envelope import decode_envelope
from qtools.message import Message
from qtools.names import EPHEMERAL, check_topic
from qtools.routing.routes import Plan

SUFFIX = ".dead"


def dead_letter_topic(source: str) -> str:
    """The topic for dead letters from the topic `source`; NameInvalid if its name would be too long."""
    return check_topic(source.removesuffix(EPHEMERAL) + SUFFIX)


def encode_dead_letter(message: Message, topic: str, channel: str, source: str, error: QtoolsError) -> bytes:
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
    try:
        fields["body"] = message.body.decode("utf-8")
    except UnicodeDecodeError:
        fields["body_base64"] = base64.b64encode(message.body).decode("ascii")
    return orjson.dumps(fields)


class Redrive:
    """A Planner that sends the messages in dead letters back to their topics, unchanged.

    forbidden: topics that are read by this run. A message for one of them would be read again, in an endless loop.
    """

    def __init__(self, forbidden: Container[str] = ()) -> None:
        self.names = ["redrive"]
        self._forbidden = forbidden

    def plan(self, bodies: Sequence[bytes], skip: Container[int] = ()) -> Plan:
        plan = Plan(hits=[0])
        groups: dict[str, tuple[list[bytes], list[int]]] = {}
        for place, letter in enumerate(bodies):
            if place in skip:
                continue
            try:
                topic, body = self._decode(letter)
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

    def _decode(self, letter: bytes) -> tuple[str, bytes]:
        """The topic and the body in a dead letter; ValueError or NameInvalid if it is none, or its topic is not
        allowed."""
        body = decode_envelope(letter)
        topic = orjson.loads(letter).get("topic")
        if not isinstance(topic, str):
            raise ValueError('has no "topic" that it came from')
        if topic in self._forbidden:
            raise ValueError(f"came from {topic}, which is read here")
        return check_topic(topic), body
