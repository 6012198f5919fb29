"""A file into a directory, whole, durable and never over another. In: a name and a file. Out: whether it is new."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Literal

from qtools.to_file.place import make_directories
from qtools.to_file.workfile import sync_directory

Outcome = Literal["created", "existed"]

_BLOCK = 1024 * 1024


def link_new(root: Path, name: str, content: Path | bytes) -> Outcome:
    """Copy `content` to `root`/`name` whole and durably, unless there is something."""
    target = root / name
    make_directories(target.parent)
    with _draft(target) as (file, path):
        if isinstance(content, bytes):
            file.write(content)
        else:
            with content.open("rb") as source:
                while block := source.read(_BLOCK):
                    file.write(block)
        file.flush()
        os.fsync(file.fileno())
        outcome: Outcome = "created"
        try:
            os.link(path, target, src_dir_fd=0)  # which has it follow /proc's link, and means nothing else
        except FileExistsError:
            outcome = "existed"
    sync_directory(target.parent)
    return outcome


@contextmanager
def _draft(target: Path) -> Iterator[tuple[IO[bytes], str]]:
    """A file in `target`'s directory that nobody sees, and the path to link it by. It has no name where the system can
    do that, so that whoever is killed meanwhile leaves nothing behind."""
    try:
        fd = os.open(target.parent, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o666)
    except (AttributeError, OSError):
        pass
    else:
        with open(fd, "wb") as file:
            yield file, f"/proc/self/fd/{fd}"
        return
    draft = target.with_name(f".{target.name}.{os.getpid()}-{os.urandom(4).hex()}.draft")
    try:
        with draft.open("xb") as file:
            yield file, str(draft)
    finally:
        draft.unlink(missing_ok=True)
