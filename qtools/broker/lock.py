"""One process for each data directory. In: the directory. Out: its lock, or who has it.

The lock is on a file in it, which has the pid of the holder in it, and lasts as long as the process.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from qtools.errors import StartError


def lock_path(directory: Path) -> Path:
    """The file whose lock the one process holds."""
    return directory / "lock"


def try_lock(directory: Path) -> int | None:
    """Take the lock: a file descriptor that holds it as long as it is open, or None when another process has it."""
    path = lock_path(directory)
    try:
        held = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StartError(f"cannot open {path}: {error.strerror}") from error
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(held)
        return None
    except OSError as error:
        os.close(held)
        raise StartError(f"cannot lock {path}: {error.strerror}") from error
    try:
        os.ftruncate(held, 0)
        os.write(held, b"%d\n" % os.getpid())
    except OSError:
        pass  # the disk is full, perhaps: who asks for the holder then learns that there is one, and not which
    return held


def holder(directory: Path) -> int | None:
    """The pid of the process that holds the lock, 0 when it has not said; None when nobody does."""
    path = lock_path(directory)
    try:
        probe = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(probe, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        text = path.read_text(encoding="ascii", errors="replace").strip()
        return int(text) if text.isdigit() else 0
    except OSError:
        return None
    finally:
        os.close(probe)
    return None
