"""Logs that are rotated, read on over their rotations. In: paths and globs, and what a checkpoint knows. Out: chunks.

    LogReader      all logs: which one is read next, and which files come and go where a glob is given
    RotatingLog    one log: the file that is read now, those that come after it, those that may still get late lines

A step reads one chunk, says that a file has ended, or says that there is nothing to do. A run without `follow` ends
where every log has been read to the end that it has then. Which file comes next is decided in rotation.py. All of this
blocks, and runs in a thread of its own; what a person should know is left in `notes`.

A file that was renamed is read until its successor has something in it, for its writer may still write to it; then a
last line without an end is given time to be ended (QUIET). Its lines that come later yet are read for LATE, or by the
next run.
"""

from __future__ import annotations

import glob
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import partial

from qtools.errors import InputError, UsageError
from qtools.pipe.logfile import FileReplaced, LogFile, has_contents_of, is_compressed_of, is_copy, look_at
from qtools.pipe.rotation import (
    Candidate,
    Entry,
    base_names,
    choose_copies,
    choose_files,
    find_copied_away,
    in_rotation_order,
    is_uncut_copy,
    keep_entries,
    without_unfinished,
)

POLL = 0.1  # s between two looks at all files that are followed
POLL_PER_LOG = 0.0005  # s more for each log: a look costs some 5 µs, so that all of them take 1 % of a core
RESCAN = 1.0  # s between two expansions of the globs, and two looks for a successor that is not there yet
QUIET = 1.0  # s without a write until a rotated file's last line counts as its last, with its end or without
LATE = 30.0  # s that a file is read on after its successor was begun
SETTLED = 1_000_000_000  # ns since a directory was changed until its time tells of every later change
COPY_QUIET = 300_000_000  # ns since a copy was written to until it counts as made, and the log as cut
CUT_WAIT = 1.0  # s at most that a run waits for that
CUT_POLL = 0.05  # s between two looks at it
MISSING_TRIES = 5  # of finding a file before it is missing
TRIES = 20  # of opening files that are renamed meanwhile


@dataclass(slots=True)
class Chunk:
    """What was read of `file`."""

    log: RotatingLog
    file: LogFile
    data: bytes


@dataclass(slots=True)
class End:
    """Nothing more comes of `file`: what is held of a last message is all of it."""

    log: RotatingLog
    file: LogFile


@dataclass(slots=True)
class Idle:
    """Nothing to read; to be asked again after so many seconds."""

    seconds: float


Step = Chunk | End | Idle


@dataclass(slots=True)
class LogOptions:
    """rotated: globs of rotated files, `{name}` is the log's file name; () for those beside it."""

    follow: bool = False
    rotated: tuple[str, ...] = ()
    skip_missing: bool = False


class FileMissing(InputError):
    """A file that has, or may have, what was not read is found nowhere."""


