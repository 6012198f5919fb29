"""A bucket as a store of whole files, through obstore. In: names and files. Out: stored objects, or StoreError.

How `put_new` makes sure that it overwrites no object:

    up to 16 MiB    one request with If-None-Match: *. The store decides: of two such requests at once, one is refused.
    more            an upload in parts, after a check that there is no such object. obstore cannot make the last
                    request of such an upload conditional: of two uploads at once both succeed, and the later one
                    stays. q-to-file names objects by their content, so both have the same content.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from qtools.errors import StoreError
from qtools.to_file.stores.digests import Digests
from qtools.to_file.stores.object_store import BLOCK, ObjectStore, Outcome, StoredObject, check_name
from qtools.to_file.stores.obstore_client import CONNECT_TIMEOUT
from qtools.to_file.stores.store_errors import Denied, NotThere, translate

logger = logging.getLogger("qtools.to_file")

T = TypeVar("T")

# Parts of an upload that are sent at once. One such upload is under way at a time; it took 37 MB of memory, whatever
# the size of the file.
PARTS_AT_ONCE = 2
ABOUT = "manifest"  # the name of the metadata that holds the text `about`; S3, GCS and Azure all store such metadata


class BucketStore(ObjectStore):
    """Objects below one prefix of a bucket.

    client: a store of obstore. renew: returns a new client if there may be newer credentials than those in `client`,
    else None.
    """

    def __init__(self, url: str, client: Any, renew: Callable[[], Any]) -> None:
        super().__init__(url)
        self._client = client
        self._renew = renew
        self._in_parts = asyncio.Lock()
        self._is_sorted = url.startswith("s3://")  # whether listings are in the order of names

    # ── writing ──

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
                        self._client, name, content, use_multipart=True,
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
                    self._client, name, body, mode="create",
                    attributes=attributes,
                ),
                AlreadyExistsError,
            )  # fmt: skip
        except AlreadyExistsError:
            return "existed"
        return "created"

    async def delete(self, name: str) -> None:
        import obstore

        check_name(name)
        try:
            await self._ask(name, lambda: obstore.delete_async(self._client, name))
        except NotThere:
            return

    # ── reading ──

    async def list(self, below: str = "", *, begin: str = "") -> AsyncIterator[list[StoredObject]]:
        import obstore

        chunks: AsyncIterator[Any] | None = None

        async def first() -> Any:
            nonlocal chunks  # `_ask` calls this again, with the new client, if it renews the credentials
            listed = obstore.list(self._client, below.strip("/") or None, offset=begin or None, chunk_size=1000)
            chunks = listed.__aiter__()
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
            if begin and chunk and not chunk[-1]["path"].startswith(begin) and self._is_sorted:
                return

    async def head(self, name: str) -> StoredObject | None:
        import obstore

        check_name(name)
        try:
            meta = await self._ask(name, lambda: obstore.head_async(self._client, name))
        except NotThere:
            return None
        return StoredObject(name, meta["size"], meta["e_tag"])

    async def about(self, entry: StoredObject) -> str:
        import obstore

        result = await self._ask(
            entry.name, lambda: obstore.get_async(self._client, entry.name, options={"head": True})
        )  # fmt: skip
        return str(result.attributes.get(ABOUT, ""))

    async def _read(self, entry: StoredObject, start: int) -> bytes:
        import obstore
        from obstore.exceptions import PreconditionError

        options: dict[str, Any] = {"range": (start, min(start + BLOCK, entry.size))}
        if entry.e_tag is not None:
            options["if_match"] = entry.e_tag

        async def read() -> bytes:
            result = await obstore.get_async(self._client, entry.name, options=options)  # type: ignore[arg-type]
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
        """Run one request of obstore, and translate its exceptions into StoreError, except `but`. If the store denies
        the credentials and newer ones can be read, run it once more with those."""
        denied_client = self._client
        try:
            return await self._ask_once(name, call, but)
        except Denied:
            if self._client is denied_client:  # otherwise another task has renewed the credentials already
                newer = await asyncio.to_thread(self._renew)
                if newer is None:
                    raise
                if self._client is denied_client:
                    self._client = newer
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
        except Exception as error:  # obstore also raises ValueError, FileNotFoundError and OSError
            url = self.url_of(name) if name else self.url
            raise translate(error, url, max(CONNECT_TIMEOUT, round(time.monotonic() - begun))) from error
