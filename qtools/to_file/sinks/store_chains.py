"""How far the chains of a log's partitions are in a store. In: names of objects, and manifests. Out: ChainEnd.

The name of an object of a log tells the partition and its first offset, its manifest the last one. The names of one
partition in one directory are listed in their order, from the partition's first object on.
"""

from __future__ import annotations

import asyncio
import errno

from qtools.errors import InputError, StoreError
from qtools.to_file.archive.archived_partitions import ChainEnd
from qtools.to_file.archive.layout import Layout
from qtools.to_file.archive.manifest import OBJECT_MANIFEST, Manifested, read_manifest
from qtools.to_file.sinks.object_names import log_pattern, log_prefix
from qtools.to_file.stores.object_store import ObjectStore, StoredObject

LARGEST_LINE = 1024 * 1024  # bytes of the manifest of one object
ANSWER_TIMEOUT = 60.0  # s


class StoreChains:
    """The chains in `store`, which is used in the event loop where this object was made."""

    def __init__(self, store: ObjectStore, layout: Layout) -> None:
        self._store = store
        self._layout = layout
        self._loop = asyncio.get_running_loop()

    def look_up(self, topic: str, number: int, directory: str, offset: int) -> ChainEnd:
        """The end of a chain, as `find`, for another thread; OSError when the store does not answer."""
        asked = asyncio.run_coroutine_threadsafe(self.find(topic, number, directory, offset), self._loop)
        try:
            return asked.result(ANSWER_TIMEOUT)
        except StoreError as error:
            raise OSError(errno.EIO, str(error), self._store.url) from error
        except TimeoutError as error:
            asked.cancel()
            raise OSError(errno.ETIMEDOUT, f"{self._store.url} does not answer", self._store.url) from error

    async def find(self, topic: str, number: int, directory: str, offset: int) -> ChainEnd:
        """The end of the chain of partition `number` in `directory` ("" where there are none). StoreError."""
        prefix = log_prefix(topic, number)
        pattern = log_pattern(topic, number)
        found: list[tuple[int, StoredObject]] = []
        begin = "" if self._layout.has_directories else f"{directory}/{prefix}".lstrip("/")
        async for entries in self._store.list(directory, begin=begin):
            matches = [(pattern.match(entry.name.rpartition("/")[2]), entry) for entry in entries]
            found += [(int(match[1]), entry) for match, entry in matches if match]
        found.sort()
        end = ChainEnd()
        while found:
            first, entry = found.pop()
            known = await self._manifest_of(entry)
            latest = max(end.latest, known.last_timestamp)
            end = ChainEnd(max(end.offset, known.last_offset), latest, end.topic_id or known.topic_id)
            if first <= offset:
                break
        return end

    async def _manifest_of(self, entry: StoredObject) -> Manifested:
        """The manifest of an object; a crash may have come before it was written, but the object has the same line."""
        name = entry.name + OBJECT_MANIFEST
        beside = await self._store.head(name)
        if beside is not None:
            line = await self._store.get(beside, LARGEST_LINE)
        else:
            line = (await self._store.about(entry)).encode() + b"\n"
        try:
            (known,) = read_manifest(name, line)
        except (InputError, ValueError) as error:
            reason = f"it is not known which offsets it has: {error}"
            raise StoreError(self._store.url_of(entry.name), reason) from error
        return known
