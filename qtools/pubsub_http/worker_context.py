"""One worker among several processes: its number, and what it shares with the others. Plain data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from qtools.pubsub_http.metrics import Board


@dataclass(frozen=True, slots=True)
class WorkerContext:
    """Worker `number` of `count`.

    room: the private directory with the workers' sockets. board: everybody's numbers. lifeline: a file descriptor at
    which the worker reads the end of the file when the parent ends.
    """

    number: int
    count: int
    room: Path
    board: Board
    lifeline: int

    def socket_of(self, number: int) -> str:
        """The unix socket at which worker `number` listens for the other workers."""
        return str(self.room / f"{number}.sock")
