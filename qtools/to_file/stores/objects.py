"""A place for whole files: a bucket, or a directory. In: names and files. Out: objects that are safe, or StoreError.

    s3://bucket/prefix    gs://bucket/prefix    az://container/prefix        obstore
    file:///directory, or a path                                              directory.py

`put_new` never changes what is there, and returns when the store has the whole, by size and checksum:

    up to 16 MiB    one request with If-None-Match: *; the store decides, and of two at once one is refused
    more            in parts, after a look that there is none. The library cannot make the last request of such an
                    upload conditional: two at once both succeed, and the later one stays. Who names objects by
                    their contents, as we do, cannot tell the two apart

The checksum is compared with the ETag where that is an MD5; elsewhere the object is read back. Names are
relative paths; those with a part that begins with a dot are drafts and work in progress, and are never listed.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar
from urllib.parse import unquote

from qtools.errors import InputError, ObjectDiffers, StartError, StoreError, UsageError
from qtools.to_file.stores.digests import Digests, measure
from qtools.to_file.stores.remote_store import CONNECT_TIMEOUT, remote_store
from qtools.to_file.stores.store_errors import Denied, NotThere, translate

logger = logging.getLogger("qtools.to_file")

Outcome = Literal["created", "existed"]
T = TypeVar("T")

# Of one upload, and one such upload is under way at a time: 37 MB were measured, whatever the size of the file.
PARTS_AT_ONCE = 2
BLOCK = 4 * 1024 * 1024  # of a read
PATIENCE = 10.0  # s that the library tries by itself; who waits longer says what he waits for
FIRST_PATIENCE = 2.0  # s; who has just typed a command wants to know what is wrong with it
READ_PATIENCE = 60.0  # s that a store may be away in the middle of a long work


ABOUT = "manifest"  # the user's metadata of an object, as all of the three have it


class StoredObject(NamedTuple):
    """An object as the store lists it. size in bytes; e_tag as the store has it, perhaps none."""

    name: str
    size: int
    e_tag: str | None


def open_store(url: str, *, endpoint: str = "", create: bool = False, patience: float = PATIENCE) -> ObjectStore:
    """The store at `url`; nothing is asked of it yet.

    endpoint: of an S3 server that is not AWS's, http://HOST:PORT. create: make the directory, if it is one.
    patience: s that a request may be tried again before it fails. UsageError for what is no such place,
    StartError for credentials or a directory that are not there.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme == "file":
        if endpoint:
            raise UsageError("an S3 endpoint goes with an s3:// URL only")
        from qtools.to_file.stores.directory import open_directory

        return open_directory(url, unquote(rest) if separator else url, create)
    if scheme not in ("s3", "gs", "az"):
        raise UsageError(f"{url!r} is no place for an archive: s3://, gs://, az://, file:// or a directory")
    bucket, _, prefix = rest.partition("/")
    if not bucket:
        raise UsageError(f"{url!r} names no bucket: {scheme}://BUCKET/PREFIX")
    if any(part in ("", ".", "..") for part in prefix.strip("/").split("/")) and prefix.strip("/"):
        raise UsageError(f"{url!r} has a prefix with an empty part, . or ..")
    if endpoint and scheme != "s3":
        raise UsageError("an S3 endpoint goes with an s3:// URL only")
    make, renew = remote_store(scheme, bucket, prefix.strip("/"), endpoint, patience)
    return ObjectStore(url.rstrip("/"), make(), lambda: make() if renew() else None)


async def open_to_read(url: str, *, endpoint: str = "") -> ObjectStore:
    """A store that is there, and that is waited for once it has answered. StartError when it cannot be read now."""
    try:
        await open_store(url, endpoint=endpoint, patience=FIRST_PATIENCE).check()
    except StoreError as error:
        raise StartError(str(error)) from error
    return open_store(url, endpoint=endpoint, patience=READ_PATIENCE)


