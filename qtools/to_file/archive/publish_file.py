"""Gives a finished file its final name, and never overwrites another file. In: a file and a name. Out: whether the name
was free.

Within one file system the file gets the name by a hard link, which fails if the name exists. Across file systems the
file is first copied to a hidden draft beside the name. Either way the file appears under its name as a whole, and all
is durable when `give_name` returns.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from pathlib import Path

from qtools.hard_links import NO_LINKS, move_to_new_name
from qtools.to_file.archive.workfile import sync_directory

_ANOTHER = errno.EXDEV  # another file system


def give_name(source: Path, target: Path, draft: str) -> bool:
    """Give the file `source` the name `target`, durably; False if a file of that name exists. `source` may stay as
    well.

    draft: a name beside `target` for an incomplete copy; no other process uses that name.
    """
    make_directories(target.parent)
    try:
        os.link(source, target)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno != _ANOTHER and error.errno not in NO_LINKS:
            raise
        if not _copy(source, target, target.with_name(draft)):
            return False
    sync_directory(target.parent)
    return True


def is_named(source: Path, target: Path, size: int, sha256: str) -> bool:
    """Whether `target` is the file `source` already: a crash may have come before that was noted."""
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
    """Create `directory` and its parents if they are missing, durably."""
    missing = []
    while not directory.is_dir():
        missing.append(directory)
        directory = directory.parent
    for new in reversed(missing):
        with contextlib.suppress(FileExistsError):
            new.mkdir()
        sync_directory(new.parent)


def _copy(source: Path, target: Path, draft: Path) -> bool:
    """Copy `source` to `draft`, and give that the name `target`; False if a file of that name exists."""
    try:
        with open(source, "rb") as there, open(draft, "wb") as here:
            shutil.copyfileobj(there, here, 1024 * 1024)
            here.flush()
            os.fsync(here.fileno())
        try:
            move_to_new_name(draft, target)
        except FileExistsError:
            return False
    finally:
        draft.unlink(missing_ok=True)
    return True
