"""nsqlookupd's protocol, both halves. In: responses. Out: the addresses of producers; the commands of a producer.

HTTP, to find producers:

    GET /lookup?topic=T    →  {"channels": […], "producers": [{"broadcast_address", "tcp_port", "http_port", …}]}
    GET /nodes             →  {"producers": […]}        404 TOPIC_NOT_FOUND: no producer has the topic yet
    GET /topics            →  {"topics": […]}
    GET /channels?topic=T  →  {"channels": […]}

TCP, for producers; each command gets a response, in order: size 4 | data, mostly OK:

    "  V1"  IDENTIFY\n size 4, JSON   REGISTER topic [channel]\n   UNREGISTER topic [channel]\n   PING\n
"""

from __future__ import annotations

import json
import struct
from typing import Any, NamedTuple

from qtools.errors import ProtocolError
from qtools.names import is_valid_name


class Producer(NamedTuple):
    """An nsqd that nsqlookupd knows."""

    host: str
    tcp_port: int
    http_port: int


def decode_producers(body: bytes) -> list[Producer]:
    """The producers in a response of /lookup or /nodes; ProtocolError when the body is another."""
    value = _decode(body)
    producers = value.get("producers") or []
    try:
        return [Producer(_host(p["broadcast_address"]), _port(p["tcp_port"]), _port(p["http_port"])) for p in producers]
    except (KeyError, TypeError, ValueError) as error:
        raise ProtocolError("it lists producers in a form that is not nsqlookupd's") from error


def _host(value: Any) -> str:
    if not isinstance(value, str) or not value or not value.isprintable():
        raise ValueError(value)
    return value


def _port(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= 65535:  # 0: an nsqd that does not listen for that protocol
        raise ValueError(value)
    return value


def decode_topics(body: bytes) -> list[str]:
    """The topics in a response of /topics; ProtocolError when the body is another, or has names that no nsqd
    accepts."""
    topics = _decode(body).get("topics") or []
    if not isinstance(topics, list) or not all(isinstance(topic, str) and is_valid_name(topic) for topic in topics):
        raise ProtocolError("it lists topics in a form that is not nsqlookupd's")
    return topics


def decode_channels(body: bytes) -> list[str]:
    """The channels in a response of /channels; ProtocolError when the body is another, or has names that no nsqd
    accepts."""
    channels = _decode(body).get("channels") or []
    if not isinstance(channels, list) or not all(isinstance(name, str) and is_valid_name(name) for name in channels):
        raise ProtocolError("it lists channels in a form that is not nsqlookupd's")
    return channels


def _decode(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ProtocolError("it answers with something that is not JSON") from error
    if isinstance(value, dict) and isinstance(value.get("data"), dict):
        value = value["data"]  # nsqlookupd before 1.0 wrapped its answers
    if not isinstance(value, dict):
        raise ProtocolError("it answers with JSON that is not nsqlookupd's")
    return value


# ── the commands of a producer, and the responses ──────────────────────────────────────────────

MAGIC_V1 = b"  V1"
PING = b"PING\n"
OK = b"OK"

# The longest response is the one to IDENTIFY, which has two host names.
LONGEST_ANSWER = 64 * 1024

_SIZE = struct.Struct(">i")


def identify(producer: Producer, hostname: str, version: str) -> bytes:
    """IDENTIFY, the first command: where the producer listens, and its version."""
    value = {
        "broadcast_address": producer.host,
        "hostname": hostname,
        "http_port": producer.http_port,
        "tcp_port": producer.tcp_port,
        "version": version,
    }
    body = json.dumps(value, separators=(",", ":")).encode()
    return b"IDENTIFY\n" + _SIZE.pack(len(body)) + body


def register(topic: str, channel: str = "") -> bytes:
    """REGISTER: this producer has the topic, and the channel if it is given."""
    return f"REGISTER {topic} {channel}".rstrip().encode() + b"\n"


def unregister(topic: str, channel: str = "") -> bytes:
    """UNREGISTER: this producer no longer has the channel; without a channel: the topic with all its channels."""
    return f"UNREGISTER {topic} {channel}".rstrip().encode() + b"\n"


class AnswerReader:
    """Parses chunks into responses."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes) -> list[bytes]:
        """The responses that are complete with `chunk`; ProtocolError when the peer is not an nsqlookupd."""
        data = self._rest + chunk
        if data[:4] == b"HTTP":
            raise ProtocolError("it answers HTTP", looks_like="HTTP")
        answers: list[bytes] = []
        at = 0
        while len(data) - at >= 4:
            (size,) = _SIZE.unpack_from(data, at)
            if not 0 <= size <= LONGEST_ANSWER:
                raise ProtocolError("what it answers is not nsqlookupd's protocol")
            if len(data) < at + 4 + size:
                break
            answers.append(data[at + 4 : at + 4 + size])
            at += 4 + size
        self._rest = data[at:]
        return answers


def decode_identity(answer: bytes) -> str:
    """Where the nsqlookupd that answered IDENTIFY serves HTTP, "host:port"; "" when it does not name that address.

    ProtocolError when it refused, or is not an nsqlookupd.
    """
    if answer == OK:
        return ""  # nsqlookupd before 0.2.20 sent nothing else
    refusal_of(answer)
    try:
        value = json.loads(answer)
        host, port = _host(value["broadcast_address"]), _port(value["http_port"])
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ProtocolError("what it answers is not nsqlookupd's protocol") from error
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def refusal_of(answer: bytes) -> None:
    """Raise ProtocolError with nsqlookupd's text if `answer` is an error."""
    if answer.startswith(b"E_"):
        text = "".join(char if char.isprintable() else " " for char in answer.decode("utf-8", "replace"))
        raise ProtocolError(f"it refused: {text[:200]}")
