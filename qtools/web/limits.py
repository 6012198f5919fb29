"""What the HTTP server accepts from each client."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """head: bytes of the head of a request. Go's limit is 1 MiB; no client of these APIs needs a hundredth of it.
    request: s that a new client may send nothing, and that a head may take to arrive.
    idle: s between two requests, and s without a byte of a body whose length was not announced.
    connections: clients at once; None for any number.
    """

    head: int = 64 * 1024
    request: float = 60.0
    idle: float = 60.0
    connections: int | None = None
