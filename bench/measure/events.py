"""The messages: a file of lines in the shape of the demo's records. In: how many, how long. Out: a file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path

from measure.processes import BenchError

DEMO = Path(__file__).parents[2] / "demo" / "events.jsonl"


def make_events(count: int, size: int) -> list[bytes]:
    """`count` different records, without newlines, `size` bytes long on average: to the byte, taken together.

    They are the demo's records over and over, each with an id of its own, without the context that a browser adds;
    `trace` fills them up, all alike, so that they are as unequally long as the demo's.
    """
    records = [json.loads(line) for line in DEMO.read_bytes().splitlines()]
    bare = [as_bytes(record | {"messageId": f"{n:012x}"}) for n, record in enumerate(islice(cycle(records), count))]
    missing = count * size - sum(map(len, bare))
    if missing < 0:
        raise BenchError(f"records of {size} bytes cannot be made: the least is {-(-sum(map(len, bare)) // count)}")
    return [fill(line, share) for line, share in zip(bare, shares(missing, count), strict=True)]


def as_bytes(record: dict[str, object]) -> bytes:
    record.pop("context", None)
    return json.dumps(record | {"trace": ""}, ensure_ascii=False, separators=(",", ":")).encode()


def fill(line: bytes, share: int) -> bytes:
    return line[:-2] + b"x" * share + line[-2:]


def shares(total: int, count: int) -> Iterator[int]:
    """`total` in `count` whole parts as equal as can be, the larger ones spread out evenly."""
    return (total * (n + 1) // count - total * n // count for n in range(count))


class Events:
    """The same messages in files of several lengths, made when first wanted."""

    def __init__(self, directory: Path, count: int, size: int) -> None:
        self._directory = directory
        self._lines = make_events(count, size)
        self._sorted: dict[int, list[bytes]] = {}

    def file(self, count: int) -> Path:
        """A file of the first `count` messages, a line each."""
        path = self._directory / f"events-{count}.jsonl"
        if not path.exists():
            path.write_bytes(b"".join([line + b"\n" for line in self._lines[:count]]))
        return path

    def bytes_of(self, count: int) -> int:
        """How many bytes the first `count` bodies have together."""
        return sum(map(len, self._lines[:count]))

    def difference(self, received: Path, count: int) -> str:
        """What is wrong with a file that should hold the first `count` messages in any order; "" when nothing is."""
        lines = received.read_bytes().split(b"\n")
        if lines.pop():
            return "the last line is cut"
        if len(lines) != count:
            return f"{len(lines):,} of {count:,} messages"
        if count not in self._sorted:
            self._sorted[count] = sorted(self._lines[:count])
        return "" if sorted(lines) == self._sorted[count] else "other messages than were sent"
