"""What the tests of Dedupe share: a file of keys, and which keys it knows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from qtools.flow.dedupe import DUPLICATE, Dedupe

WINDOW = 100.0


@contextmanager
def opened(path: Path, *, window: float = WINDOW, max_keys: int = 1000) -> Iterator[Dedupe]:
    with closing(Dedupe(path, window=window, max_keys=max_keys)) as made:
        yield made


def keys(*numbers: int) -> list[bytes]:
    return [b"key %d" % number for number in numbers]


def known(path: Path, wanted: list[bytes], **bounds: float) -> list[bool]:
    """Which of `wanted` a fresh opening calls duplicates."""
    with opened(path, **bounds) as made:  # type: ignore[arg-type]
        return [verdict is DUPLICATE for verdict in made.check_and_reserve(wanted, 1.0)]
