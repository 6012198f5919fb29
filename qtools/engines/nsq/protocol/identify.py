"""The handshake's two sayings: what a client asks for, what both sides then go by. In: values. Out: JSON, and back.

How a broker gets from one to the other is in negotiate.py. The standard library's json reads these few
hundred bytes: importing a faster one costs more than it could ever save here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from qtools.errors import ProtocolError

# A slow subscriber's messages wait this long in nsqd's buffer: its default of 250 ms adds 136 ms to the
# median, 25 ms (the least it allows) a third of one.
OUTPUT_BUFFER_TIMEOUT_MS = 25
OUTPUT_BUFFER_SIZE = 65536


@dataclass(slots=True)
class IdentifyRequest:
    """What a client asks for. Times in ms; 0 leaves nsqd's default."""

    client_id: str = ""
    hostname: str = ""
    user_agent: str = ""
    heartbeat_interval: int = 30_000
    msg_timeout: int = 0
    output_buffer_size: int = OUTPUT_BUFFER_SIZE
    output_buffer_timeout: int = OUTPUT_BUFFER_TIMEOUT_MS
    tls_v1: bool = False
    snappy: bool = False
    deflate: bool = False
    deflate_level: int = 6

    def encode(self) -> bytes:
        """The body of IDENTIFY."""
        return json.dumps(
            {
                "client_id": self.client_id,
                "hostname": self.hostname,
                "user_agent": self.user_agent,
                "feature_negotiation": True,
                "heartbeat_interval": self.heartbeat_interval,
                "msg_timeout": self.msg_timeout,
                "output_buffer_size": self.output_buffer_size,
                "output_buffer_timeout": self.output_buffer_timeout,
                "tls_v1": self.tls_v1,
                "snappy": self.snappy,
                "deflate": self.deflate,
                "deflate_level": self.deflate_level,
            }
        ).encode()


@dataclass(slots=True)
class IdentifyResponse:
    """What both sides go by from here on, as the broker's answer says it. Times in ms."""

    version: str = ""
    max_rdy_count: int = 2500
    msg_timeout: int = 60_000
    max_msg_timeout: int = 900_000
    tls_v1: bool = False
    snappy: bool = False
    deflate: bool = False
    deflate_level: int = 6
    max_deflate_level: int = 6
    sample_rate: int = 0
    auth_required: bool = False
    output_buffer_size: int = 16_384
    output_buffer_timeout: int = 250

    def encode(self) -> bytes:
        """The broker's answer."""
        return json.dumps({name: getattr(self, name) for name in _AGREED}, separators=(",", ":")).encode()

    @classmethod
    def decode(cls, body: bytes) -> IdentifyResponse:
        """Read the broker's answer; `OK` is that of a broker too old to negotiate."""
        if body == b"OK":
            return cls()
        try:
            told = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise ProtocolError("the answer to IDENTIFY is not JSON") from error
        if not isinstance(told, dict):
            raise ProtocolError("the answer to IDENTIFY is not a JSON object")
        agreed = cls()
        for name, kind in _AGREED.items():
            value = told.get(name, getattr(agreed, name))
            if type(value) is not kind:
                raise ProtocolError(f"the answer to IDENTIFY has {name} = {value!r:.40}, which is no {kind.__name__}")
            if name in _LEAST and not _LEAST[name] <= value < 2**31:
                raise ProtocolError(f"the answer to IDENTIFY has {name} = {value!r:.40}, which cannot be")
            setattr(agreed, name, value)
        if agreed.deflate and not 1 <= agreed.deflate_level <= 9:
            raise ProtocolError(f"the answer to IDENTIFY has deflate_level = {agreed.deflate_level!r:.40}, not 1 to 9")
        return agreed


_AGREED: dict[str, type[Any]] = {name: type(getattr(IdentifyResponse(), name)) for name in IdentifyResponse.__slots__}

# A client divides its time and its messages by these: none of them may be nothing.
_LEAST = {"max_rdy_count": 1, "msg_timeout": 1, "max_msg_timeout": 1}
