"""The broker's side of IDENTIFY. In: the JSON of a request. Out: what the broker grants, or NotGranted.

Fields, ranges and error texts are those of nsqd 1.3.0 (nsqd/client_v2.go and protocol_v2.go).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from qtools.engines.nsq.protocol.identify import IdentifyResponse


@dataclass(slots=True)
class ServerLimits:
    """What a broker can grant; nsqd's option names and defaults, times in ms."""

    version: str = "1.3.0"
    max_rdy_count: int = 2500
    msg_timeout: int = 60_000
    max_msg_timeout: int = 900_000
    heartbeat_interval: int = 30_000
    max_heartbeat_interval: int = 60_000
    output_buffer_timeout: int = 250
    min_output_buffer_timeout: int = 25
    max_output_buffer_timeout: int = 30_000
    max_output_buffer_size: int = 65_536
    tls: bool = False
    snappy: bool = True
    deflate: bool = True
    max_deflate_level: int = 6
    auth_required: bool = False


@dataclass(slots=True)
class NegotiatedClient:
    """What a broker knows of a client after IDENTIFY."""

    client_id: str = ""
    hostname: str = ""
    user_agent: str = ""
    heartbeat_interval: int = 30_000  # 0: none
    msg_timeout: int = 60_000
    sample_rate: int = 0
    negotiates: bool = False
    agreed: IdentifyResponse = field(default_factory=IdentifyResponse)


class NotGranted(Exception):
    """The request cannot be granted: code and text of the error frame."""

    def __init__(self, code: str, text: str) -> None:
        self.code, self.text = code, text
        super().__init__(text)


_ASKED: dict[str, type[Any]] = {
    "client_id": str,
    "hostname": str,
    "user_agent": str,
    "heartbeat_interval": int,
    "output_buffer_size": int,
    "output_buffer_timeout": int,
    "feature_negotiation": bool,
    "tls_v1": bool,
    "deflate": bool,
    "deflate_level": int,
    "snappy": bool,
    "sample_rate": int,
    "msg_timeout": int,
}


def negotiate(body: bytes, grants: ServerLimits) -> NegotiatedClient:
    """Parse the JSON of an IDENTIFY and decide what is granted; NotGranted if it is invalid."""
    asked = _asked(body)
    client = NegotiatedClient(
        client_id=asked["client_id"],
        hostname=asked["hostname"],
        user_agent=asked["user_agent"],
        heartbeat_interval=_ranged(
            "heartbeat interval", asked["heartbeat_interval"], 1000, grants.max_heartbeat_interval,
            default=grants.heartbeat_interval, off=0,
        ),
        negotiates=asked["feature_negotiation"],
    )  # fmt: skip
    agreed = client.agreed = IdentifyResponse(
        version=grants.version,
        max_rdy_count=grants.max_rdy_count,
        max_msg_timeout=grants.max_msg_timeout,
        max_deflate_level=grants.max_deflate_level,
        auth_required=grants.auth_required,
    )
    agreed.output_buffer_timeout = _ranged(
        "output buffer timeout", asked["output_buffer_timeout"],
        grants.min_output_buffer_timeout, grants.max_output_buffer_timeout,
        default=grants.output_buffer_timeout, off=0,
    )  # fmt: skip
    agreed.output_buffer_size = _ranged(
        "output buffer size", asked["output_buffer_size"], 64, grants.max_output_buffer_size,
        default=agreed.output_buffer_size, off=1,
    )  # fmt: skip
    if asked["output_buffer_size"] == -1:
        agreed.output_buffer_timeout = 0
    rate = asked["sample_rate"]
    if not 0 <= rate <= 99:
        raise NotGranted("E_BAD_BODY", f"IDENTIFY sample rate ({rate}) is invalid")
    client.sample_rate = agreed.sample_rate = rate
    client.msg_timeout = agreed.msg_timeout = _ranged(
        "msg timeout", asked["msg_timeout"], 1000, grants.max_msg_timeout, default=grants.msg_timeout
    )
    agreed.tls_v1 = grants.tls and asked["tls_v1"]
    agreed.snappy = grants.snappy and asked["snappy"]
    agreed.deflate = grants.deflate and asked["deflate"]
    level = asked["deflate_level"] if agreed.deflate and asked["deflate_level"] > 0 else 6
    agreed.deflate_level = min(level, grants.max_deflate_level)
    if client.negotiates and agreed.snappy and agreed.deflate:
        raise NotGranted("E_IDENTIFY_FAILED", "cannot enable both deflate and snappy compression")
    if not client.negotiates:
        agreed.tls_v1 = agreed.snappy = agreed.deflate = False
    return client


class _Fields(dict[str, Any]):
    """A JSON object as Go's encoding/json reads it: names match in any case, the last value of a name counts, and null
    is as if the field were absent."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__((name.casefold(), value) for name, value in pairs if value is not None)


def _asked(body: bytes) -> dict[str, Any]:
    """The fields of an IDENTIFY, each present and of its type; null is the same as absent, as in Go."""
    bad = NotGranted("E_BAD_BODY", "IDENTIFY failed to decode JSON body")
    try:
        # As in Go, invalid UTF-8 and a lone surrogate are accepted and become U+FFFD. Otherwise one such client would
        # make every request to /stats fail.
        given = json.loads(body.decode("utf-8", "replace"), object_pairs_hook=_Fields)
    except (ValueError, RecursionError) as error:
        raise bad from error
    if given is None:
        given = _Fields([])
    if not isinstance(given, _Fields):
        raise bad
    asked: dict[str, Any] = {}
    for name, kind in _ASKED.items():
        value: Any = given.get(name)
        if value is None:
            value = kind()
        if type(value) is not kind or (kind is int and not -(2**31) <= value < 2**31):
            raise bad
        if kind is str:
            value = value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        asked[name] = value
    return asked


def _ranged(what: str, value: int, least: int, most: int, *, default: int, off: int | None = None) -> int:
    """`value`, if it is within its range; the default for 0; `off` for -1 where that is allowed."""
    if value == -1 and off is not None:
        return off
    if value == 0:
        return default
    if least <= value <= most:
        return value
    raise NotGranted("E_BAD_BODY", f"IDENTIFY {what} ({value}) is invalid")
