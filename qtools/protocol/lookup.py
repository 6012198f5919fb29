"""The words spoken to nsqlookupd. In: the JSON it answers over HTTP. Out: where the producers are.

GET /lookup?topic=T  →  {"channels": […], "producers": [{"broadcast_address", "tcp_port", "http_port", …}]}
GET /nodes           →  {"producers": […]}          404 TOPIC_NOT_FOUND is a normal answer: nobody yet
GET /topics          →  {"topics": […]}
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from qtools.errors import ProtocolError
from qtools.names import is_valid_name


class Producer(NamedTuple):
    """An nsqd that nsqlookupd knows."""

    host: str
    tcp_port: int
    http_port: int


def decode_producers(body: bytes) -> list[Producer]:
    """The producers in an answer of /lookup or /nodes; ProtocolError when it is none."""
    told = _decode(body)
    producers = told.get("producers") or []
    try:
        return [Producer(_host(p["broadcast_address"]), _port(p["tcp_port"]), _port(p["http_port"])) for p in producers]
    except (KeyError, TypeError, ValueError) as error:
        raise ProtocolError("it lists producers in a form that is not nsqlookupd's") from error


def _host(told: Any) -> str:
    if not isinstance(told, str) or not told or not told.isprintable():
        raise ValueError(told)
    return told


def _port(told: Any) -> int:
    if type(told) is not int or not 0 <= told <= 65535:  # 0: an nsqd without that door
        raise ValueError(told)
    return told


def decode_topics(body: bytes) -> list[str]:
    """The topics in an answer of /topics; ProtocolError when it is none, or one that no nsqd would take."""
    topics = _decode(body).get("topics") or []
    if not isinstance(topics, list) or not all(isinstance(topic, str) and is_valid_name(topic) for topic in topics):
        raise ProtocolError("it lists topics in a form that is not nsqlookupd's")
    return topics


def _decode(body: bytes) -> dict[str, Any]:
    try:
        told = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ProtocolError("it answers with something that is not JSON") from error
    if isinstance(told, dict) and isinstance(told.get("data"), dict):
        told = told["data"]  # nsqlookupd before 1.0 wrapped its answers
    if not isinstance(told, dict):
        raise ProtocolError("it answers with JSON that is not nsqlookupd's")
    return told
