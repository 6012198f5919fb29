"""An archive of its own for a test, its messages, and what became of them on disk."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from qtools.formats.encoders import make_format
from qtools.message import Batch, Message, Messages
from qtools.to_file.archive.archive import Archive, Encoding, Rotation
from qtools.to_file.archive.compression import SUFFIXES, zstandard
from qtools.to_file.archive.content_hash import ContentHash
from qtools.to_file.archive.file_record import FileRecord
from qtools.to_file.archive.layout import Layout
from qtools.to_file.archive.partitioner import Partitioner
from qtools.to_file.archive.workdir import WorkDir

NOW = 1_795_420_800.0  # 2026-11-23 08:00:00 UTC


class Place:
    """Where messages come from, as their batch knows it."""

    def __init__(self, topic: str = "events", address: str = "10.0.0.5:4150") -> None:
        self.topic = topic
        self.address = address

    def finish(self, ids: Sequence[bytes]) -> None: ...
    def requeue(self, ids: Sequence[bytes], delay_ms: int) -> None: ...
    def touch(self, ids: Sequence[bytes]) -> None: ...


def ident(number: int) -> bytes:
    return b"%016x" % number


def batch(numbers: Sequence[int], place: Place | None = None, body: Callable[[int], bytes] = b"%06d".__mod__) -> Batch:
    """Messages that tell their numbers, a millisecond apart."""
    messages = [Message(int(NOW * 1e9) + number * 1_000_000, 1, ident(number), body(number)) for number in numbers]
    return Batch.of(place or Place(), Messages.of(messages))


class House:
    """An output directory, a work directory, and archives there one after the other."""

    def __init__(self, root: Path, compression: str = "none", **settings: Any) -> None:
        self.output = root / "out"
        self.work = root / "work"
        self.compression = compression
        self.settings = settings
        self.told: list[FileRecord] = []
        self.wall, self.steady = NOW, 1000.0
        self.output.mkdir(exist_ok=True)

    def open(
        self,
        name: str = "<TOPIC><REV>.<DATETIME>.log",
        *,
        format: str = "raw",
        rotation: Rotation | None = None,
        partition: str = "",
        **sorting: Any,
    ) -> Archive:
        layout = Layout(
            name, suffix=SUFFIXES[self.compression], datetime_format="%Y-%m-%d_%H", partition=partition, host="h"
        )
        self.dir = WorkDir(self.work)
        self.partitioner = Partitioner(layout, partitioned=bool(partition), **sorting)
        archive = Archive(
            self.dir, self.output, layout, self.partitioner,
            Encoding(format, make_format(format), self.compression), rotation or Rotation(), self.tell,
            wall=lambda: self.wall, steady=lambda: self.steady, **self.settings,
        )  # fmt: skip
        archive.adopt()
        return archive

    def tell(self, finished: FileRecord, again: bool) -> None:
        self.told.append(finished)

    def close(self, archive: Archive) -> None:
        archive.close()
        self.dir.close()

    @property
    def names(self) -> list[str]:
        return sorted(
            str(path.relative_to(self.output))
            for path in self.output.rglob("*")
            if path.is_file() and not path.name.startswith(".")
        )

    @property
    def in_work(self) -> list[str]:
        return sorted(path.name for path in self.work.iterdir() if path.name != "lock")

    def read(self, name: str) -> bytes:
        return unpacked((self.output / name).read_bytes(), self.compression)

    def numbers(self) -> Iterator[int]:
        """What is in finished files of raw messages; each file is what was told of it."""
        told = {finished.path: finished for finished in self.told}
        assert len(told) == len(set(self.told)), "different things were told of one file"
        assert sorted(str(path.relative_to(self.output)) for path in told) == self.names
        for name in self.names:
            lines = self.read(name).splitlines(keepends=True)
            assert all(line.endswith(b"\n") for line in lines)
            check(told[self.output / name], lines)
            yield from (int(line) for line in lines)


def check(finished: FileRecord, lines: list[bytes]) -> None:
    """`finished` is true of its file, whose raw messages are `lines`."""
    stored = finished.path.read_bytes()
    numbers = [int(line) for line in lines]
    ids = ContentHash(finished.topic)
    ids.add(Place().address, [ident(number) for number in numbers])
    assert finished.size == len(stored)
    assert finished.sha256 == hashlib.sha256(stored).hexdigest()
    assert finished.count == len(lines)
    assert finished.bytes == sum(len(line) - 1 for line in lines)
    assert finished.ids_hash == ids.hexdigest()
    assert finished.first_timestamp == int(NOW * 1e9) + min(numbers) * 1_000_000
    assert finished.last_timestamp == int(NOW * 1e9) + max(numbers) * 1_000_000


def unpacked(stored: bytes, compression: str) -> bytes:
    if compression == "gzip":
        return gzip.decompress(stored)
    return zstandard().decompress(stored) if compression == "zstd" else stored
