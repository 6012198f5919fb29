"""The open files of one log, in the order in which they are read. In: the files in its directory. Out: open files.

Files are opened when a run begins (open), when the current file was renamed (open_successors), when it was empty and
may have been copied and truncated since (is_other), and when it was truncated while it was read (replace_cut).
rotation.py decides which files are opened. The calls block, and are made in the thread of the reader. "Cut" means
truncated to nothing, as copytruncate does.
"""

from __future__ import annotations

import errno
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from qtools.errors import InputError
from qtools.pipe.logs.log_file import (
    FileReplaced,
    LogFile,
    has_contents_of,
    is_compressed_of,
    is_copy,
    is_own,
    is_same_file,
    look_at,
)
from qtools.pipe.logs.rotated_files import RotatedFiles
from qtools.pipe.logs.rotation import (
    Candidate,
    Entry,
    choose_copies,
    choose_files,
    find_copied_away,
    is_uncut_copy,
    keep_entries,
)

LATE = 30.0  # s that a file is still checked for late lines after its successor was begun
RESCAN = 1.0  # s between two searches for a successor
COPY_QUIET = 300_000_000  # ns without a write after which a copy counts as complete, and the log as cut
CUT_WAIT = 1.0  # s that a run waits for that, at most
CUT_POLL = 0.05  # s between two checks of it
MISSING_TRIES = 5  # searches for a file before it counts as missing
TRIES = 20  # attempts to open files that are renamed meanwhile

Result = TypeVar("Result")


@dataclass(slots=True)
class LogOptions:
    """rotated: globs of rotated files, in which `{name}` is the file name of the log; () for the files beside it."""

    follow: bool = False
    rotated: tuple[str, ...] = ()
    skip_missing: bool = False


class Logs(Protocol):
    """All logs that are read. notes: lines for the user, each with its level."""

    notes: deque[tuple[int, str]]

    def note_missing(self, text: str) -> None:
        """Note that a file is missing; InputError unless missing files are skipped."""

    def note_limit(self) -> None:
        """Note that the process may not open more files; StartError during the start."""

    def entry_elsewhere(self, candidate: Candidate, path: str) -> tuple[bool, Entry | None]:
        """Whether a log other than `path` reads this file now; otherwise the entry of another log for it."""


