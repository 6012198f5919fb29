"""What the tests of the readers share: both readers, streams of replies, and streams cut into chunks."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qtools.engines.redis.protocol.fast_reader import HiredisReader, Reader
from qtools.engines.redis.protocol.reply_reader import ReplyReader
from qtools.errors import ProtocolError

READERS: dict[str, Callable[[], Reader]] = {"python": ReplyReader, "hiredis": HiredisReader}


@dataclass(frozen=True)
class Recorded:
    """A command and what a real server has answered."""

    server: str
    resp: int
    words: tuple[str | int, ...]
    sent: bytes
    answer: bytes


def recorded() -> list[Recorded]:
    made = json.loads(Path(__file__).with_name("recordings.json").read_text())
    return [
        Recorded(
            each["server"], each["resp"], tuple(case["words"]),
            case["sent"].encode("latin-1"), case["answer"].encode("latin-1"),
        )
        for each in made
        for case in each["cases"]
    ]  # fmt: skip


def bytewise(stream: bytes) -> list[bytes]:
    return [stream[place : place + 1] for place in range(len(stream))]


def cut(stream: bytes, ends: Sequence[int]) -> list[bytes]:
    places = sorted({min(end, len(stream)) for end in ends})
    return [stream[start:stop] for start, stop in zip([0, *places], [*places, len(stream)], strict=True)]


def read_all(make: Callable[[], Reader], chunks: Sequence[bytes]) -> tuple[list[Any], ProtocolError | None]:
    """All replies in `chunks`, and the error that ended the reading."""
    reader = make()
    found: list[Any] = []
    try:
        for chunk in chunks:
            found += reader.read(chunk)
    except ProtocolError as error:
        return found, error
    return found, None
