"""How far the chains of a log's partitions are in an output directory. In: its manifests and names. Out: ChainEnd.

A file counts as soon as it has its name, which tells its offsets: a process may be killed before the manifest has the
file. Its record is beside it then, and the next process that looks adds the line to the manifest. Manifests only grow,
so of each only what is new is read. `locked` keeps out other processes that archive to the same directory while a chain
is looked up and continued.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from qtools.errors import InputError, SinkError
from qtools.to_file.archive.archived_partitions import ChainEnd
from qtools.to_file.archive.file_record import BESIDE, DRAFT, read_beside
from qtools.to_file.archive.layout import Layout
from qtools.to_file.archive.manifest import DIRECTORY_MANIFEST, append_manifest, read_manifest

logger = logging.getLogger("qtools.to_file")

LOCK = ".offsets.lock"
LOCK_TIMEOUT = 5.0  # s; another process has the lock while it names a file, which takes milliseconds
LOCK_INTERVAL = 0.01  # s
_NEVER = 1 << 63  # later than any timestamp


class _Manifest:
    """What was read of one manifest. ends: for (topic, partition) the last offset, the latest timestamp and the id of
    the topic of each file."""

    def __init__(self) -> None:
        self.read = 0  # bytes
        self.names: set[str] = set()
        self.ends: dict[tuple[str, int], list[tuple[int, int, str]]] = {}


class OutputChains:
    """The chains in the directory `output`, whose files are named by `layout`."""

    def __init__(self, output: Path, layout: Layout) -> None:
        self._output = output
        self._layout = layout
        self._manifests: dict[Path, _Manifest] = {}
        self._is_locked = False

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """OSError if another process has the lock for LOCK_TIMEOUT."""
        self._output.mkdir(parents=True, exist_ok=True)
        path = self._output / LOCK
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            _lock(fd, path)
            self._is_locked = True
            yield
        finally:
            self._is_locked = False
            os.close(fd)

    def look_up(self, topic: str, number: int, directory: str, offset: int) -> ChainEnd:
        """The end of the chain of partition `number` in `directory` ("" where there are none)."""
        place = self._output / directory
        pattern = self._layout.pattern(topic, number)
        end, latest, topic_id = -1, 0, ""
        for folder in _folders(place) if self._layout.has_directories else [place]:
            names = _names(folder)
            records = [name for name in names if name.startswith(".") and name.endswith((BESIDE, BESIDE + DRAFT))]
            if records:
                with contextlib.nullcontext() if self._is_locked else self.locked():
                    for name in records:
                        self._complete_manifest(folder / name)
            manifest = self._read(folder / DIRECTORY_MANIFEST)
            for last, timestamp, known_id in manifest.ends.get((topic, number), ()):
                if last > end:
                    end, topic_id = last, known_id or topic_id
                if last >= offset:
                    latest = max(latest, timestamp)
            for name in names:
                if name not in manifest.names and (found := pattern.match(name)):
                    end, latest = max(end, int(found[2])), _NEVER
        return ChainEnd(end, latest, topic_id)

    def _complete_manifest(self, record: Path) -> None:
        """Add the file that `record` is of to its manifest, if a process has named it and then was killed; remove the
        record. Called while it is locked, as a process that lives names and adds a file under the lock."""
        if record.name.endswith(BESIDE):
            path = record.with_name(record.name[1 : -len(BESIDE)])
            try:
                finished = read_beside(path)
            except FileNotFoundError:  # the process was not killed, and has added the file meanwhile
                return
            except InputError as error:
                logger.warning("%s", error)
                return
            if path.exists():
                relative = str(path.relative_to(self._output))
                append_manifest(self._output, replace(finished, relative=relative), unless_there=True)
        record.unlink(missing_ok=True)

    def _read(self, path: Path) -> _Manifest:
        """The manifest at `path`, with what was appended since the last call."""
        manifest = self._manifests.setdefault(path, _Manifest())
        try:
            with path.open("rb") as file:
                if os.fstat(file.fileno()).st_size < manifest.read:
                    manifest = self._manifests[path] = _Manifest()
                file.seek(manifest.read)
                text = file.read()
        except FileNotFoundError:
            self._manifests[path] = _Manifest()
            return self._manifests[path]
        text = text[: text.rfind(b"\n") + 1]  # a line that is not complete is ignored, and removed by the next append
        try:
            entries = read_manifest(str(path), text)
        except InputError as error:
            raise SinkError(f"{error}; without it it is not known which offsets are archived") from error
        for each in entries:
            manifest.names.add(each.name.rpartition("/")[2])
            if each.partition >= 0:
                manifest.ends.setdefault((each.topic, each.partition), []).append(
                    (each.last_offset, each.last_timestamp, each.topic_id)
                )
        manifest.read += len(text)
        return manifest


def _lock(fd: int, path: Path) -> None:
    deadline = time.monotonic() + LOCK_TIMEOUT
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                raise BlockingIOError(error.errno, "another process has locked it", str(path)) from None
            time.sleep(LOCK_INTERVAL)
        else:
            return


def _folders(place: Path) -> Iterator[Path]:
    for folder, directories, _ in os.walk(place):
        directories[:] = [name for name in directories if not name.startswith(".")]
        yield Path(folder)


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []
