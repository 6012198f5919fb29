"""The contract of a store of whole files, and what all stores share. In: names and files. Out: stored objects, or
StoreError.

    ObjectStore ─┬─ BucketStore       bucket.py       s3://, gs://, az://
                 └─ DirectoryStore    directory.py    file:///directory, or a path

`put_new` never overwrites an object. It returns once the store has the whole object: its size and checksum are
compared with those of the file. The checksum is compared with the ETag where the ETag is an MD5; otherwise the object
is read back.

Names are relative paths. A name of which any part begins with a dot is a draft or work in progress, and is never
listed.
"""

from __future__ import annotations

import asyncio
import hashlib
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal, NamedTuple

from qtools.errors import InputError, ObjectDiffers, StoreError
from qtools.to_file.stores.digests import Digests, measure

Outcome = Literal["created", "existed"]

BLOCK = 4 * 1024 * 1024  # bytes that one read of an object returns at most


class StoredObject(NamedTuple):
    """An object as the store lists it. size in bytes; e_tag as the store returns it, or None."""

    name: str
    size: int
    e_tag: str | None


class ObjectStore(ABC):
    """Objects below the prefix `url`. Every method raises StoreError when the store fails, and no foreign exception.

    A subclass says how one object is written, listed, read and deleted; comparing checksums and reading ahead are
    the same for all stores.
    """

    def __init__(self, url: str) -> None:
        self.url = url

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.url}>"

    def url_of(self, name: str) -> str:
        return f"{self.url}/{name}"

    # ── what each kind of store implements ──

    @abstractmethod
    def list(self, below: str = "", *, begin: str = "") -> AsyncIterator[list[StoredObject]]:
        """All objects, or those in the directory `below` and deeper, in lists of some, in no certain order.

        begin: list only names that begin so; it is a hint, and others may be listed too.
        """

    @abstractmethod
    async def head(self, name: str) -> StoredObject | None:
        """The size and ETag of an object; None if there is no such object."""

    @abstractmethod
    async def about(self, entry: StoredObject) -> str:
        """The text that `put_new` stored with an object; "" if there is none."""

    @abstractmethod
    async def delete(self, name: str) -> None:
        """Delete an object. It is no error if there is no such object."""

    @abstractmethod
    async def _put(self, name: str, content: Path | bytes, digests: Digests, about: str) -> Outcome:
        """Write an object, unless there is one of that name."""

    @abstractmethod
    async def _read(self, entry: StoredObject, start: int) -> bytes:
        """Up to BLOCK bytes of an object from byte `start` on; StoreError if the object was replaced meanwhile."""

    # ── writing ──

    async def put_new(self, name: str, content: Path | bytes, *, sha256: str = "", about: str = "") -> Outcome:
        """Write `content` under `name`, unless there is an object of that name; return when the store has the whole.

        sha256: the expected checksum of `content`, in hex; InputError when it differs. about: text that `about()` will
        return for the object, ASCII, at most 2 kB; a directory stores none. ObjectDiffers when an object of that name
        with another content exists.
        """
        check_name(name)
        digests = await self._measure(name, content, sha256)
        outcome = await self._put(name, content, digests, about)
        await self._confirm(name, content, digests)
        return outcome

    async def _measure(self, name: str, content: Path | bytes, sha256: str) -> Digests:
        try:
            digests = await asyncio.to_thread(measure, content)
        except OSError as error:
            # Worth another attempt: the file system may be mounted again.
            raise StoreError(self.url_of(name), f"cannot read {content!s}: {error.strerror or error}") from error
        if sha256 and digests.sha256 != sha256:
            raise InputError(
                f"{_described(content)} was changed since it was closed: its sha256 was {sha256}, is {digests.sha256}"
            )
        return digests

    async def _confirm(self, name: str, content: Path | bytes, digests: Digests) -> None:
        """Raise ObjectDiffers unless the stored object equals `content`."""
        entry = await self.head(name)
        if entry is None:
            raise StoreError(self.url_of(name), "does not exist after it was written")
        if entry.size == digests.size and (digests.match(entry.e_tag) or await self._sha256(entry) == digests.sha256):
            return
        there = f"{entry.size} bytes, ETag {entry.e_tag}"
        raise ObjectDiffers(
            self.url_of(name), there, f"{_described(content)} has {digests.size} bytes, ETag {digests.e_tag}"
        )  # fmt: skip

    async def _sha256(self, entry: StoredObject) -> str:
        """The checksum of the stored object, by reading it. Needed where the ETag is no MD5: in stores that encrypt
        objects themselves, and in those that are not S3."""
        sha256 = hashlib.sha256()
        async for block in self.stream(entry):
            await asyncio.to_thread(sha256.update, block)
        return sha256.hexdigest()

    # ── reading ──

    async def check(self) -> None:
        """List one block of names, so that wrong credentials or a missing bucket are reported at once."""
        async for _ in self.list():
            return

    async def get(self, entry: StoredObject, most: int) -> bytes:
        """The content of a small object; StoreError when it has more than `most` bytes, or does not exist any more."""
        if entry.size > most:
            raise StoreError(self.url_of(entry.name), f"has {entry.size} bytes, at most {most} were expected", True)
        return b"".join([block async for block in self.stream(entry)])

    async def stream(self, entry: StoredObject, offset: int = 0) -> AsyncIterator[bytes]:
        """The content of an object from byte `offset` on, in blocks. The next block is read while one is processed.

        Each block is one request for exactly this version of the object. So a slow reader holds no connection open, and
        an object that is replaced meanwhile raises StoreError instead of yielding a mixture of two versions.
        """
        ahead = asyncio.ensure_future(self._read(entry, offset)) if offset < entry.size else None
        try:
            while ahead is not None:
                block = await ahead
                offset += len(block)
                ahead = asyncio.ensure_future(self._read(entry, offset)) if offset < entry.size else None
                yield block
        finally:
            if ahead is not None:
                ahead.cancel()
                await asyncio.wait((ahead,))
                if not ahead.cancelled():
                    ahead.exception()


def check_name(name: str) -> None:
    """StoreError for a name that would leave the store's prefix. All names are made by qtools, so such a name is a
    defect, or comes from a forged archive."""
    if not name or name.startswith("/") or any(part in ("", ".", "..") for part in name.split("/")) or "\0" in name:
        raise StoreError(name, "is not a valid name of an object", True)


def _described(content: Path | bytes) -> str:
    return "the content" if isinstance(content, bytes) else str(content)
