"""One process for each data directory. In: the directory. Out: its lock, or the pid of the process that holds it.

The lock is on a file in the directory and lasts as long as the process. The file names the process and, for the private
broker, its sockets. qtools/paths.py reads the file, and describes its format.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Sequence
from pathlib import Path

from qtools.errors import StartError
from qtools.paths import lock_path


def try_lock(directory: Path, sockets: Sequence[Path] = ()) -> int | None:
    """Take the lock. Returns a file descriptor that holds it while it is open, or None when another process has the
    lock.

    sockets: where this process will listen; they are written into the file for its clients.
    """
    path = lock_path(directory)
    try:
        held = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StartError(f"cannot open {path}: {(error.strerror or str(error)).lower()}") from error
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(held)
        return None
    except OSError as error:
        os.close(held)
        raise StartError(f"cannot lock {path}: {(error.strerror or str(error)).lower()}") from error
    try:
        os.ftruncate(held, 0)
        os.write(held, b"".join([b"%d\n" % os.getpid(), *(os.fsencode(path) + b"\n" for path in sockets)]))
    except OSError:
        pass  # the disk may be full: the lock is valid without the contents of the file
    return held


def holder(directory: Path) -> int | None:
    """The pid of the process that holds the lock; 0 when the file does not name it, None when no process holds it."""
    path = lock_path(directory)
    try:
        probe = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(probe, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        text = path.read_text(encoding="ascii", errors="replace").partition("\n")[0]
        return int(text) if text.isdigit() else 0
    except OSError:
        return None
    finally:
        os.close(probe)
    return None