class LogReader:
    """Reads `inputs`, paths and globs. known: path → entries, as the checkpoint has them."""

    def __init__(self, inputs: Sequence[str], known: dict[str, list[Entry]], options: LogOptions) -> None:
        self.options = options
        self.logs: dict[str, RotatingLog] = {}
        self.notes: deque[tuple[int, str]] = deque()
        self.missing = 0  # files that were not found and had, or may have had, something that was not read
        self._inputs = [os.path.abspath(each) for each in inputs]
        self._typed = dict(zip(self._inputs, inputs, strict=True))
        self._directories: dict[str, str] = {}  # absolute path → as the user typed it
        for each in inputs:
            self._note_directory(each)
        self._known = known
        self._ready: deque[RotatingLog] = deque()
        self._waiting: list[RotatingLog] = []
        self._look_at = 0.0  # s, monotonic: when all logs are looked at again
        self._scan_at = 0.0  # when the globs are expanded again
        self._names: dict[str, tuple[int, dict[str, list[str]]]] = {}  # directory → (its time, its rotated files)
        self._has_globs = any(map(_is_glob, self._inputs))

    def check(self) -> None:
        """Raise now what would fail later: no file, a directory, a file that cannot be read; UsageError."""
        for each, name in self._typed.items():
            if _is_glob(each):
                found = self._expand(each)
                if not found and not self.options.follow and not any(map(self._is_of(each), self._known)):
                    raise UsageError(f"{name} leads to no file")
            elif os.path.isdir(each):
                raise UsageError(f"{name} is a directory")
            elif os.path.exists(each) and not os.path.isfile(each):
                raise UsageError(f"{name} is no regular file, and only those are followed")
            elif not self.options.follow and (os.path.lexists(each) or each not in self._known):
                try:
                    os.close(os.open(each, os.O_RDONLY))
                except OSError as error:
                    raise UsageError(f"cannot read {name}: {error.strerror or error}") from error
        self._scan()
        for log in self.logs.values():
            log.begin()

    def step(self) -> Step | None:
        """The next chunk, or what else there is to say; None at the end, which a reader that follows has not."""
        looked = False
        while True:
            if self._ready:
                log = self._ready.popleft()
                step = log.step()
                if step is None:
                    continue
                if isinstance(step, Idle):
                    self._waiting.append(log)
                    continue
                # One log after the other where there is an end; all by turns where there is none.
                (self._ready.append if self.options.follow else self._ready.appendleft)(log)
                return step
            now = time.monotonic()
            if not self.options.follow:
                if not self._waiting:
                    return None
                self._ready.extend(self._waiting)
                self._waiting.clear()
                return Idle(POLL / 2)
            if looked or now < self._look_at:
                return Idle(max(0.0, self._look_at - now))
            looked = True
            if self._has_globs and now >= self._scan_at:
                self._scan()
            self._waiting.clear()
            self._ready.extend(log for log in list(self.logs.values()) if log.has_news(now))
            self._look_at = now + POLL + POLL_PER_LOG * len(self.logs)

    @property
    def lag(self) -> dict[str, int]:
        """Log, as the user names it → bytes in its files that are not confirmed. May be asked from another thread."""
        return {log.name: log.lag for log in list(self.logs.values())}

    def close(self) -> None:
        for log in self.logs.values():
            log.close()

    # ── which logs there are ──

    def _scan(self) -> None:
        """Find the logs that the inputs name now. A rotated file of another log is not one itself."""
        paths: dict[str, None] = {}
        for each in self._inputs:
            paths.update(dict.fromkeys(self._expand(each) if _is_glob(each) else [each]))
            if _is_glob(each):  # a log that was removed may come again
                paths.update(dict.fromkeys(filter(self._is_of(each), self._known)))
        all_known = paths.keys() | self.logs.keys() | self._known.keys()
        named: dict[str, list[str]] = {}
        logs: list[str] = []
        for path in paths:
            directory, name = os.path.split(path)
            bases = [base for base in (os.path.join(directory, each) for each in base_names(name)) if base in all_known]
            if bases:
                named.setdefault(bases[0], []).append(path)
            else:
                logs.append(path)
        for path in logs:
            if path not in self.logs:
                log = RotatingLog(self, path, list(self._known.get(path, [])), named.get(path, []))
                self.logs[path] = log
                self._ready.append(log)
        self._scan_at = time.monotonic() + RESCAN

    def _expand(self, pattern: str) -> list[str]:
        if os.path.lexists(pattern):
            return [pattern]
        found = [path for path in sorted(glob.glob(self._typed[pattern], recursive=True)) if os.path.isfile(path)]
        return list(map(self._note_directory, found))

    def _note_directory(self, path: str) -> str:
        """Keep how the user names the directory of `path`; its absolute path."""
        absolute = os.path.abspath(path)
        self._directories.setdefault(os.path.dirname(absolute), os.path.dirname(path))
        return absolute

    def name_of(self, path: str) -> str:
        """An absolute path as the user would write it."""
        directory, name = os.path.split(path)
        typed = self._directories.get(directory)
        return path if typed is None else os.path.join(typed, name)

    @staticmethod
    def _is_of(pattern: str) -> Callable[[str], bool]:
        """Whether a path is one that the glob leads to, if there is such a file."""
        any_depth = "**" in pattern
        return lambda path: fnmatchcase(path, pattern) and (any_depth or path.count("/") == pattern.count("/"))

    # ── what the logs ask ──

    def rotated_files(self, path: str) -> list[Candidate]:
        """The rotated files that the log at `path` has now, oldest first."""
        found = self._look_at_rotated(path)
        for _ in range(TRIES):  # a file that is renamed meanwhile is seen under neither name, or under both
            before, found = found, self._look_at_rotated(path)
            if [(each.path, each.inode) for each in found] == [(each.path, each.inode) for each in before]:
                break
        return in_rotation_order(without_unfinished(found))

    def _look_at_rotated(self, path: str) -> list[Candidate]:
        directory, name = os.path.split(path)
        if self.options.rotated:
            patterns = [each.replace("{name}", glob.escape(name)) for each in self.options.rotated]
            paths = sorted({self._note_directory(each) for pattern in patterns for each in glob.glob(pattern)} - {path})
        else:
            paths = [os.path.join(directory, each) for each in self._names_in(directory).get(name, [])]
        return [each for each in map(look_at, paths) if each is not None]

    def _names_in(self, directory: str) -> dict[str, list[str]]:
        """Name of a log → its rotated files in the directory. Kept while the directory stays as it is: a thousand
        logs in one directory are not a thousand times a thousand names."""
        try:
            changed = os.stat(directory).st_mtime_ns
        except OSError:
            return {}
        kept = self._names.get(directory)
        if kept is None or kept[0] != changed:
            names = _rotated_names(directory)
            kept = changed, names
            if time.time_ns() - changed > SETTLED:  # what happens within one tick of the clock leaves no trace
                self._names[directory] = kept
        return kept[1]

    def rotated_changed(self, path: str) -> int | None:
        """When the directory of the log's rotated files was changed last, ns since 1970; None where that does not tell
        of every change."""
        if self.options.rotated:
            return None
        try:
            changed = os.stat(os.path.dirname(path)).st_mtime_ns
        except OSError:
            return None
        return changed if time.time_ns() - changed > SETTLED else None

    def entry_elsewhere(self, candidate: Candidate, path: str) -> tuple[bool, Entry | None]:
        """Whether another log reads this file now, under the name that it had; else that log's entry for it."""
        for other in self.logs.values():
            if other.path != path and other.has_open(candidate):
                return True, None
        for other_path, entries in [(each.path, each.entries) for each in self.logs.values()] + list(
            self._known.items()
        ):
            for entry in entries:
                if other_path != path and candidate.is_file_of(entry) and has_contents_of(candidate, entry):
                    return False, entry
        return False, None

    def note_missing(self, text: str) -> None:
        """Say that something is missing; InputError where that is to be the end."""
        if not self.options.skip_missing:
            raise FileMissing(
                f"{text}. The log was read no further; --rotated GLOB says where the file is, --on-missing skip goes on"
                " without it"
            )
        self.missing += 1
        self.notes.append((logging.ERROR, f"{text}; going on without"))


