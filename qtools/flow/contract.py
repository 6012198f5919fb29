"""What the loop needs of both ends, and nothing else: another engine is one Source and one Sink more.

A batch is acknowledged by the loop, and only after the sink has said that it is safe.
"""

from __future__ import annotations

from typing import Protocol

from qtools.message import Batch


class Source(Protocol):
    """Where messages come from."""

    async def read(self) -> Batch | None:
        """The next batch as soon as there is one; None at the end. Raises InputError for damaged input."""

    async def close(self) -> None:
        """Give back what was read and not finished, and let go. Called once, after the last read."""


class Sink(Protocol):
    """Where messages go."""

    async def write(self, batch: Batch) -> None:
        """Return when all of `batch` is safe.

        Raises PartialFailure when some of it is not (the rest is), SinkClosed when nobody reads any more,
        any other SinkError when it took no more than the first so many; any other QtoolsError when nothing of
        it is known to be safe.
        """

    async def close(self) -> None:
        """Let go. Called once, after the last write has returned."""