class OpenFiles:
    """The files of the log at `path`. name: of the log, for messages. entries: its entries for the checkpoint; the list
    is replaced when files appear or disappear. named: paths of rotated files that the user gave.

    files: the file that is being read, and those after it. late: files that were read to their end and may still get
    lines, each with the time until which it is checked (s, monotonic). searched: when a successor was last searched
    for. copies_fail: whether a copy that has to be read first cannot be opened now.
    """

    def __init__(
        self,
        path: str,
        name: str,
        entries: list[Entry],
        named: Sequence[str],
        options: LogOptions,
        rotated_files: RotatedFiles,
        logs: Logs,
    ) -> None:
        self.path = path
        self.name = name
        self.entries = entries
        self.files: deque[LogFile] = deque()
        self.late: list[tuple[LogFile, float]] = []
        self.searched = 0.0
        self.copies_fail = False
        self._named = named
        self._options = options
        self._rotated_files = rotated_files
        self._logs = logs
        self._complained = ""  # the last warning, if its cause has not changed since
        self._compared: int | None = None  # the mtime of a directory that has no copy of what was read

    def has_open(self, candidate: Candidate) -> bool:
        """Whether the log reads this file now."""
        files = [*self.files, *(file for file, _ in self.late)]
        return any(candidate.is_file_of(file.entry) for file in files)

    def end(self) -> None:
        """The first file was read to its end; only late lines are read from it now."""
        file = self.files.popleft()
        if self._options.follow and not file.compression:
            self.late.append((file, time.monotonic() + LATE))
        else:
            file.close()
        self._keep(self.entries)

    def _keep(self, entries: list[Entry]) -> None:
        """Keep these entries, without old ones that are not needed any more."""
        self.entries = keep_entries(entries, [file.entry for file in self.files])

    def close(self) -> None:
        for file in [*self.files, *(each for each, _ in self.late)]:
            file.close()

    def open(self) -> bool:
        """Open the files to read; False if there are none, or if they cannot be opened now."""
        self._wait_for_cut()
        for nth in range(TRIES):
            current = look_at(self.path, is_current=True)
            rotated = self._rotated(current)
            try:
                reads = choose_files(
                    self.entries, rotated, current, has_contents_of, self._named, self._is_uncut, is_own
                )
                files = reads.files
                if reads.missing and nth < MISSING_TRIES:  # the file may just be being renamed
                    time.sleep(0.002)
                    continue
                if current is not None and not self.entries:
                    busy, entry = self._logs.entry_elsewhere(current, self.path)
                    if busy:
                        return False
                    if entry is not None:
                        files = [(each, replace(entry) if each is current else old) for each, old in files]
                opened = self._open_all(files)
            except FileReplaced:
                time.sleep(0.001)
                continue
            if files and not opened:
                return False
            self.files.extend(opened)
            for entry in reads.missing:
                self._logs.note_missing(self._missing(entry))
            if reads.is_doubtful and opened:
                self._logs.notes.append((logging.WARNING, f"{self.name} is another file than the one read last time,"
                    " with the same contents: it is read from its beginning, and lines may be sent twice"))  # fmt: skip
            if opened:
                self.entries = [file.entry for file in opened]
            else:
                self.entries = [each for each in self.entries if each not in reads.missing]
                if not self._options.follow:
                    self.complain(f"{self.name} is not there now")
            return bool(opened)
        raise InputError(f"{self.name}: its files are renamed faster than they can be opened")

    def _wait_for_cut(self) -> None:
        """Wait while a copy of the current file is being made, after which the file is cut: before the cut, the log
        looks like one that was cut and got the same lines again."""
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

    def _open_all(self, files: Sequence[tuple[Candidate, Entry | None]]) -> list[LogFile]:
        """Open all `files`; [] if one cannot be opened now, FileReplaced if one was renamed meanwhile."""
        opened: list[LogFile] = []
        for candidate, entry in files:
            try:
                opened.append(LogFile(candidate, entry, self._rotated_files.name_of(candidate.path)))
            except (OSError, FileReplaced, InputError) as error:
                for file in opened:
                    file.close()
                if isinstance(error, InputError):
                    raise
                if isinstance(error, (FileReplaced, FileNotFoundError)):
                    raise FileReplaced from None
                if error.errno == errno.EMFILE and self._options.follow:
                    self._logs.note_limit()
                    return []
                text = f"cannot read {self._rotated_files.name_of(candidate.path)}: {error.strerror or error}"
                if not self._options.follow:
                    raise InputError(text) from error
                self.complain(f"{text}; it is tried again")
                return []
        self._complained = ""
        return opened

    def open_successors(self, file: LogFile) -> bool:
        """If `file` is not the current file any more, open the files after it, as soon as one of them has data. Returns
        whether files were opened."""
        try:
            info = os.stat(self.path)
        except OSError:
            info = None
        if info is not None and file.is_file(info):
            return False
        now = time.monotonic()
        if self._options.follow and not (info and info.st_size) and now - self.searched < RESCAN:
            return False
        self.searched = now
        return self._retry(lambda: self._try_successors(file))

    def _try_successors(self, file: LogFile) -> bool:
        current = look_at(self.path, is_current=True)
        known = [each for each in self.entries if each is not file.entry]
        reads = choose_files(
            [file.as_read()], self._rotated(current), current, has_contents_of, (), self._is_uncut, is_own
        )
        newer = [
            (each, entry)
            for each, entry in reads.files
            if not each.is_file_of(file.entry) and (entry is None or entry.is_blank)
            if each.is_current or not is_known(each, known)
        ]
        if not any(each.size or each.compression for each, _ in newer):
            return False
        opened = self._open_all([(each, None) for each, _ in newer])
        self.files.extend(opened)
        self._keep([*self.entries, *(each.entry for each in opened)])
        return bool(opened)

    def _retry(self, attempt: Callable[[], Result]) -> Result:
        """The result of the first `attempt` during which no file is renamed; InputError after TRIES attempts."""
        for _ in range(TRIES):
            try:
                return attempt()
            except FileReplaced:
                time.sleep(0.001)
        raise InputError(f"{self.name}: its files are renamed faster than they can be opened")

    def is_other(self, file: LogFile) -> bool:
        """Whether other data has to be read before the contents of `file`: it was copied and cut since it was read, or
        since it was seen empty."""
        if not file.is_blank:
            return self._is_copied_away(file)
        opened = self._retry(lambda: self._open_copies(file))
        self.copies_fail = opened is None
        return opened is not False

    def _open_copies(self, file: LogFile) -> bool | None:
        """Open the copies to read before `file`, which was empty when it was last seen: lines written to it since may
        have been copied and cut. False if there is no such copy, None if one cannot be opened now."""
        modified = file.modified
        if modified == file.entry.modified and not file.peek():
            return False
        # A copy that is made after this has these first bytes: it is found when the cut is noticed.
        head = file.peek()
        rotated = self._rotated_files.find(self.path)
        current = look_at(self.path)
        is_current = current is not None and current.is_file_of(file.entry)
        seen = Candidate(
            self.path, file.entry.device, file.entry.inode, file.size, modified, "", is_current, head
        )  # fmt: skip
        copies, until = choose_copies(
            file.entry, seen, rotated, self._is_read, is_compressed_of, self._is_uncut
        )  # fmt: skip
        opened = self._open_all([(each, None) for each in copies])
        if not copies:
            if not head and until == file.entry.modified:
                file.entry.modified = modified
            return False
        if not opened:
            return None
        self.files.extendleft(reversed(opened))
        place = next(place for place, each in enumerate(self.entries) if each is file.entry)
        fresh = [each.entry for each in opened]
        self._keep([*self.entries[:place], *fresh, *self.entries[place:]])
        file.entry.modified = until
        return True

    def _is_uncut(self, candidate: Candidate, current: Candidate) -> bool:
        """Whether a rotated file is a copy (or a part of one) of the contents of the log, which is not cut yet.
        current: the log as it was before the rotated files were listed."""
        now = look_at(self.path, is_current=True)
        if now is None or (now.device, now.inode) != (current.device, current.inode):
            now = current
        # It may have been empty then, and have data now.
        seen = replace(now, head=current.head or now.head)
        return is_copy(candidate, seen.head) and is_uncut_copy(candidate, seen)

    def _is_read(self, candidate: Candidate) -> bool:
        return self.has_open(candidate) or is_known(candidate, self.entries)

    def _is_copied_away(self, file: LogFile) -> bool:
        """Whether the file was copied and cut since it was read, and its new contents begin with all that was read."""
        if file.compression:
            return False
        changed = self._rotated_files.changed(self.path)
        if (changed is not None and changed == self._compared) or file.modified == file.entry.modified:
            return False
        current = look_at(self.path)
        if current is None or not current.is_file_of(file.entry):
            return False
        others = [each for each in self.entries if each is not file.entry]

        def is_found() -> bool:
            rotated = self._rotated(current)
            if all(each.modified < file.entry.modified for each in rotated):
                self._compared = changed
                return False
            return find_copied_away([*others, file.as_read()], rotated, current, has_contents_of) is not None

        return self._retry(is_found)

    def replace_cut(self, file: LogFile) -> bool:
        """`file` was cut while it was read: continue in a copy of its old contents, if there is one, and then at its
        beginning. False if there is no copy, so that its old contents end here."""
        as_read = file.as_read()
        opened, has_copy = self._retry(lambda: self._open_after_cut(as_read))
        self.files.remove(file)
        file.close()
        unread = max(file.entry.size, as_read.offset) - as_read.offset
        if has_copy and opened:
            opened[0].take_over(file)
        else:
            if unread:
                file.entry.size = as_read.offset
                self._logs.note_missing(f"{self.name} was cut with {unread} bytes in it that were not read yet, and"
                    " no copy of it is found")  # fmt: skip
            else:
                self._logs.notes.append(
                    (logging.WARNING, f"{self.name} was cut at byte {as_read.offset}: going on at its beginning")
                )
        fresh = [each for each in opened if not any(each.entry is old for old in self.entries)]
        self.files.extendleft(reversed(opened))
        self._keep([*self.entries, *(each.entry for each in fresh)])
        return has_copy and bool(opened)

    def _open_after_cut(self, as_read: Entry) -> tuple[list[LogFile], bool]:
        """Open the files to read after a cut. Returns them, and whether the first is a copy of the old contents."""
        current = look_at(self.path, is_current=True)
        rotated = self._rotated(current)
        reads = choose_files([as_read], rotated, current, has_contents_of, (), self._is_uncut, is_own, is_cut=True)
        files = [
            (each, entry)
            for each, entry in reads.files
            if entry is not None or each.is_current or not is_known(each, self.entries)
        ]
        return self._open_all(files), bool(reads.files) and reads.files[0][1] is as_read

    def _rotated(self, current: Candidate | None) -> list[Candidate]:
        """Rotated files, oldest first, without another name of the current file."""
        found = self._rotated_files.find(self.path)
        if current is None:
            return found
        return [each for each in found if (each.device, each.inode) != (current.device, current.inode)]

    def _missing(self, entry: Entry) -> str:
        where = self._rotated_files.place or f"{self.name}.*"
        seen = f" ({entry.size - entry.offset} bytes were seen)" if not entry.is_read else ""
        return (
            f"{self.name}: the file read last time (up to byte {entry.offset}) is gone: it is neither {self.name} nor"
            f" any {where}; lines written to it after that{seen} may be lost"
        )

    def complain(self, text: str) -> None:
        """Warn once, until another warning comes or the files can be opened."""
        if text != self._complained:
            self._logs.notes.append((logging.WARNING, text))
        self._complained = text


def is_known(candidate: Candidate, entries: Sequence[Entry]) -> bool:
    """Whether one of the entries is of this file, and nothing was written to it since but lines that came late."""
    return any(
        (candidate.compression or candidate.is_file_of(entry)) and not entry.is_blank and is_same_file(candidate, entry)
        for entry in entries
    )
