"""Chooses the sink of an archive: a directory, a spool before a store, or a store. In: options. Out: the sink."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

from qtools.cli.metrics.metrics_format import Family
from qtools.cli.types import plural
from qtools.formats.encoders import make_format
from qtools.message import Batch
from qtools.to_file.archive.archive import Archive, Encoding
from qtools.to_file.archive.archived_partitions import ArchivedPartitions
from qtools.to_file.archive.file_record import FileRecord
from qtools.to_file.archive.layout import Layout
from qtools.to_file.archive.manifest import append_manifest
from qtools.to_file.archive.output_chains import OutputChains
from qtools.to_file.archive.partitioner import Partitioner
from qtools.to_file.archive.partitions import Partitions
from qtools.to_file.archive.workdir import WorkDir
from qtools.to_file.options import ArchiveOptions
from qtools.to_file.sinks.archive_sink import ArchiveSink

logger = logging.getLogger("qtools.to_file")


class ArchivingSink(Protocol):
    """A Sink with what a run needs besides.

    written, written_bytes: the number of messages that are safe, and the bytes of their bodies.
    trouble: why nothing can be written now, or "". unready: the same, or why finished files cannot be uploaded.
    failed: whether a file was left unfinished, which another run has to finish.
    """

    @property
    def written(self) -> int: ...
    @property
    def written_bytes(self) -> int: ...
    @property
    def trouble(self) -> str: ...
    @property
    def unready(self) -> str: ...
    @property
    def failed(self) -> bool: ...

    async def start(self) -> None:
        """Finish the files of earlier runs."""

    async def write(self, batch: Batch) -> None: ...

    def hang_up(self) -> None:
        """Close all open files; the next message goes into a new file."""

    async def close(self) -> None: ...

    async def wait_sent(self) -> None:
        """Wait until all closed files are in their final place."""

    async def release(self) -> None:
        """Release all resources. Called last."""

    def notes(self) -> list[str]:
        """Notes for the summary of the run."""

    def families(self) -> list[Family]:
        """Its metrics."""


class CompletingSink(ArchivingSink, Protocol):
    """An ArchivingSink whose partitions can be marked as complete."""

    async def complete(self, partition: str) -> bool:
        """Close the files of `partition`, and mark it as complete; False if that is not possible yet."""


def make_sink(
    options: ArchiveOptions, layout: Layout, partitioner: Partitioner, partitions: Partitions | None
) -> ArchivingSink:
    """The sink for `options.output` and `options.store`; StartError if it cannot be used."""
    encoding = Encoding(
        options.format, make_format(options.format, options.delimiter), options.compression, options.level
    )
    if not options.store:
        names = OutputChains(options.output, layout)
        sources = ArchivedPartitions(names.look_up, str(options.output.resolve())) if options.by_offsets else None

        def listed(finished: FileRecord, again: bool) -> None:
            append_manifest(options.output, finished, unless_there=again)
            logger.info("finished %s: %s", finished.path, plural(finished.count, "message"))

        return ArchiveSink(_open_archive(options, layout, partitioner, encoding, partitions, listed, sources, names))
    from qtools.to_file.stores.opening import open_store

    store = open_store(options.store, endpoint=options.s3_endpoint)
    if not options.spool:
        from qtools.to_file.sinks.object_sink import ObjectSink

        if options.by_offsets:
            from qtools.to_file.sinks.log_object_sink import LogObjectSink

            return LogObjectSink(store, layout, partitioner, encoding)
        return ObjectSink(store, layout, partitioner, encoding)
    from qtools.to_file.sinks.spool import Spool, SpoolSink

    spool = Spool(store, options.output)
    sources = None
    if options.by_offsets:
        from qtools.to_file.sinks.store_chains import StoreChains

        sources = ArchivedPartitions(StoreChains(store, layout).look_up, store.url)
    return SpoolSink(_open_archive(options, layout, partitioner, encoding, partitions, spool.add, sources), spool)


def _open_archive(
    options: ArchiveOptions,
    layout: Layout,
    partitioner: Partitioner,
    encoding: Encoding,
    partitions: Partitions | None,
    on_finished: Callable[[FileRecord, bool], None],
    sources: ArchivedPartitions | None,
    names: OutputChains | None = None,
) -> Archive:
    work = WorkDir(options.work_dir)
    return Archive(
        work, options.output, layout, partitioner, encoding, options.rotation, on_finished,
        spooled=bool(options.store), partitions=partitions, sources=sources, names=names,
        most_open=options.max_open_files,
    )  # fmt: skip
