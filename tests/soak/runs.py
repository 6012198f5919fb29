"""qtools soak as a program, and its result. In: words. Out: what it counted."""

from __future__ import annotations

import json
from typing import Any

from harness.brokers import Broker
from harness.shell import Done, Running, Shell


def url_of(broker: Broker, topic: str = "") -> str:
    return f"nsq://{broker.address}" + (f"/{topic}" if topic else "")


def start_soak(shell: Shell, *words: str) -> Running:
    return shell.start("qtools", "soak", *words, "--json")


def result_of(done: Done) -> dict[str, Any]:
    """The result, which is all of stdout."""
    (line,) = done.lines
    result: dict[str, Any] = json.loads(line)
    assert done.status in (0 if result["ok"] else 1, -2), done
    return result
