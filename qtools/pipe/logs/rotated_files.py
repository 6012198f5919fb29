"""Finds the rotated files of logs. In: the path of a log. Out: its rotated files, and how the user names them."""

from __future__ import annotations

import glob
import os
import time
from collections.abc import Iterator, Sequence

from qtools.pipe.logs.log_file import look_at
from qtools.pipe.logs.rotated_names import base_names, in_rotation_order, without_unfinished
from qtools.pipe.logs.rotation import Candidate

SETTLED = 1_000_000_000  # ns after a change of a directory until each later change gives it another mtime
FINE_SETTLED = 50_000_000  # the same for file systems with finer times: a tick of their clock takes up to 10 ms
TRIES = 20  # attempts to see the same files twice, while files are renamed


class RotatedFiles:
    """patterns: globs of rotated files, in which `{name}` is the file name of the log; () for the files beside it."""

    def __init__(self, patterns: Sequence[str] = ()) -> None:
        self._patterns = patterns
        self._typed: dict[str, str] = {}  # absolute path of a directory → the path that the user typed
        self._names: dict[str, _Directory] = {}

    @property
    def place(self) -> str:
        """The globs of rotated files as the user typed them; "" for files beside their log."""
        return " ".join(self._patterns)

    def note_directory(self, path: str) -> str:
        """Remember how the user typed the directory of `path`. Returns the absolute path."""
        absolute = os.path.abspath(path)
        self._typed.setdefault(os.path.dirname(absolute), os.path.dirname(path))
        return absolute

    def name_of(self, path: str) -> str:
        """An absolute path in the form that the user typed."""
        directory, name = os.path.split(path)
        typed = self._typed.get(directory)
        return path if typed is None else os.path.join(typed, name)

    def find(self, path: str) -> list[Candidate]:
        """The rotated files of the log at `path`, oldest first."""
        found = self._look(path)
        for _ in range(TRIES):  # a file that is renamed meanwhile may be seen under both names, or under none
            before, found = found, self._look(path)
            if [(each.path, each.inode) for each in found] == [(each.path, each.inode) for each in before]:
                break
        return in_rotation_order(without_unfinished(found))

    def changed(self, path: str) -> int | None:
        """The mtime, ns since 1970, of the directory with the rotated files of the log at `path`; None if a change may
        not alter it."""
        if self._patterns:
            return None
        try:
            changed = os.stat(os.path.dirname(path)).st_mtime_ns
        except OSError:
            return None
        return changed if _is_settled(changed) else None

    def _look(self, path: str) -> list[Candidate]:
        directory, name = os.path.split(path)
        if self._patterns:
            patterns = [each.replace("{name}", glob.escape(name)) for each in self._patterns]
            paths = sorted({self.note_directory(each) for pattern in patterns for each in glob.glob(pattern)} - {path})
        else:
            paths = [os.path.join(directory, each) for each in self._names_in(directory).get(name, [])]
        return [each for each in map(look_at, paths) if each is not None]

    def _names_in(self, directory: str) -> dict[str, list[str]]:
        """Name of a log → its rotated files in the directory. Cached until the directory changes: for a thousand logs
        in one directory, its names are parsed once and not a thousand times."""
        kept = self._names.get(directory)
        try:
            changed = os.stat(directory).st_mtime_ns
            if kept is not None and kept.changed == changed:
                return kept.rotated
            names = os.listdir(directory)
        except OSError:
            return {}
        if kept is None or kept.names != names:
            kept = self._names[directory] = _Directory(names)
        kept.changed = changed if _is_settled(changed) else -1  # a change within the same tick keeps the mtime
        return kept.rotated


class _Directory:
    """names: of the files in the directory. rotated: name of a log → names that may be its rotated files. changed: the
    mtime of the directory, ns since 1970; -1 if a change may not alter it."""

    def __init__(self, names: list[str]) -> None:
        self.names = names
        self.changed = -1
        self.rotated: dict[str, list[str]] = {}
        for name, base in _names_and_bases(names):
            self.rotated.setdefault(base, []).append(name)


def _names_and_bases(names: list[str]) -> Iterator[tuple[str, str]]:
    for name in sorted(names):
        for base in base_names(name):
            yield name, base


def _is_settled(changed: int) -> bool:
    """Whether a change that happens now alters the mtime of the directory."""
    return time.time_ns() - changed > (FINE_SETTLED if changed % 1_000_000_000 else SETTLED)
