"""Conversations that no client would have: the recorded ones, broken in every way. In: a seed, a number. Out: bytes.

The same seed and number give the same input, so that one which does harm can be played alone.
"""

from __future__ import annotations

import json
import random
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .inside import identify, mpub, pub

RECORDINGS = Path(__file__).parents[1] / "conformance"

# What a number on the wire may be that a parser does not expect.
_SIZES = [struct.pack(">i", n) for n in (0, 1, -1, 4, 5, 26, 2**31 - 1, -(2**31), 1024 * 1024 + 1, 5 * 1024 * 1024 + 1)]
_DIGITS = [b"0", b"-1", b"2501", b"99999999999999999999", b"1e9", b"0x10", b"\xd9\xa1", b"9" * 400, b""]
_WORDS = [
    *(b"SUB a b\n", b"RDY 1\n", b"RDY 2500\n", b"FIN 0123456789abcdef\n", b"REQ 0123456789abcdef 0\n", b"TOUCH \n"),
    *(b"CLS\n", b"NOP\n", b"DPUB a 10\n\0\0\0\1x", b"AUTH\n\0\0\0\1x", b"IDENTIFY\n\0\0\0\2{}"),
    *(
        pub("a", b"x"),
        mpub("a", b"hello", b"x"),
        identify(),
        identify(snappy=True),
        identify(deflate=True),
        identify(tls_v1=True),
    ),
    *(
        b"  V2",
        b"\r\n",
        b"#ephemeral",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xff\x06\0\0sNaPpY",
        b"\x16\x03\x01",
        b"A" * 20_000,
    ),
]


@dataclass(slots=True)
class Input:
    """What to send; `live` steps have `{idN}` where the N-th message id that came belongs."""

    to: str  # "tcp" or "http"
    steps: list[bytes]
    live: bool = False
    number: int = 0


def _cases(name: str) -> list[dict[str, Any]]:
    cases: list[dict[str, Any]] = json.loads((RECORDINGS / f"{name}.json").read_text())["cases"]
    return cases


def _talks() -> list[list[bytes]]:
    """The steps of every recorded TCP connection."""
    talks: list[list[bytes]] = []
    for case in _cases("tcp"):
        links: dict[str, list[bytes]] = {}
        for step in case["steps"]:
            if "send" in step:
                sent = step["send"].encode("latin-1") * min(step.get("times", 1), 5)
                links.setdefault(step.get("link", "a"), []).append(sent)
        talks += links.values()
    return talks


def _request(method: str, path: str, body: Any = None) -> bytes:
    if isinstance(body, dict):
        body = body.get("lead", "") + "x" * min(body["fill"], 50_000)
    data = (body or "").encode("latin-1")
    return f"{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(data)}\r\n\r\n".encode("latin-1") + data


def _requests() -> list[bytes]:
    """Every recorded HTTP request."""
    return [_request(*step["http"]) for name in ("tcp", "http") for case in _cases(name) for step in case["steps"]
            if "http" in step]  # fmt: skip


TALKS, REQUESTS = _talks(), _requests()


def mutate(data: bytes, draw: random.Random) -> bytes:
    """Break `data` in one to four places."""
    for _ in range(draw.choice((1, 1, 1, 2, 2, 4))):
        at = draw.randrange(len(data) + 1)
        match draw.randrange(9):
            case 0:
                data = data[:at]
            case 1:
                data = data[:at] + draw.randbytes(draw.choice((1, 1, 2, 8))) + data[at + 1 :]
            case 2:
                data = data[:at] + draw.randbytes(draw.choice((1, 4, 64))) + data[at:]
            case 3:
                data = data[:at] + data[at + draw.choice((1, 4, 16)) :]
            case 4:
                data = data[:at] + draw.choice(_SIZES) + data[at + 4 :]
            case 5:
                data = data[:at] + draw.choice(_WORDS) + data[at:]
            case 6:
                data = data[:at] + data[at : at + draw.choice((4, 40))] * draw.choice((2, 3, 50))
            case 7:
                numbers = list(re.finditer(rb"[0-9]+", data))
                if numbers:
                    one = draw.choice(numbers)
                    data = data[: one.start()] + draw.choice(_DIGITS) + data[one.end() :]
            case _:
                other = draw.choice(draw.choice(TALKS))
                data = data[:at] + other[draw.randrange(len(other) + 1) :]
    return data[:200_000]


def make(seed: int, number: int) -> Input:
    """The input with that number."""
    draw = random.Random(seed * 1_000_003 + number)
    kind = draw.randrange(100)
    if kind < 5:
        start = draw.choice((b"", b"  V2", b"  V2IDENTIFY\n", b"POST /mpub?topic=a&binary=true HTTP/1.1\r\n"))
        return Input(draw.choice(("tcp", "http")), [start + draw.randbytes(draw.randrange(2000))], number=number)
    if kind < 35:
        request = b"".join(draw.choices(REQUESTS, k=draw.choice((1, 1, 2, 5))))
        return Input("http", [mutate(request, draw)], number=number)
    talk = draw.choice(TALKS)
    if kind < 50:  # step by step, with ids that are real
        place = draw.randrange(len(talk))
        steps = [mutate(step, draw) if at == place else step for at, step in enumerate(talk)]
        return Input("tcp", steps, live=True, number=number)
    return Input("tcp", [mutate(b"".join(talk), draw)], number=number)
