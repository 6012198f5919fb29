"""A whole file is given its name, and never another's. In: a file, and names for it. Out: the name that was free.

Within one file system a name is linked, which fails where there is one already. Across two, the file is copied beside
its name under a hidden one first. Either way it appears whole, under a name that nobody had. All that was done is
durable when `give_name` returns.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from pathlib import Path

from qtools.to_file.archive.workfile import sync_directory

# A file system that knows no links (FAT, some of those over a network), or a border between two.
_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})
_ANOTHER = errno.EXDEV


def give_name(source: Path, target: Path, draft: str) -> bool:
    """Give the file `source` the name `target`, durably; False where somebody has it. `source` may stay as well.

    draft: what it may be called beside `target` until it is whole; nobody else uses that name.
    """
    make_directories(target.parent)
    try:
        os.link(source, target)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno != _ANOTHER and error.errno not in _NO_LINKS:
            raise
        if not _copy(source, target, target.with_name(draft)):
            return False
    sync_directory(target.parent)
    return True


def is_named(source: Path, target: Path, size: int, sha256: str) -> bool:
    """Whether `target` is the file `source` already: a crash may come between the name and the note of it."""
    try:
        there = target.stat()
    except FileNotFoundError:
        return False
    if os.path.samestat(there, source.stat()):
        return True
    if there.st_size != size:
        return False
    import hashlib

    with open(target, "rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == sha256


def make_directories(directory: Path) -> None:
    """Make sure that `directory` is there, and durably so."""
    missing = []
    while not directory.is_dir():
        missing.append(directory)
        directory = directory.parent
    for new in reversed(missing):
        with contextlib.suppress(FileExistsError):
            new.mkdir()
        sync_directory(new.parent)


def _copy(source: Path, target: Path, draft: Path) -> bool:
    """Copy `source` to `draft`, and give that the name `target`; False where somebody has it."""
    try:
        with open(source, "rb") as there, open(draft, "wb") as here:
            shutil.copyfileobj(there, here, 1024 * 1024)
            here.flush()
            os.fsync(here.fileno())
        try:
            os.link(draft, target)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            # No links here: take the name with an empty file, and put ours in its place.
            try:
                os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
            except FileExistsError:
                return False
            try:
                os.replace(draft, target)
            except BaseException:
                target.unlink()  # an empty file would keep the name for ever
                raise
    finally:
        draft.unlink(missing_ok=True)
    return True
