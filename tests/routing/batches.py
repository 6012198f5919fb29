"""Batches for tests that acknowledge none of their messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qtools.message import Batch


class Nowhere:
    """The origin of messages that nothing acknowledges."""

    topic = "source"
    address = ""
    is_lost = False

    def finish(self, ids: Sequence[Any]) -> None: ...
    def requeue(self, ids: Sequence[Any], delay_ms: int) -> None: ...
    def touch(self, ids: Sequence[Any]) -> None: ...


def batch(some: list[bytes]) -> Batch:
    return Batch.of_bodies(Nowhere(), some)
