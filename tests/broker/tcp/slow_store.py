"""A store whose commits end when the test says so."""

from __future__ import annotations

from collections.abc import Callable

from qtools.broker.core.memory_store import MemoryStore
from qtools.broker.core.store import Commit


class SlowStore(MemoryStore):
    """Nothing is safe before the test says so."""

    durable = True

    def __init__(self) -> None:
        super().__init__()
        self.pending: Commit | None = Commit()
        self.turns: list[Commit] = []

    def end_turn(self, seal: Callable[[], None]) -> None:
        seal()
        if self.pending is not None and self.pending.waiters:
            self.turns.append(self.pending)
            self.pending = Commit()
