"""The words spoken to nsqlookupd. In: what it answers. Out: where the producers are; what a producer says to it.

HTTP, for those who look for producers:

    GET /lookup?topic=T    →  {"channels": […], "producers": [{"broadcast_address", "tcp_port", "http_port", …}]}
    GET /nodes             →  {"producers": […]}        404 TOPIC_NOT_FOUND is a normal answer: nobody yet
    GET /topics            →  {"topics": […]}
    GET /channels?topic=T  →  {"channels": […]}

TCP, for producers; every command is answered, in order, with size 4 | data, and most with OK:

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


def decode_channels(body: bytes) -> list[str]:
    """The channels in an answer of /channels; ProtocolError when it is none, or one that no nsqd would take."""
    channels = _decode(body).get("channels") or []
    if not isinstance(channels, list) or not all(isinstance(name, str) and is_valid_name(name) for name in channels):
        raise ProtocolError("it lists channels in a form that is not nsqlookupd's")
    return channels


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


# ── what a producer says, and hears ─────────────────────────────────────────────────────────────

MAGIC_V1 = b"  V1"
PING = b"PING\n"
OK = b"OK"

# The longest answer is the one to IDENTIFY, with two names of hosts in it.
LONGEST_ANSWER = 64 * 1024

_SIZE = struct.Struct(">i")


def identify(producer: Producer, hostname: str, version: str) -> bytes:
    """Who this producer is: the first command."""
    told = {
        "broadcast_address": producer.host,
        "hostname": hostname,
        "http_port": producer.http_port,
        "tcp_port": producer.tcp_port,
        "version": version,
    }
    body = json.dumps(told, separators=(",", ":")).encode()
    return b"IDENTIFY\n" + _SIZE.pack(len(body)) + body


def register(topic: str, channel: str = "") -> bytes:
    """This producer has the topic, and the channel."""
    return f"REGISTER {topic} {channel}".rstrip().encode() + b"\n"


def unregister(topic: str, channel: str = "") -> bytes:
    """This producer has the channel no more; without one: the topic, and no channel of it."""
    return f"UNREGISTER {topic} {channel}".rstrip().encode() + b"\n"


class AnswerReader:
    """Chunks → answers."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes) -> list[bytes]:
        """The answers that are whole now; ProtocolError when the other side is no nsqlookupd."""
        data = self._rest + chunk
        if data[:4] == b"HTTP":
            raise ProtocolError("it answers HTTP", spoke="HTTP")
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
    """Where the nsqlookupd that answered IDENTIFY serves HTTP, "host:port"; "" when it does not say so.

    ProtocolError when it refused, or is none.
    """
    if answer == OK:
        return ""  # nsqlookupd before 0.2.20 said no more
    refusal_of(answer)
    try:
        told = json.loads(answer)
        host, port = _host(told["broadcast_address"]), _port(told["http_port"])
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ProtocolError("what it answers is not nsqlookupd's protocol") from error
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def refusal_of(answer: bytes) -> None:
    """ProtocolError with nsqlookupd's own words when the answer is a refusal."""
    if answer.startswith(b"E_"):
        text = "".join(char if char.isprintable() else " " for char in answer.decode("utf-8", "replace"))
        raise ProtocolError(f"it refused: {text[:200]}")
