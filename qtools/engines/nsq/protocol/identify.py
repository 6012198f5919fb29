"""The IDENTIFY request and its response. In: values. Out: JSON, and back.

negotiate.py makes the response from the request. The standard library's json parses these few hundred bytes, as the
import of a faster library takes longer than it saves.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, NamedTuple

from qtools.errors import ProtocolError

# So long may messages wait in nsqd's buffer if there are few. Its default, 250 ms, adds 136 ms to the median latency;
# 25 ms, the least that it allows, adds a third of a millisecond.
OUTPUT_BUFFER_TIMEOUT_MS = 25
OUTPUT_BUFFER_SIZE = 65536


class IdentifyRequest(NamedTuple):
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
    """The terms of the connection, as the broker's response has them. Times in ms."""

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
        """Parse the broker's response; a broker that is too old to negotiate sends `OK`."""
        if body == b"OK":
            return cls()
        try:
            fields = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise ProtocolError("the answer to IDENTIFY is not JSON") from error
        if not isinstance(fields, dict):
            raise ProtocolError("the answer to IDENTIFY is not a JSON object")
        agreed = cls()
        for name, kind in _AGREED.items():
            value = fields.get(name, getattr(agreed, name))
            if type(value) is not kind:
                raise ProtocolError(f"the answer to IDENTIFY has {name} = {value!r:.40}, which is no {kind.__name__}")
            if name in _LEAST and not _LEAST[name] <= value < 2**31:
                raise ProtocolError(f"the answer to IDENTIFY has {name} = {value!r:.40}, which cannot be")
            setattr(agreed, name, value)
        if agreed.deflate and not 1 <= agreed.deflate_level <= 9:
            raise ProtocolError(f"the answer to IDENTIFY has deflate_level = {agreed.deflate_level!r:.40}, not 1 to 9")
        return agreed


_AGREED: dict[str, type[Any]] = {name: type(getattr(IdentifyResponse(), name)) for name in IdentifyResponse.__slots__}

# A client divides by these values, so they must not be 0.
_LEAST = {"max_rdy_count": 1, "msg_timeout": 1, "max_msg_timeout": 1}
