"""Points in time as requests write them, and messages as a look at them tells. In: text, runs. Out: ns, plain data.

POST /channel/create?topic=T&channel=C&from=TIME      TIME: beginning, RFC 3339, seconds or ns since 1970
GET  /channel/peek?topic=T&channel=C&count=N          the first N that wait, neither delivered nor counted as it
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from qtools.broker.block import HEAD, Run

MOST = 10_000  # messages in one look
_NANOSECONDS_FROM = 10**14  # a number this large means nanoseconds, as messages tell their time


def parse_time(text: str) -> int:
    """A point in time as ns since 1970; ValueError when it is none."""
    if text == "beginning":
        return 0
    if re.fullmatch(r"[0-9]{1,18}|[1-8][0-9]{18}", text) and int(text) >= _NANOSECONDS_FROM:
        return int(text)
    if re.fullmatch(r"[0-9]{1,10}(\.[0-9]{1,9})?", text):
        seconds, _, fraction = text.partition(".")
        return int(seconds) * 10**9 + int(fraction.ljust(9, "0"))
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text} does not say in which time zone")
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return max(0, (since.days * 86400 + since.seconds) * 10**9 + since.microseconds * 1000)


def describe(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Messages as JSON has them; `attempts` is how often each was delivered so far."""
    told: list[dict[str, Any]] = []
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
            told.append(message)
    return told
