"""Gives a complete file its name, which no other file has. In: paths. Out: the file under its new name.

A hard link fails if the name is taken, and the name never leads to a part of the file. FAT and some file systems that
are reached over a network have no hard links. There an empty file reserves the name, and is replaced.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

# os.link fails with one of these where a file system has no hard links.
NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})


def move_to_new_name(source: str | Path, target: str | Path) -> None:
    """Rename `source` to `target`, in the same directory. FileExistsError if there is a `target`, another OSError if
    it fails; `source` is still there then.

    A process that ends abruptly between the two steps leaves both names, or without hard links an empty `target`.
    """
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
        try:
            os.replace(source, target)
        except BaseException:
            os.unlink(target)  # otherwise the empty file would keep the name
            raise
    else:
        os.unlink(source)
