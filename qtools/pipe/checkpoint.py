"""How far a run has come, in a file. In: positions as they are confirmed. Out: where the next run begins.

One line of JSON, replaced whole (a new file, renamed over the old one) at every confirmed batch, so that a
run killed at any moment goes on behind its last confirmed message: what was sent and not yet confirmed, a
window at most, is sent again, and nothing is left out.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence

from qtools.errors import StartError, UsageError
from qtools.pipe.input import Position


class Checkpoint:
    """The file at `path`, for a run that reads `names` to `topic`."""

    def __init__(self, path: str, topic: str, names: Sequence[str]) -> None:
        self.path = path
        self._topic = topic
        self._names = [name if name == "-" else os.path.abspath(name) for name in names]

    def check(self) -> None:
        """Say now what would fail later: no directory to write to; StartError."""
        directory = os.path.dirname(self.path) or "."
        if not os.path.isdir(directory):
            raise StartError(f"cannot write the checkpoint {self.path}: {directory} is no directory")
        if not os.access(directory, os.W_OK | os.X_OK):
            raise StartError(f"cannot write the checkpoint {self.path}: {directory} cannot be written to")

    def load(self) -> Position:
        """Where to begin: the very start when there is no file. UsageError when it is another run's."""
        try:
            with open(self.path, encoding="utf-8") as file:
                told = json.load(file)
            position = Position(*(int(told[key]) for key in ("file", "offset", "total", "messages")))
            topic, names = told["topic"], told["inputs"]
        except FileNotFoundError:
            return Position()
        except OSError as error:
            raise StartError(f"cannot read the checkpoint {self.path}: {error.strerror or error}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(f"{self.path} is not a checkpoint of q-pipe: remove it to begin anew") from error
        if topic != self._topic or names != self._names:
            raise UsageError(
                f"the checkpoint {self.path} is of another run (topic {topic}, inputs {' '.join(map(str, names))}):"
                " name another, or remove it to begin anew"
            )
        return position

    def save(self, position: Position, *, sync: bool = False) -> None:
        """Remember `position`; `sync` to have it on the disk and not only safe from our own death."""
        told = {
            "topic": self._topic,
            "inputs": self._names,
            "file": position.file,
            "offset": position.offset,
            "total": position.total,
            "messages": position.messages,
        }
        fresh = f"{self.path}.{os.getpid()}.tmp"
        try:
            with open(fresh, "w", encoding="utf-8") as file:
                file.write(json.dumps(told) + "\n")
                if sync:
                    file.flush()
                    os.fsync(file.fileno())
            os.replace(fresh, self.path)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.unlink(fresh)
            raise StartError(f"cannot write the checkpoint {self.path}: {error.strerror or error}") from error