class ObjectStore:
    """Objects below one prefix. All of it raises StoreError, and nothing foreign.

    renew: makes another library's store where there may be newer credentials than in `library_store`, else None.
    """

    def __init__(self, url: str, library_store: Any, renew: Callable[[], Any] = lambda: None) -> None:
        self.url = url
        self._store = library_store
        self._renew = renew
        self._in_parts = asyncio.Lock()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.url}>"

    def url_of(self, name: str) -> str:
        return f"{self.url}/{name}"

    async def check(self) -> None:
        """Ask for one name, so that wrong credentials and a missing bucket are told at once."""
        async for _ in self.list():
            return

    # ── writing ──

    async def put_new(self, name: str, content: Path | bytes, *, sha256: str = "", about: str = "") -> Outcome:
        """Put `content` there under `name`, unless it is there already; return when the store has the whole.

        sha256: what it has to be, in hex; InputError when it is not. about: what the method of that name shall tell
        of it, ASCII, at most 2 kB; a directory keeps none. ObjectDiffers when there is something else under that name.
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
            # It may come back: a file system that is mounted again.
            raise StoreError(self.url_of(name), f"cannot read {content!s}: {error.strerror or error}") from error
        if sha256 and digests.sha256 != sha256:
            raise InputError(
                f"{_told(content)} was changed since it was closed: its sha256 was {sha256}, is {digests.sha256}"
            )
        return digests

    async def _put(self, name: str, content: Path | bytes, digests: Digests, about: str) -> Outcome:
        import obstore
        from obstore.exceptions import AlreadyExistsError

        attributes: dict[str, str] = {ABOUT: about} if about else {}
        if digests.part:
            if await self.head(name) is not None:
                return "existed"
            async with self._in_parts:
                await self._ask(
                    name,
                    lambda: obstore.put_async(
                        self._store, name, content, use_multipart=True,
                        chunk_size=digests.part, max_concurrency=PARTS_AT_ONCE,
                        attributes=attributes,
                    ),
                )  # fmt: skip
            return "created"
        try:
            body = content if isinstance(content, bytes) else await asyncio.to_thread(content.read_bytes)
        except OSError as error:
            raise StoreError(self.url_of(name), f"cannot read {content!s}: {error.strerror or error}") from error
        try:
            await self._ask(
                name,
                lambda: obstore.put_async(
                    self._store, name, body, mode="create",
                    attributes=attributes,
                ),
                AlreadyExistsError,
            )  # fmt: skip
        except AlreadyExistsError:
            return "existed"
        return "created"

    async def _confirm(self, name: str, content: Path | bytes, digests: Digests) -> None:
        """Whether what is there is the whole of `content`."""
        entry = await self.head(name)
        if entry is None:
            raise StoreError(self.url_of(name), "is not there after it was put")
        if entry.size == digests.size and (digests.match(entry.e_tag) or await self._sha256(entry) == digests.sha256):
            return
        there = f"{entry.size} bytes, ETag {entry.e_tag}"
        raise ObjectDiffers(
            self.url_of(name), there, f"{_told(content)} has {digests.size} bytes, ETag {digests.e_tag}"
        )  # fmt: skip

    async def _sha256(self, entry: StoredObject) -> str:
        """Of the object as it is there: a store that encrypts by itself, or is not S3, has other ETags than MD5s."""
        import hashlib

        sha256 = hashlib.sha256()
        async for block in self.stream(entry):
            await asyncio.to_thread(sha256.update, block)
        return sha256.hexdigest()

    async def delete(self, name: str) -> None:
        """Take an object away; one that is not there is none."""
        import obstore

        check_name(name)
        try:
            await self._ask(name, lambda: obstore.delete_async(self._store, name))
        except NotThere:
            return

    # ── reading ──

    async def list(self, below: str = "") -> AsyncIterator[list[StoredObject]]:
        """All objects, or those in the directory `below` and deeper, some at a time, in no certain order."""
        import obstore

        chunks: AsyncIterator[Any] | None = None

        async def first() -> Any:
            nonlocal chunks  # begun anew, where the credentials were renewed
            chunks = obstore.list(self._store, below.strip("/") or None, chunk_size=1000).__aiter__()
            return await chunks.__anext__()

        while True:
            try:
                chunk = await self._ask("", first if chunks is None else chunks.__anext__, StopAsyncIteration)
            except StopAsyncIteration:
                return
            yield [
                StoredObject(meta["path"], meta["size"], meta["e_tag"])
                for meta in chunk
                if not meta["path"].startswith(".") and "/." not in meta["path"]
            ]

    async def head(self, name: str) -> StoredObject | None:
        """What the store tells of an object; None when there is none."""
        import obstore

        check_name(name)
        try:
            meta = await self._ask(name, lambda: obstore.head_async(self._store, name))
        except NotThere:
            return None
        return StoredObject(name, meta["size"], meta["e_tag"])

    async def about(self, entry: StoredObject) -> str:
        """What was told of an object when it was put, "" where nothing was."""
        import obstore

        result = await self._ask(
            entry.name, lambda: obstore.get_async(self._store, entry.name, options={"head": True})
        )  # fmt: skip
        return str(result.attributes.get(ABOUT, ""))

    async def get(self, entry: StoredObject, most: int) -> bytes:
        """All of a small object; StoreError when it has more than `most` bytes, or is not there any more."""
        if entry.size > most:
            raise StoreError(self.url_of(entry.name), f"has {entry.size} bytes, at most {most} were expected", True)
        return b"".join([block async for block in self.stream(entry)])

    async def stream(self, entry: StoredObject, offset: int = 0) -> AsyncIterator[bytes]:
        """An object from byte `offset` on, block by block, the next one on its way meanwhile.

        Every block is a request of its own, for just this version: a reader may take as long as he likes, and
        an object that is replaced under his hands is an error and no mixture.
        """
        coming = asyncio.ensure_future(self._read(entry, offset)) if offset < entry.size else None
        try:
            while coming is not None:
                block = await coming
                offset += len(block)
                coming = asyncio.ensure_future(self._read(entry, offset)) if offset < entry.size else None
                yield block
        finally:
            if coming is not None:
                coming.cancel()
                await asyncio.wait((coming,))
                if not coming.cancelled():
                    coming.exception()

    async def _read(self, entry: StoredObject, start: int) -> bytes:
        import obstore
        from obstore.exceptions import PreconditionError

        options: dict[str, Any] = {"range": (start, min(start + BLOCK, entry.size))}
        if entry.e_tag is not None:
            options["if_match"] = entry.e_tag

        async def read() -> bytes:
            result = await obstore.get_async(self._store, entry.name, options=options)  # type: ignore[arg-type]
            return bytes(await result.bytes_async())

        try:
            block = await self._ask(entry.name, read, PreconditionError)
        except PreconditionError as error:
            raise StoreError(self.url_of(entry.name), "was replaced while it was read", True) from error
        if not block:
            raise StoreError(
                self.url_of(entry.name), f"ends at byte {start}, and has {entry.size} by its listing", True
            )
        return block

    async def _ask(self, name: str, call: Callable[[], Awaitable[T]], but: type[BaseException] | tuple[()] = ()) -> T:
        """One call of the library; what it raises comes out as StoreError, `but` as it is. Once again with newer
        credentials, where the store denies the present ones."""
        library_store = self._store
        try:
            return await self._ask_once(name, call, but)
        except Denied:
            if self._store is library_store:  # no other task has renewed them meanwhile
                newer = await asyncio.to_thread(self._renew)
                if newer is None:
                    raise
                if self._store is library_store:
                    self._store = newer
                    logger.warning("%s: the store denied the credentials: read again", self.url)
        return await self._ask_once(name, call, but)

    async def _ask_once(self, name: str, call: Callable[[], Awaitable[T]], but: type[BaseException] | tuple[()]) -> T:
        begun = time.monotonic()
        try:
            return await call()
        except but:
            raise
        except (asyncio.CancelledError, StoreError):
            raise
        except Exception as error:  # obstore raises its own, and ValueError, FileNotFoundError, OSError
            url = self.url_of(name) if name else self.url
            raise translate(error, url, max(CONNECT_TIMEOUT, round(time.monotonic() - begun))) from error


def check_name(name: str) -> None:
    """A name is made by us; one that would leave its place is a defect, or an archive that somebody forged."""
    if not name or name.startswith("/") or any(part in ("", ".", "..") for part in name.split("/")) or "\0" in name:
        raise StoreError(name, "is no name of an object", True)


def _told(content: Path | bytes) -> str:
    return "what was to be put" if isinstance(content, bytes) else str(content)
