"""How far a run has come, in a file of one line of JSON. In: a plain object, as work is confirmed. Out: the last one.

It is replaced whole: a new file, renamed over the old one, so that a run killed at any moment finds what it saved
last, never a part of it.
"""

from __future__ import annotations

import contextlib
import json
import os
from typing import Any

from qtools.errors import StartError, UsageError


class StateFile:
    """The file at `path`, which `program` calls its checkpoint."""

    def __init__(self, path: str, program: str) -> None:
        self.path = path
        self._program = program

    def check(self) -> None:
        """Say now what would fail later: no directory to write to; StartError."""
        directory = os.path.dirname(self.path) or "."
        if not os.path.isdir(directory):
            raise StartError(f"cannot write the checkpoint {self.path}: {directory} is no directory")
        if not os.access(directory, os.W_OK | os.X_OK):
            raise StartError(f"cannot write the checkpoint {self.path}: {directory} cannot be written to")

    def load(self) -> Any:
        """What was saved; None when there is no file. UsageError when it is not JSON."""
        try:
            with open(self.path, encoding="utf-8") as file:
                return json.load(file)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StartError(f"cannot read the checkpoint {self.path}: {error.strerror or error}") from error
        except ValueError as error:
            raise self.foreign() from error

    def foreign(self) -> UsageError:
        """The error for a file that holds something else."""
        return UsageError(f"{self.path} is not a checkpoint of {self._program}: remove it to begin anew")

    def save(self, state: dict[str, Any], *, sync: bool = False) -> None:
        """Remember `state`; `sync` to have it on the disk and not only safe from our own death. StartError."""
        fresh = f"{self.path}.{os.getpid()}.tmp"
        try:
            with open(fresh, "w", encoding="utf-8") as file:
                file.write(json.dumps(state) + "\n")
                if sync:
                    file.flush()
                    os.fsync(file.fileno())
            os.replace(fresh, self.path)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.unlink(fresh)
            raise StartError(f"cannot write the checkpoint {self.path}: {error.strerror or error}") from error
