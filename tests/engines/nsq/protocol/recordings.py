"""The recorded conversations as bytes. In: tests/conformance/*.json. Out: what each client sent, what nsqd answered.

A recording has texts (latin-1) with `{idN}` for the N-th message id of its case. Here every id becomes 16 hex digits
and every frame becomes bytes, put together with struct alone: the code under test has no hand in it.
"""

from __future__ import annotations

import json
import re
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[3] / "conformance"

KINDS = {"response": 0, "error": 1, "message": 2}
TIMESTAMP = 1_795_423_263_123_456_789  # the recordings leave it out; any int64 will do


@dataclass
class Step:
    """What a client sent at once, and the frames that came back before it sent more."""

    sent: bytes
    answers: list[dict[str, Any]]
    raw: list[bytes]
    same: list[str]


@dataclass
class Talk:
    """One connection of a case."""

    name: str
    steps: list[Step] = field(default_factory=list)

    @property
    def sent(self) -> bytes:
        return b"".join(step.sent for step in self.steps)

    @property
    def raw(self) -> list[bytes]:
        return [frame for step in self.steps for frame in step.raw]

    @property
    def errors(self) -> list[str]:
        return [answer["data"] for step in self.steps for answer in step.answers if answer["type"] == "error"]

    def __str__(self) -> str:
        return self.name


def ident(place: int) -> bytes:
    """The N-th message id of a case."""
    return b"0a1b2c3d4e5f%04x" % place


def expand(text: str) -> bytes:
    """`{idN}` → the id; the rest as it is."""
    return re.sub(r"\{id(\d+)\}", lambda found: ident(int(found[1])).decode(), text).encode("latin-1")


def data_of(answer: dict[str, Any], fresh: int) -> bytes:
    """The data of a recorded frame; `fresh` is the id of a message that was recorded without one."""
    if answer["type"] == "message":
        body = answer["body"].encode("latin-1")
        name = expand(answer["id"]) if "id" in answer else ident(fresh)
        return struct.pack(">qH", TIMESTAMP, answer["attempts"]) + name + body
    return json.dumps(answer["json"]).encode() if "json" in answer else expand(answer["data"])


def frame(kind: int, data: bytes) -> bytes:
    return struct.pack(">ii", 4 + len(data), kind) + data


def talks() -> list[Talk]:
    """Every recorded connection, named for its case and, where a case has several, for its link."""
    found: list[Talk] = []
    for book in ("tcp.json", "http.json"):
        for case in json.loads((FOLDER / book).read_text())["cases"]:
            pool: dict[str, Talk] = {}
            for place, step in enumerate(case["steps"]):
                if "send" not in step:
                    continue
                link = step.get("link", "a")
                name = case["name"] if link == "a" else f"{case['name']} ({link})"
                if book == "http.json":
                    name = f"http {name}"
                talk = pool.setdefault(link, Talk(name))
                raw = [
                    frame(KINDS[answer["type"]], data_of(answer, 256 * place + fresh))
                    for fresh, answer in enumerate(step["frames"])
                ]
                sent = expand(step["send"]) * step.get("times", 1)
                talk.steps.append(Step(sent, step["frames"], raw, step.get("same", [])))
            found += pool.values()
    return found


TALKS = talks()
