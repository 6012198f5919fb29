"""Stores how far a run has come, in a file. In: positions as they are confirmed. Out: where the next run begins.

The file is saved at every confirmed batch. So when a run is killed, the next one goes on behind the last confirmed
message: messages that were sent and not confirmed, a window at most, are sent again, and none is left out.

    of files      {"topic": …, "messages": N, "total": BYTES, "logs": {PATH: [ENTRY, …], …}}
    ENTRY         {"dev": …, "ino": …, "offset": …, "size": …, "modified": NS,
                   "head": [START, LENGTH, HASH] or null, "mark": the same,
                   "checksum": [LENGTH, CRC-32] or null}                         see rotation.py
    and then      {"messages": N, "total": BYTES, "logs": {PATH: [ENTRY, …], …}}, one a line: the logs that have changed
                  since, in a run with so many logs that writing all of them each time would be slow
    of stdin      {"topic": …, "inputs": ["-", …], "file": N, "offset": …, "total": BYTES, "messages": N}

Earlier versions used the last form for files too; it is still read for them.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any, Protocol

from qtools.cli.checkpoint import CheckpointFile
from qtools.cli.types import plural
from qtools.errors import UsageError
from qtools.pipe.blocks import Position
from qtools.pipe.logs.rotation import Entry, Fingerprint

PROGRAM = "q-pipe"
SMALL = 64 * 1024  # bytes: a state up to this size is always saved as a whole
MOST_APPENDED = 1024 * 1024  # bytes of records, or the size of a larger state, until it is saved as a whole


class Log(Protocol):
    """A log that is read under one path."""

    @property
    def entries(self) -> list[Entry]: ...


class Checkpoint:
    """The checkpoint at `path`, for a run that sends `names`, one of which is stdin, to `topic`."""

    def __init__(self, path: str, topic: str, names: Sequence[str]) -> None:
        self._file = CheckpointFile(path, PROGRAM)
        self._topic = topic
        self._names = [name if name == "-" else os.path.abspath(name) for name in names]

    def check(self) -> None:
        """Raise now what would fail later: no directory to write to; StartError."""
        self._file.check()

    def load(self) -> Position:
        """The position to begin at; the start if there is no file. UsageError if the file is of another run,
        CheckpointInUse if another process uses it."""
        loaded = self._file.load()
        if loaded is None:
            return Position()
        if isinstance(loaded, dict) and isinstance(loaded.get("logs"), dict):
            for name in self._names:
                if name in loaded["logs"] and os.path.exists(name) and not os.path.isfile(name):
                    kind = "a directory" if os.path.isdir(name) else "no regular file"
                    raise UsageError(
                        f"{name} is {kind} now, and was a log when the checkpoint {self._file.path} was made"
                    )
            raise _of_another(self._file.path, loaded.get("topic"), loaded["logs"])
        position, topic, names = _parse_position(self._file, loaded)
        if topic != self._topic or names != self._names:
            raise _of_another(self._file.path, topic, names)
        return position

    def save(self, position: Position, *, sync: bool = False) -> None:
        """Save `position`. sync: fsync the file, so that it also survives a power failure."""
        self._file.save(
            {
                "topic": self._topic,
                "inputs": self._names,
                "file": position.file,
                "offset": position.offset,
                "total": position.total,
                "messages": position.messages,
            },
            sync=sync,
        )


class LogCheckpoint:
    """The checkpoint at `path`, or in the directory `path`, for a run that sends the logs at `names` (paths and globs)
    to `topic`. Call load() first, then set `logs`, then call save() as often as needed."""

    def __init__(self, path: str, topic: str, names: Sequence[str]) -> None:
        self._names = [os.path.abspath(name) for name in names]
        self._directory = path if path.endswith("/") or os.path.isdir(path) else ""
        if self._directory:
            path = os.path.join(path, _file_name(topic, self._names))
        self._file = CheckpointFile(path, PROGRAM)
        self._topic = topic
        self._known: dict[str, list[Entry]] = {}  # as loaded; logs that this run does not read are kept
        self._texts: dict[
            str, tuple[tuple[tuple[int, int, int], ...], str]
        ] = {}  # path → (entries in short, their JSON)
        self._size = 0  # bytes of the state when it was last saved as a whole
        self._appended = 0  # bytes of records after it
        self.logs: Mapping[str, Log] = {}
        self.note = ""  # a line for the user about the loaded state, or ""

    def check(self) -> None:
        """Raise now what would fail later: no directory to write to; StartError."""
        self._file.check()

    def load(self) -> tuple[Position, dict[str, list[Entry]]]:
        """The total that was sent, and the entries of each path. UsageError if the file is of another run,
        CheckpointInUse if another process uses it."""
        loaded = self._file.load()
        if loaded is None:
            self.note = self._note_others() if self._directory else ""
            return Position(), {}
        if isinstance(loaded, dict) and "logs" not in loaded:
            return self._load_position(loaded)
        try:
            position = Position(0, 0, int(loaded["total"]), int(loaded["messages"]))
            topic = loaded["topic"]
            logs = {str(path): [_entry(each) for each in entries] for path, entries in loaded["logs"].items()}
            names = list(loaded["inputs"])
            for record in self._file.records:
                position = Position(0, 0, int(record["total"]), int(record["messages"]))
                logs |= {str(path): [_entry(each) for each in entries] for path, entries in record["logs"].items()}
        except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
            raise self._file.not_a_checkpoint() from error
        ours = {*names, *logs}
        if topic != self._topic or (ours and not ours.intersection(self._names) and not self._is_matched(logs)):
            raise _of_another(self._file.path, topic, names)
        self._known = logs
        return position, logs

    def save(self, position: Position, changed: Iterable[str] | None = None, *, sync: bool = False) -> None:
        """Save `position` and the entries of the logs. sync: as above. changed: the paths of the logs that have changed
        since the last save; None if that is not known."""
        if changed is None or self._size <= SMALL or not self._append(position, changed):
            self._save_all(position, sync=sync)

    def _append(self, position: Position, changed: Iterable[str]) -> bool:
        """Append a record of the logs that have changed; False if the state has to be saved as a whole."""
        logs = {path: [_as_json(each) for each in self.logs[path].entries] for path in changed}
        text = json.dumps({"messages": position.messages, "total": position.total, "logs": logs})
        self._appended += len(text) + 1
        return self._appended <= max(self._size, MOST_APPENDED) and self._file.append(text)

    def _save_all(self, position: Position, *, sync: bool) -> None:
        for path, log in list(self.logs.items()):
            entries = list(log.entries)
            state = tuple((each.inode, each.offset, each.size) for each in entries)
            if path not in self._texts or self._texts[path][0] != state:
                self._texts[path] = state, f"{json.dumps(path)}: {json.dumps([_as_json(each) for each in entries])}"
        kept = [
            f"{json.dumps(path)}: {json.dumps([_as_json(each) for each in entries])}"
            for path, entries in self._known.items()
            if path not in self.logs
        ]
        logs = ", ".join([text for _, text in self._texts.values()] + kept)
        head = json.dumps(
            {
                "topic": self._topic,
                "inputs": self._names,
                "messages": position.messages,
                "total": position.total,
                "pid": os.getpid(),
            }
        )
        text = f'{head[:-1]}, "logs": {{{logs}}}}}'
        self._file.save_text(text, sync=sync)
        self._size, self._appended = len(text), 0

    def _is_matched(self, paths: Mapping[str, Any]) -> bool:
        from fnmatch import fnmatchcase

        return any(fnmatchcase(path, name) for path in paths for name in self._names)

    def _note_others(self) -> str:
        """A note if the directory has checkpoints of this topic for other inputs: the user may have changed a glob."""
        others = []
        names = f"{_readable(self._topic)}-*.json"  # _readable removes all characters with a meaning in globs
        for path in filter(os.path.isfile, glob.glob(os.path.join(glob.escape(self._directory), names))):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError), open(path, "rb") as file:
                loaded = json.loads(file.readline(MOST_APPENDED))
                if loaded["topic"] == self._topic:
                    others.append(" ".join(map(str, loaded["inputs"])))
        if not others:
            return ""
        more = f" and {plural(len(others) - 1, 'other')}" if len(others) > 1 else ""
        return (
            f"no checkpoint for these inputs in {self._directory} yet (there is one for {min(others)}{more}):"
            " beginning anew"
        )

    def _load_position(self, loaded: dict[str, Any]) -> tuple[Position, dict[str, list[Entry]]]:
        """Load a checkpoint of an earlier version: one position for all files."""
        position, topic, names = _parse_position(self._file, loaded)
        if topic != self._topic or names != self._names:
            raise _of_another(self._file.path, topic, names)
        entries: dict[str, list[Entry]] = {}
        before = position.total - position.offset  # bytes of the files before that of the position
        sizes = [_size(name) for name in names[: position.file]]
        if len(sizes) == 1:
            sizes = [before]
        elif sum(sizes) != before:
            raise UsageError(
                f"the checkpoint {self._file.path} is of an earlier version, and its first {position.file} files have"
                f" changed since: they had {before} bytes together; remove it to begin anew"
            )
        saved = os.stat(self._file.path).st_mtime_ns
        for name, offset in zip(names, [*sizes, position.offset], strict=False):
            info = os.stat(name) if os.path.exists(name) else None
            device, inode = (info.st_dev, info.st_ino) if info is not None else (0, 0)
            if offset:
                entries[name] = [Entry(device, inode, offset, offset, saved)]
        return Position(0, 0, position.total, position.messages), entries


def _parse_position(file: CheckpointFile, loaded: Any) -> tuple[Position, str, list[str]]:
    try:
        position = Position(*(int(loaded[key]) for key in ("file", "offset", "total", "messages")))
        return position, loaded["topic"], list(loaded["inputs"])
    except (ArithmeticError, KeyError, TypeError, ValueError) as error:
        raise file.not_a_checkpoint() from error


def _of_another(path: str, topic: object, names: Any) -> UsageError:
    return UsageError(
        f"the checkpoint {path} is of another run (topic {topic}, inputs {' '.join(map(str, names))}):"
        " name another, or remove it to begin anew"
    )


def _as_json(entry: Entry) -> dict[str, Any]:
    return {
        "dev": entry.device,
        "ino": entry.inode,
        "offset": entry.offset,
        "size": entry.size,
        "modified": entry.modified,
        "head": _print_as_json(entry.head),
        "mark": _print_as_json(entry.mark),
        "checksum": entry.checksum,
    }


def _print_as_json(made: Fingerprint | None) -> list[Any] | None:
    return None if made is None else [made.start, made.length, made.digest]


def _entry(loaded: Any) -> Entry:
    device, inode, offset, size, modified = (int(loaded[key]) for key in ("dev", "ino", "offset", "size", "modified"))
    length, value = loaded.get("checksum") or (0, 0)  # earlier versions had none
    checksum = (int(length), int(value)) if length else None
    return Entry(
        device,
        inode,
        offset,
        size,
        modified,
        _fingerprint_of(loaded["head"]),
        _fingerprint_of(loaded["mark"]),
        checksum,
    )


def _fingerprint_of(loaded: Any) -> Fingerprint | None:
    if loaded is None:
        return None
    start, length, digest = loaded
    return Fingerprint(int(start), int(length), str(digest))


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return -1


def _file_name(topic: str, names: Sequence[str]) -> str:
    """The name of the file for this run in a directory of checkpoints."""
    what = blake2b("\0".join([topic, *names]).encode("utf-8", "surrogateescape"), digest_size=6).hexdigest()
    return f"{_readable(topic)}-{what}.json"


def _readable(topic: str) -> str:
    """A topic, or the name of a routes file, with only those characters that are safe in a file name."""
    return "".join(char if char.isalnum() or char in "._-" else "_" for char in topic.rpartition("/")[2])
