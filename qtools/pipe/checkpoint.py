"""How far a run has come, in a file. In: positions as they are confirmed. Out: where the next run begins.

Saved at every confirmed batch, so that a run killed at any moment goes on behind its last confirmed message: what was
sent and not yet confirmed, a window at most, is sent again, and nothing is left out.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from qtools.cli.statefile import StateFile
from qtools.errors import UsageError
from qtools.pipe.input import Position


class Checkpoint:
    """The file at `path`, for a run that reads `names` to `topic`."""

    def __init__(self, path: str, topic: str, names: Sequence[str]) -> None:
        self._file = StateFile(path, "q-pipe")
        self._topic = topic
        self._names = [name if name == "-" else os.path.abspath(name) for name in names]

    def check(self) -> None:
        """Say now what would fail later: no directory to write to; StartError."""
        self._file.check()

    def load(self) -> Position:
        """Where to begin: the very start when there is no file. UsageError when it is another run's."""
        told = self._file.load()
        if told is None:
            return Position()
        try:
            position = Position(*(int(told[key]) for key in ("file", "offset", "total", "messages")))
            topic, names = told["topic"], told["inputs"]
        except (ValueError, KeyError, TypeError) as error:
            raise self._file.foreign() from error
        if topic != self._topic or names != self._names:
            raise UsageError(
                f"the checkpoint {self._file.path} is of another run (topic {topic}, inputs"
                f" {' '.join(map(str, names))}): name another, or remove it to begin anew"
            )
        return position

    def save(self, position: Position, *, sync: bool = False) -> None:
        """Remember `position`; `sync` to have it on the disk and not only safe from our own death."""
        self._file.save(
            {
                "topic": self._topic,
                "inputs": self._names,
                "file": position.file,
                "offset": position.offset,
                "total": position.total,
                "messages": position.messages,
            },
            sync=sync,
        )
