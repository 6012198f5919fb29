"""Points in time in requests, and messages in answers. In: text, ranges. Out: ns, plain data.

POST /channel/create?topic=T&channel=C&from=TIME      TIME: beginning, RFC 3339, s to ns since 1970
GET  /channel/peek?topic=T&channel=C&count=N          the first N that wait; they are not delivered, and not counted as
                                                      such. If the topic has no channels: what C would get first.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

from qtools import times
from qtools.broker.core.block import HEAD, MessageRange

MOST = 10_000  # messages in one answer of /channel/peek


def parse_time(text: str) -> int:
    """Convert a point in time to ns since 1970. Raises ValueError."""
    if text == "beginning":
        return 0
    when = times.parse_time(text, needs_zone=True)
    if when >= 1 << 63:
        raise ValueError(f"{text} is later than any message can be")
    return max(0, when)


def describe(runs: Sequence[MessageRange]) -> list[dict[str, Any]]:
    """Messages as plain data for JSON. attempts: how often each was delivered so far."""
    messages: list[dict[str, Any]] = []
    for run in runs:
        block = run.block
        for place, ident in enumerate(block.ids(run.start, run.stop), run.start):
            body = block.frames[block.offset(place) + HEAD : block.offset(place + 1)]
            message: dict[str, Any] = {
                "id": ident.decode(),
                "timestamp": block.timestamp,
                "attempts": run.attempts,
            }
            try:
                message["body"] = body.decode()
            except UnicodeDecodeError:
                message["body_base64"] = base64.b64encode(body).decode()
            messages.append(message)
    return messages
