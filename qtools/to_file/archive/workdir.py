"""The work directory: its lock, and the files in it. In: a path. Out: paths of new work files; files of earlier runs.

    lock                     locked while a process uses the directory; its text names the process
    TOPIC-RUN-N.part         a file that grows
    TOPIC-RUN-N.note         how much of it is synced, and the name it will get
    *.damaged                data that does not agree with a journal; kept for the user to inspect

Two processes never share a work directory: the second gets an error that names the first.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from qtools.errors import StartError
from qtools.to_file.archive.journal import FileJournal, is_file_at
from qtools.to_file.archive.publish_file import make_directories
from qtools.to_file.archive.workfile import DATA, JOURNAL, WorkFile

logger = logging.getLogger("qtools.to_file")

DAMAGED = ".damaged"


class InUse(StartError):
    """Another process uses the work directory."""


class WorkDir:
    """The work directory at `path`, locked until `close`."""

    def __init__(self, path: Path) -> None:
        """Raises InUse when another process has it, StartError when it cannot be used."""
        self.path = path
        self._run = f"{time.time_ns():x}"  # in the names of our own files
        self._made = 0
        try:
            make_directories(path)
            self._lock = _lock(path)
        except BlockingIOError as error:
            raise InUse(
                f"the work directory {path} is in use by {error.strerror}:"
                " wait for its end, or give this one a --work-dir of its own"
            ) from None
        except OSError as error:
            raise StartError(f"cannot use the work directory {path}: {error.strerror or error}") from error

    def secure(self) -> None:
        """Create the directory and the lock in it again, if another process removed, renamed or replaced them.

        OSError when that fails now, as when another process uses the directory.
        """
        if is_file_at(self._lock, self.path / "lock"):
            return
        make_directories(self.path)
        try:
            lock = _lock(self.path)
        except BlockingIOError as error:
            why = f"it was removed or replaced, and is in use by {error.strerror} now"
            raise OSError(error.errno, why, str(self.path)) from None
        os.close(self._lock)
        self._lock = lock
        logger.error(
            "the work directory %s, or the lock in it, was removed or replaced: it is created again", self.path
        )

    def new_stem(self, topic: str) -> Path:
        """The path of a new work file of `topic`, without its suffix."""
        self._made += 1
        return self.path / f"{topic}-{self._run}-{self._made}"

    def left(self) -> Iterator[WorkFile]:
        """The files of earlier runs that have messages; others are removed, or put aside as damaged. OSError when they
        cannot be read."""
        for path in sorted(self.path.glob(f"*{JOURNAL}")):
            name = path.name.removesuffix(JOURNAL)
            if self._is_ours(name):
                continue
            data = path.with_name(name + DATA)
            size = data.stat().st_size if data.exists() else 0
            found = FileJournal.open(path)
            if found is None:
                # A journal is durable before there is any data.
                self._put_aside(path, data, f"its journal cannot be read, and it has {size} bytes" if size else "")
                continue
            journal, head, state = found
            if state.count and (size >= state.length or (state.rev >= 0 and not size)):
                yield WorkFile.found(journal, head, state)
                continue
            journal.close()
            lost = f"it has {size} bytes, and {state.length} with {state.count} messages were synced"
            self._put_aside(path, data, lost if state.count else "")
        for data in self.path.glob(f"*{DATA}"):
            name = data.name.removesuffix(DATA)
            if not self._is_ours(name) and not data.with_name(name + JOURNAL).exists():
                self._put_aside(data, data, "it has no journal" if data.stat().st_size else "")

    def _is_ours(self, name: str) -> bool:
        return name.rpartition("-")[0].endswith(f"-{self._run}")

    def _put_aside(self, journal: Path, data: Path, why: str) -> None:
        """Keep a damaged file under another name, and log `why`; remove it if `why` is ""."""
        for path in {data, journal}:
            if not why:
                path.unlink(missing_ok=True)
            elif path.exists():
                path.rename(path.with_name(path.name + DAMAGED))
        if why:
            logger.error("%s is damaged: %s; it is kept as *%s", data, why, DAMAGED)

    def put_aside_cut(self, data: Path) -> Path | None:
        """Keep what another process left of the work file `data`: its new path, or None if there is nothing."""
        kept = data.with_name(data.name + DAMAGED)
        try:
            data.rename(kept)
        except OSError:
            return None
        return kept

    def close(self) -> None:
        """Release the lock."""
        os.close(self._lock)


def _lock(path: Path) -> int:
    """Lock the directory `path`: the descriptor of its lock file. BlockingIOError, whose text names the process, when
    another process has the lock."""
    lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.pread(lock, 200, 0).decode("utf-8", "replace").strip()
        os.close(lock)
        raise BlockingIOError(error.errno, holder or "another process") from None
    except BaseException:
        os.close(lock)
        raise
    began = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    # On a full disk the lock is still valid; it only does not name this process.
    with contextlib.suppress(OSError):
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"process {os.getpid()} on {socket.gethostname()}, since {began}\n".encode(), 0)
    return lock
