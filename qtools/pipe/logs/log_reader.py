"""Reads logs across their rotations. In: paths and globs, and the entries of a checkpoint. Out: chunks.

The reader decides which log is read next, and finds new logs for a glob; rotating_log.py reads one log. A step returns
a chunk, the end of a file, or that there is nothing to do. A run without `follow` ends when every log was read to its
end. The calls block, and are made in a thread; lines for the user are left in `notes`.
"""

from __future__ import annotations

import contextlib
import glob
import logging
import os
import resource
import time
from collections import deque
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase

from qtools.cli.types import plural
from qtools.errors import InputError, StartError, UsageError
from qtools.pipe.logs.log_file import is_same_file
from qtools.pipe.logs.open_files import RESCAN, LogOptions
from qtools.pipe.logs.rotated_files import RotatedFiles
from qtools.pipe.logs.rotated_names import base_names
from qtools.pipe.logs.rotating_log import POLL, Idle, RotatingLog, Step
from qtools.pipe.logs.rotation import Candidate, Entry

POLL_PER_LOG = 0.0005  # s that each log adds to the pause: a check takes some 5 µs, so that all use 1 % of a core


class FileMissing(InputError):
    """A file with data that was not read, or that may have such data, is not found."""


class LogReader:
    """Reads `inputs`, which are paths and globs. known: path → its entries in the checkpoint."""

    def __init__(self, inputs: Sequence[str], known: dict[str, list[Entry]], options: LogOptions) -> None:
        self.options = options
        self.logs: dict[str, RotatingLog] = {}
        self.notes: deque[tuple[int, str]] = deque()
        self.missing = 0  # files that were not found, and had or may have had data that was not read
        self._inputs = [os.path.abspath(each) for each in inputs]
        self._typed = dict(zip(self._inputs, inputs, strict=True))
        self._rotated_files = RotatedFiles(options.rotated)
        for each in inputs:
            self._rotated_files.note_directory(each)
        self._known = known
        self._known_files: dict[tuple[int, int], list[tuple[str, Entry]]] = {}  # device and inode → path and entry
        for path, entries in known.items():
            for entry in entries:
                self._known_files.setdefault((entry.device, entry.inode), []).append((path, entry))
        self._ready: deque[RotatingLog] = deque()
        self._waiting: list[RotatingLog] = []
        self._look_at = 0.0  # s, monotonic: when all logs are checked again
        self._scan_at = 0.0  # when the globs are expanded again
        self._limit_noted = False
        self._has_begun = False  # whether the logs that existed at the start are open, or have entries
        self._has_globs = any(map(_is_glob, self._inputs))

    def check(self) -> None:
        """Raise UsageError now for a file that does not exist or cannot be read, and for a directory."""
        for each, name in self._typed.items():
            if _is_glob(each):
                found = self._expand(each)
                if not found and not self.options.follow and not any(map(self._is_of(each), self._known)):
                    raise UsageError(f"{name} leads to no file")
                if not found and self.options.follow:
                    self.notes.append((logging.WARNING, f"nothing matches {name!r} yet; waiting"))
            elif os.path.isdir(each):
                raise UsageError(f"{name} is a directory")
            elif os.path.exists(each) and not os.path.isfile(each):
                raise UsageError(f"{name} is no regular file, and only those are followed")
            elif self.options.follow and not os.path.lexists(each):
                self.notes.append((logging.WARNING, f"{name} is not there yet; waiting"))
            elif not self.options.follow and (os.path.lexists(each) or each not in self._known):
                try:
                    os.close(os.open(each, os.O_RDONLY))
                except OSError as error:
                    raise UsageError(f"cannot read {name}: {error.strerror or error}") from error
        if self.options.follow:
            _allow_open_files()
        self._scan()
        for log in self.logs.values():
            log.begin()
        self._has_begun = True

    def step(self) -> Step | None:
        """The next step; None at the end. A reader that follows has no end."""
        looked = False
        while True:
            if self._ready:
                log = self._ready.popleft()
                step = log.step()
                if step is None:
                    if not self.options.follow:
                        log.rest()
                    continue
                if isinstance(step, Idle):
                    self._waiting.append(log)
                    continue
                # Without `follow` one log after the other; with it all logs in turn.
                (self._ready.append if self.options.follow else self._ready.appendleft)(log)
                return step
            now = time.monotonic()
            if not self.options.follow:
                if not self._waiting:
                    return None
                self._ready.extend(self._waiting)
                self._waiting.clear()
                return Idle(POLL / 2)
            if looked or now < self._look_at:
                return Idle(max(0.0, self._look_at - now))
            looked = True
            if self._has_globs and now >= self._scan_at:
                self._scan()
            self._waiting.clear()
            self._ready.extend(log for log in list(self.logs.values()) if log.has_news(now))
            self._look_at = now + POLL + POLL_PER_LOG * len(self.logs)

    @property
    def lag(self) -> dict[str, int]:
        """Name of each log → bytes in its files that are not confirmed. May be called from another thread."""
        return {log.name: log.lag for log in list(self.logs.values())}

    def close(self) -> None:
        for log in self.logs.values():
            log.close()

    # ── which logs there are ──

    def _scan(self) -> None:
        """Find the logs that match the inputs now. A rotated file of another log is not a log itself."""
        paths: dict[str, None] = {}
        for each in self._inputs:
            paths.update(dict.fromkeys(self._expand(each) if _is_glob(each) else [each]))
            if _is_glob(each):  # a log that was removed may be created again
                paths.update(dict.fromkeys(filter(self._is_of(each), self._known)))
        all_known = paths.keys() | self.logs.keys() | self._known.keys()
        named: dict[str, list[str]] = {}
        logs: list[str] = []
        for path in paths:
            directory, name = os.path.split(path)
            bases = [base for base in (os.path.join(directory, each) for each in base_names(name)) if base in all_known]
            if bases:
                named.setdefault(bases[0], []).append(path)
            else:
                logs.append(path)
        for path in logs:
            if path not in self.logs:
                log = RotatingLog(
                    path, list(self._known.get(path, [])), named.get(path, []), self.options, self._rotated_files, self
                )
                self.logs[path] = log
                self._ready.append(log)
        self._scan_at = time.monotonic() + RESCAN

    def _expand(self, pattern: str) -> list[str]:
        if os.path.lexists(pattern):
            return [pattern]
        found = [path for path in sorted(glob.glob(self._typed[pattern], recursive=True)) if os.path.isfile(path)]
        return list(map(self._rotated_files.note_directory, found))

    @staticmethod
    def _is_of(pattern: str) -> Callable[[str], bool]:
        """A function that tells whether a path matches the glob."""
        any_depth = "**" in pattern
        return lambda path: fnmatchcase(path, pattern) and (any_depth or path.count("/") == pattern.count("/"))

    # ── called by the logs ──

    def entry_elsewhere(self, candidate: Candidate, path: str) -> tuple[bool, Entry | None]:
        """Whether another log reads this file now, under its former name; otherwise the entry of another log for it."""
        others = [(each.path, each) for each in self.logs.values() if each.path != path] if self._has_begun else []
        if any(each.has_open(candidate) for _, each in others):
            return True, None
        known = self._known_files.get((candidate.device, candidate.inode), [])
        for other, entry in [*((name, entry) for name, each in others for entry in each.entries), *known]:
            if other != path and candidate.is_file_of(entry) and is_same_file(candidate, entry):
                return False, entry
        return False, None

    def note_limit(self) -> None:
        """Note that the process may not open more files; StartError during the start."""
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        text = (
            f"{plural(len(self.logs), 'log')} cannot be followed: each takes an open file, and this process may have"
            f" {most} of them: raise the limit (ulimit -n, LimitNOFILE=), or follow fewer logs with each process"
        )
        if not self._has_begun:
            raise StartError(text)
        if not self._limit_noted:
            self.notes.append((logging.WARNING, text))
        self._limit_noted = True

    def note_missing(self, text: str) -> None:
        """Note that a file is missing; FileMissing unless missing files are skipped."""
        if not self.options.skip_missing:
            raise FileMissing(
                f"{text}. The log was read no further; --rotated GLOB says where the file is, --on-missing skip goes on"
                " without it"
            )
        self.missing += 1
        self.notes.append((logging.ERROR, f"{text}; going on without"))


def _is_glob(path: str) -> bool:
    """Whether `path` is a glob, and not the name of an existing file."""
    return glob.has_magic(path) and not os.path.lexists(path)


def _allow_open_files() -> None:
    """Raise the limit of open files to the most that this user may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
