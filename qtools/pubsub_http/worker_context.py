"""One worker among several processes: its number, and what it shares with the others. Plain data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from qtools.pubsub_http.metrics import SharedCounters


@dataclass(frozen=True, slots=True)
class WorkerContext:
    """Worker `number` of `count`.

    directory: the private directory with the workers' sockets. counters: the counters of all workers. lifeline: a file
    descriptor that becomes readable, at the end of the file, when the parent process ends.
    """

    number: int
    count: int
    directory: Path
    counters: SharedCounters
    lifeline: int

    def socket_of(self, number: int) -> str:
        """The unix socket at which worker `number` listens for the other workers."""
        return str(self.directory / f"{number}.sock")