class RotatingLog:
    """The log at `path`. entries: its files as the checkpoint has them, replaced as files come and go."""

    def __init__(self, reader: LogReader, path: str, entries: list[Entry], named: Sequence[str]) -> None:
        self.path = path
        self.name = reader.name_of(path)
        self.entries = entries
        self._reader = reader
        self._named = named
        self._files: deque[LogFile] = deque()  # the one that is read, and those after it
        self._late: list[tuple[LogFile, float]] = []  # ended ones, and until when they are looked at
        self._complained = ""  # of what the user was told and has not changed since
        self._searched = 0.0  # s, monotonic: when a successor was looked for
        self._copies_fail = False  # a copy that is to be read first cannot be opened now
        self._compared: int | None = None  # when its directory was changed that has no copy of what was read

    # ── steps ──

    def step(self) -> Step | None:
        """Read on; Idle where that may be worth another try soon, None where there is nothing more now."""
        late = self._step_late()
        if late is not None:
            return late
        while True:
            if not self._files and not self._open():
                return None
            file = self._files[0]
            if file.is_blank and not file.compression:
                file.peek()
            try:
                chunk = file.read(partial(self._is_other, file))
            except FileReplaced:
                if file.is_blank:
                    if self._copies_fail:
                        return None
                    continue
                ended = self._replace(file)
                if ended is not None:
                    return ended
                continue
            except OSError as error:
                raise InputError(f"{file.name}: cannot read on: {error.strerror or error}") from error
            if chunk:
                return Chunk(self, file, chunk)
            if len(self._files) == 1:
                if self._open_successors(file):
                    continue  # what was written before there was a successor
                return None
            if file.is_within_a_message and not self._is_quiet(file):
                return Idle(POLL)
            self._files.popleft()
            if self._reader.options.follow and not file.compression:
                self._late.append((file, time.monotonic() + LATE))
            else:
                file.close()
            return End(self, file)

    def begin(self) -> None:
        """Open a log that has no entries yet, so that a checkpoint knows its file before it is read."""
        if not self.entries and not self._files:
            self._open()

    def has_news(self, now: float) -> bool:
        """Whether a step may find something. One or two system calls."""
        if len(self._files) > 1 or any(until <= now or file.size > file.position for file, until in self._late):
            return True
        try:
            info = os.stat(self.path)
        except OSError:
            info = None
        if not self._files:
            return info is not None
        file = self._files[0]
        if info is not None and file.is_file(info):
            return info.st_size != file.position or info.st_mtime_ns != file.entry.modified
        return file.size != file.position or (info is not None and info.st_size > 0) or now - self._searched > RESCAN

    def has_open(self, candidate: Candidate) -> bool:
        """Whether the file is one of those that are read."""
        files = [*self._files, *(file for file, _ in self._late)]
        return any(candidate.is_file_of(file.entry) for file in files)

    @property
    def held_back(self) -> int:
        """Bytes of a last message whose end has not come."""
        return self._files[0].position - self._files[0].taken if self._files else 0

    @property
    def lag(self) -> int:
        """Bytes in its files that are not confirmed, as far as the files were seen, and the current one whole."""
        entries = self.entries
        behind = sum(max(0, each.size - each.offset) for each in entries)
        try:
            info = os.stat(self.path)
        except OSError:
            return behind
        seen = next((each for each in entries if (each.device, each.inode) == (info.st_dev, info.st_ino)), None)
        return behind + max(0, info.st_size - (max(seen.size, seen.offset) if seen is not None else 0))

    def close(self) -> None:
        for file in [*self._files, *(each for each, _ in self._late)]:
            file.close()

    def _step_late(self) -> Step | None:
        now = time.monotonic()
        for place, (file, until) in enumerate(self._late):
            try:
                chunk = file.read() if file.size > file.position else b""
            except (FileReplaced, OSError):
                until = now
                chunk = b""
            if chunk:
                return Chunk(self, file, chunk)
            if until <= now:
                del self._late[place]
                file.close()
                return End(self, file)
        return None

    def _is_quiet(self, file: LogFile) -> bool:
        """Whether nothing was written for QUIET."""
        if file.compression or abs(time.time() - file.modified / 1e9) > QUIET:
            return True
        now = time.monotonic()
        file.quiet_since = file.quiet_since or now
        return now - file.quiet_since > QUIET  # whatever the two clocks say

    # ── which files ──

    def _open(self) -> bool:
        """Open what there is to read; False when there is nothing, or it cannot be opened now."""
        self._wait_for_cut()
        for nth in range(TRIES):
            current = look_at(self.path, is_current=True)
            rotated = self._rotated(current)
            reads = choose_files(self.entries, rotated, current, has_contents_of, self._named, self._is_uncut)
            files = reads.files
            if reads.missing and nth < MISSING_TRIES:  # it may be under way from one name to the next
                time.sleep(0.002)
                continue
            if current is not None and not self.entries:
                busy, entry = self._reader.entry_elsewhere(current, self.path)
                if busy:
                    return False
                if entry is not None:
                    files = [(each, replace(entry) if each is current else old) for each, old in files]
            opened = self._open_all(files)
            if opened is None:
                time.sleep(0.001)
                continue
            if files and not opened:
                return False
            self._files.extend(opened)
            for entry in reads.missing:
                self._reader.note_missing(self._missing(entry))
            if reads.is_doubtful and opened:
                self._reader.notes.append((logging.WARNING, f"{self.name} is another file than the one read last time,"
                    " with the same contents: it is read from its beginning, and lines may be sent twice"))  # fmt: skip
            if opened:
                self.entries = keep_entries([file.entry for file in opened])
            else:
                self.entries = [each for each in self.entries if each not in reads.missing]
                if not self._reader.options.follow:
                    self._complain(f"{self.name} is not there now")
            return bool(opened)
        raise InputError(f"{self.name}: its files are renamed faster than they can be opened")

    def _wait_for_cut(self) -> None:
        """Wait while a copy of the current file is being made, which is cut after it: before the cut nothing tells the
        log from one that was cut and has the same lines again."""
        for _ in range(round(CUT_WAIT / CUT_POLL)):
            current = look_at(self.path, is_current=True)
            if current is None or not any(
                not each.compression
                and abs(time.time_ns() - each.modified) < COPY_QUIET
                and is_copy(each, current.head)
                for each in self._rotated(current)
            ):
                return
            time.sleep(CUT_POLL)

    def _open_all(self, files: Sequence[tuple[Candidate, Entry | None]]) -> list[LogFile] | None:
        """Open them; [] where one of them cannot be now, None where one of them was renamed meanwhile."""
        opened: list[LogFile] = []
        for candidate, entry in files:
            try:
                opened.append(LogFile(candidate, entry, self._reader.name_of(candidate.path)))
            except (OSError, FileReplaced, InputError) as error:
                for file in opened:
                    file.close()
                if isinstance(error, InputError):
                    raise
                if isinstance(error, (FileReplaced, FileNotFoundError)):
                    return None
                text = f"cannot read {self._reader.name_of(candidate.path)}: {error.strerror or error}"
                if not self._reader.options.follow:
                    raise InputError(text) from error
                self._complain(f"{text}; it is tried again")
                return []
        self._complained = ""
        return opened

    def _open_successors(self, file: LogFile) -> bool:
        """Where `file` is not the current one any more: open the files that come after it, once there is something in
        one of them."""
        try:
            info = os.stat(self.path)
        except OSError:
            info = None
        if info is not None and file.is_file(info):
            return False
        now = time.monotonic()
        if self._reader.options.follow and not (info and info.st_size) and now - self._searched < RESCAN:
            return False
        self._searched = now
        for _ in range(TRIES):
            current = look_at(self.path, is_current=True)
            known = [each for each in self.entries if each is not file.entry]
            reads = choose_files([file.as_read()], self._rotated(current), current, has_contents_of, (), self._is_uncut)
            newer = [
                (each, entry)
                for each, entry in reads.files
                if not each.is_file_of(file.entry) and (entry is None or entry.is_blank)
                if each.is_current or not _is_known(each, known)
            ]
            if not any(each.size or each.compression for each, _ in newer):
                return False
            opened = self._open_all([(each, None) for each, _ in newer])
            if opened is None:
                time.sleep(0.001)
                continue
            self._files.extend(opened)
            self.entries = keep_entries([*self.entries, *(each.entry for each in opened)])
            return bool(opened)
        return False

    def _is_other(self, file: LogFile) -> bool:
        """Whether something comes before what `file` has now: it was copied and cut since it was read, or since it was
        seen to be empty."""
        if not file.is_blank:
            return self._is_copied_away(file)
        opened = self._open_copies(file)
        self._copies_fail = opened is None
        return opened is not False

    def _open_copies(self, file: LogFile) -> bool | None:
        """Open what is to be read before `file`, which was empty when it was seen last: what was written to it since
        may have been copied and cut. False where there is no such copy, None where one cannot be opened now."""
        for _ in range(TRIES):
            modified = file.modified
            if modified == file.entry.modified and not file.peek():
                return False
            # A copy that is made after this has these first bytes: it is found when `file` is found to be cut.
            head = file.peek()
            rotated = self._reader.rotated_files(self.path)
            current = look_at(self.path)
            is_current = current is not None and current.is_file_of(file.entry)
            seen = Candidate(
                self.path, file.entry.device, file.entry.inode, file.size, modified, "", is_current, head
            )  # fmt: skip
            copies, until = choose_copies(
                file.entry, seen, rotated, self._is_read, is_compressed_of, self._is_uncut
            )  # fmt: skip
            opened = self._open_all([(each, None) for each in copies])
            if opened is None:
                time.sleep(0.001)
                continue
            if not copies:
                if not head and until == file.entry.modified:
                    file.entry.modified = modified
                return False
            if not opened:
                return None
            self._files.extendleft(reversed(opened))
            place = next(place for place, each in enumerate(self.entries) if each is file.entry)
            fresh = [each.entry for each in opened]
            self.entries = keep_entries([*self.entries[:place], *fresh, *self.entries[place:]])
            file.entry.modified = until
            return True
        raise InputError(f"{self.name}: its files are renamed faster than they can be opened")

    def _is_uncut(self, candidate: Candidate, current: Candidate) -> bool:
        """Whether a rotated file is a copy, or a part of one, of what is in the log, which is not cut yet. current: the
        log as it was before the rotated files were looked for."""
        modified, head = current.modified, current.head
        now = look_at(self.path, is_current=True)
        if now is not None and (now.device, now.inode) == (current.device, current.inode):
            modified, head = now.modified, head or now.head  # it may have been empty then, and been written to since
        return is_copy(candidate, head) and is_uncut_copy(candidate, modified, head)

    def _is_read(self, candidate: Candidate) -> bool:
        return self.has_open(candidate) or _is_known(candidate, self.entries)

    def _is_copied_away(self, file: LogFile) -> bool:
        """Whether the file was copied and cut since it was read, and begins again with all that was read of it."""
        if file.compression:
            return False
        changed = self._reader.rotated_changed(self.path)
        if (changed is not None and changed == self._compared) or file.modified == file.entry.modified:
            return False
        current = look_at(self.path)
        if current is None or not current.is_file_of(file.entry):
            return False
        rotated = self._rotated(current)
        if all(each.modified < file.entry.modified for each in rotated):
            self._compared = changed
            return False
        others = [each for each in self.entries if each is not file.entry]
        return find_copied_away([*others, file.as_read()], rotated, current, has_contents_of) is not None

    def _replace(self, file: LogFile) -> End | None:
        """`file` was cut while it was read: go on in a copy of what it was, if there is one, then at its beginning."""
        as_read = file.as_read()
        for _ in range(TRIES):
            current = look_at(self.path, is_current=True)
            reads = choose_files(
                [as_read], self._rotated(current), current, has_contents_of, (), self._is_uncut, is_cut=True
            )
            has_copy = bool(reads.files) and reads.files[0][1] is as_read
            files = [
                (each, entry)
                for each, entry in reads.files
                if entry is not None or each.is_current or not _is_known(each, self.entries)
            ]
            opened = self._open_all(files)
            if opened is not None:
                break
            time.sleep(0.001)
        else:
            raise InputError(f"{self.name}: its files are renamed faster than they can be opened")
        self._files.remove(file)
        file.close()
        unread = max(file.entry.size, as_read.offset) - as_read.offset
        if has_copy and opened:
            opened[0].take_over(file)
        else:
            if unread:
                file.entry.size = as_read.offset
                self._reader.note_missing(f"{self.name} was cut with {unread} bytes in it that were not read yet, and"
                    " no copy of it is found")  # fmt: skip
            else:
                self._reader.notes.append(
                    (logging.WARNING, f"{self.name} was cut at byte {as_read.offset}: going on at its beginning")
                )
        fresh = [each for each in opened if not any(each.entry is old for old in self.entries)]
        self._files.extendleft(reversed(opened))
        self.entries = keep_entries([*self.entries, *(each.entry for each in fresh)])
        return None if has_copy and opened else End(self, file)

    def _rotated(self, current: Candidate | None) -> list[Candidate]:
        """Rotated files, oldest first, without another name of the current file."""
        found = self._reader.rotated_files(self.path)
        if current is None:
            return found
        return [each for each in found if (each.device, each.inode) != (current.device, current.inode)]

    # ── words ──

    def _missing(self, entry: Entry) -> str:
        where = " ".join(self._reader.options.rotated) or f"{self.name}.*"
        seen = f" ({entry.size - entry.offset} bytes were seen)" if not entry.is_read else ""
        return (
            f"{self.name}: the file read last time (up to byte {entry.offset}) is gone: it is neither {self.name} nor"
            f" any {where}; lines written to it after that{seen} may be lost"
        )

    def _complain(self, text: str) -> None:
        if text != self._complained:
            self._reader.notes.append((logging.WARNING, text))
        self._complained = text

    def __repr__(self) -> str:
        return f"<RotatingLog {self.path} {list(self._files)!r}>"


def _is_known(candidate: Candidate, entries: Sequence[Entry]) -> bool:
    """Whether one of the entries is of this file, and nothing was written to it since but lines that came late. The
    inode of a removed file is soon another's, and several files may have the same contents."""
    return any(
        (candidate.compression or candidate.is_file_of(entry))
        and not entry.is_blank
        and (candidate.modified <= entry.modified or (not candidate.compression and candidate.size > entry.offset))
        and has_contents_of(candidate, entry)
        for entry in entries
    )


def _rotated_names(directory: str) -> dict[str, list[str]]:
    """Name of a log → the names in the directory that may be rotated files of it."""
    found: dict[str, list[str]] = {}
    for name, base in _names_and_bases(directory):
        found.setdefault(base, []).append(name)
    return found


def _names_and_bases(directory: str) -> Iterator[tuple[str, str]]:
    try:
        names = sorted(os.listdir(directory))
    except OSError:
        return
    for name in names:
        for base in base_names(name):
            yield name, base


def _is_glob(path: str) -> bool:
    """Whether it is a pattern, and no file has it as its name."""
    return glob.has_magic(path) and not os.path.lexists(path)
