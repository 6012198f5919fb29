"""A directory as a store of whole files. In: names and files. Out: durable files; no file is ever overwritten.

`put_new` writes a draft that has no name, syncs it, and gives it its name with a hard link. The system refuses the link
if there is a file of that name already, and a process that is killed meanwhile leaves nothing behind. The directories
are synced before `put_new` returns.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TypeVar

from qtools.errors import StartError, StoreError, UsageError
from qtools.hard_links import move_to_new_name
from qtools.to_file.archive.publish_file import make_directories
from qtools.to_file.archive.workfile import sync_directory
from qtools.to_file.stores.digests import Digests
from qtools.to_file.stores.object_store import BLOCK, ObjectStore, Outcome, StoredObject, check_name
from qtools.to_file.stores.store_errors import NotThere

T = TypeVar("T")


def open_directory(url: str, path: str, create: bool) -> ObjectStore:
    """The store in the directory `path` of `url`. UsageError for a relative path in a URL; StartError when the
    directory cannot be used."""
    if "://" in url and not path.startswith("/"):
        raise UsageError(f"{url!r} is not absolute: file:///DIRECTORY")
    root = Path(path).absolute()
    try:
        if create:
            make_directories(root)
        if not root.is_dir():
            raise StartError(f"there is no directory {root}")
    except OSError as error:
        raise StartError(f"cannot use {root}: {error.strerror or error}") from error
    return DirectoryStore(url.rstrip("/") or "/", root)


class DirectoryStore(ObjectStore):
    """The files below the directory `root`, which `url` names."""

    def __init__(self, url: str, root: Path) -> None:
        super().__init__(url)
        self._root = root

    async def about(self, entry: StoredObject) -> str:
        return ""

    async def _put(self, name: str, content: Path | bytes, digests: Digests, about: str) -> Outcome:
        return await self._do(name, lambda: link_new(self._root, name, content))

    async def delete(self, name: str) -> None:
        check_name(name)
        await self._do(name, lambda: (self._root / name).unlink(missing_ok=True))

    async def list(self, below: str = "", *, begin: str = "") -> AsyncIterator[list[StoredObject]]:
        """Each list has the files of one directory."""
        names = _walk(self._root, below.strip("/"))
        while (entries := await self._do("", lambda: next(names, None))) is not None:
            if entries:
                yield entries

    async def head(self, name: str) -> StoredObject | None:
        check_name(name)
        return await self._do(name, lambda: _entry(self._root, name))

    async def _read(self, entry: StoredObject, start: int) -> bytes:
        return await self._do(entry.name, lambda: self._read_block(entry, start))

    def _read_block(self, entry: StoredObject, start: int) -> bytes:
        url = self.url_of(entry.name)
        try:
            fd = os.open(self._root / entry.name, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise NotThere(url) from error
        try:
            if _version(os.fstat(fd)) != entry.e_tag:
                raise StoreError(url, "was replaced while it was read", True)
            block = os.pread(fd, min(BLOCK, entry.size - start), start)
        finally:
            os.close(fd)
        if not block:
            raise StoreError(url, f"ends at byte {start}, and had {entry.size} bytes", True)
        return block

    async def _do(self, name: str, call: Callable[[], T]) -> T:
        """Run `call` in a thread; raise StoreError for an OSError."""
        try:
            return await asyncio.to_thread(call)
        except OSError as error:
            url = self.url_of(name) if name else self.url
            raise StoreError(url, error.strerror or str(error), error.errno == errno.EACCES) from error


def _walk(root: Path, below: str) -> Iterator[list[StoredObject]]:
    def failed(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise error

    for place, directories, files in os.walk(root / below, onerror=failed):
        directories[:] = sorted(each for each in directories if not each.startswith("."))
        prefix = os.path.relpath(place, root)
        prefix = "" if prefix == "." else prefix + "/"
        names = [prefix + each for each in sorted(files) if not each.startswith(".")]
        yield [entry for name in names if (entry := _entry(root, name)) is not None]


def _entry(root: Path, name: str) -> StoredObject | None:
    try:
        there = (root / name).stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return StoredObject(name, there.st_size, _version(there))


def _version(there: os.stat_result) -> str:
    """A text that changes when the file is replaced or written to; it stands in for the ETag."""
    return f"{there.st_dev:x}-{there.st_ino:x}-{there.st_mtime_ns:x}-{there.st_size:x}"


def link_new(root: Path, name: str, content: Path | bytes) -> Outcome:
    """Copy `content` to `root`/`name` and sync it, unless there is a file of that name."""
    target = root / name
    make_directories(target.parent)
    with _draft(target) as (file, path):
        if isinstance(content, bytes):
            file.write(content)
        else:
            with content.open("rb") as source:
                while block := source.read(BLOCK):
                    file.write(block)
        file.flush()
        os.fsync(file.fileno())
        outcome: Outcome = "created"
        try:
            if path.startswith("/proc/"):
                os.link(path, target, src_dir_fd=0)  # src_dir_fd makes Python follow the link in /proc
            else:
                move_to_new_name(path, target)
        except FileExistsError:
            outcome = "existed"
    sync_directory(target.parent)
    return outcome


@contextmanager
def _draft(target: Path) -> Iterator[tuple[IO[bytes], str]]:
    """A new file in the directory of `target`, and a path to make a hard link from. Where the system can, the file has
    no name (O_TMPFILE), so that a process that is killed leaves nothing behind."""
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
