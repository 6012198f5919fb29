"""Which files of a rotated log are read, in what order, and where each is begun. Rules only: no file is opened here.

A log has a path under which it is written. From time to time its file is renamed and a new one is created ("create"),
or it is copied and cut, that is truncated to nothing ("copytruncate"). Renamed files and copies may be compressed
later. A checkpoint has an entry for each file that was read; the last entry is that of the file that was written last.

    the last entry's file                   what is read
    ─────────────────────────────────────   ───────────────────────────────────────────────────────────────────────────
    there is no entry                       the current file; before it the rotated ones that the user named
    is the current file                     it, from the entry's offset on
    is a rotated file                       it, from the entry's offset on; the rotated files newer than it, oldest
                                            first; the current file
    was empty                               the rotated files written to since, its own and those newer than it, oldest
                                            first; the current file
    is not found                            it is missing; the rotated files written to since; the current file
    is not found, but a copy of its first   the same, and it is not missing: it was copied, and then read on, before it
    part, written to since                  was cut. The copy has nothing that was not read

    an earlier entry's file                 what is read, before the above
    ─────────────────────────────────────   ───────────────────────────────────────────────────────────────────────────
    is found                                it, from the entry's offset on: it may have got late lines
    is not found, was read to its end       nothing
    is not found, was not read to its end   it is missing

    a file that is read                     what is read before it
    ─────────────────────────────────────   ───────────────────────────────────────────────────────────────────────────
    was empty when it was opened, and was   the rotated files older than it, written to since it was seen empty, that
    written to since                        have no entry: copies of what was in it before it was cut

    a rotated file                          what is read of it
    ─────────────────────────────────────   ───────────────────────────────────────────────────────────────────────────
    is a copy of what the current file      nothing: once the current file is cut, the copy is found by its contents
    has now, made or being made

Files are read in the order of their rotation, the oldest first, whichever entry is older.

A file is recognized as an entry's file by its contents: by its first bytes, the bytes before the entry's offset, and a
checksum of all bytes before that. Several files may have the same contents, as logs in which every line is "ok". Then:

    files with the last entry's contents    its file is
    ─────────────────────────────────────   ───────────────────────────────────────────────────────────────────────────
    rotated files that no earlier entry     the oldest of them: it was renamed or copied away, and the current file was
    has, written to at the recorded time    begun anew. A plain copy that is newer than the current file's last
    or later                                write does not count where that has the recorded inode: it is not cut yet
    else the current file, which has the    the current file
    recorded inode
    else a rotated file                     that one, if the current file has other contents
    else the current file, which has        none: the current file is read from its beginning, and a warning says that
    another inode                           lines may be sent twice

    files with an earlier entry's contents  its file is
    ─────────────────────────────────────   ───────────────────────────────────────────────────────────────────────────
    files last written to at its time       that with its inode, else the oldest: compressing keeps the time
    else others                             that with its inode, else the oldest written to since, but no doubtful file

A doubtful file is read from its beginning: lines may be sent twice, and none is left out. It has the contents of an
entry, was written to later, and may still be another file: its lines are repeated, and the system uses the inode of a
removed file again. It is not doubtful if the order of rotation tells it: while the last entry's file is found, earlier
entries are those of older files. Nor is it while the current file was not written to since it was seen empty, as no
copy was made since: the file got late lines.

Whether the current file was cut after a copy was made is decided by these facts, in this order:

    1. One rotation ends before the next begins: only the newest rotated file may be a copy of a file not cut yet.
    2. A file only grows until it is cut: if a copy is larger than the current file, that was cut.
    3. The copy is written before the cut, and the cut changes the current file's time. A copy with a later time than
       the current file is of a file not cut yet.
    4. A line with a date, a time or a number in it is not written twice. If the current file begins with such a line,
       and has it once, a copy with the same first bytes is one of its present contents, and the file is not cut yet.
    5. Otherwise the file counts as cut, and the copy is read: lines may be sent twice, and none is left out.

The copy is complete before the cut. So the rotated files are listed after bytes were read from the current file, and
before these bytes count as read: if they were written after a cut, the copy of the contents before it is found.

The system uses inodes again, and a copy has another inode. The entry of a file that was empty has only the inode.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Sequence
from dataclasses import dataclass, field, replace

OWN_DIGITS = 6  # digits that make a line unique: a date, a time, or a large number has so many
MOST_ENTRIES = 4  # entries of one log that are kept, besides those of files that were not read to their end


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """A hash of `length` bytes of a file from `start` on."""

    start: int
    length: int
    digest: str


@dataclass(slots=True)
class Entry:
    """A file that was read. device, inode: from stat. offset: everything before it is confirmed. size: the bytes of the
    file that were seen. modified: when it was last written to, ns since 1970. prints: fingerprints that its contents
    must have. checksum: a length, at most the offset, and the CRC-32 of that many bytes from the beginning."""

    device: int
    inode: int
    offset: int = 0
    size: int = 0
    modified: int = 0
    head: Fingerprint | None = None
    mark: Fingerprint | None = None
    checksum: tuple[int, int] | None = None

    @property
    def is_blank(self) -> bool:
        """Whether the file was empty when it was last seen, so that its contents are not known."""
        return self.head is None and not self.offset

    @property
    def is_read(self) -> bool:
        """Whether all bytes that were seen are confirmed."""
        return self.offset >= self.size

    @property
    def prints(self) -> list[Fingerprint]:
        return [each for each in (self.head, self.mark) if each is not None]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file that may belong to the log. size: bytes on disk, also of a compressed file. head: the first bytes of the
    current file, as they were before the rotated files were listed."""

    path: str
    device: int
    inode: int
    size: int
    modified: int
    compression: str = ""
    is_current: bool = False
    head: bytes = b""

    def is_file_of(self, entry: Entry) -> bool:
        return (self.device, self.inode) == (entry.device, entry.inode)


@dataclass(slots=True)
class Reads:
    """files: the files to read, in this order, each with its entry, or None if it is read from its beginning. missing:
    entries whose file was not found and has, or may have, data that was not read. is_doubtful: whether the current file
    may be that of the last entry, and is read from its beginning."""

    files: list[tuple[Candidate, Entry | None]] = field(default_factory=list)
    missing: list[Entry] = field(default_factory=list)
    is_doubtful: bool = False


Matches = Callable[[Candidate, Entry], bool]
IsSame = Callable[[Candidate, bytes], bool]
IsUncut = Callable[[Candidate, Candidate], bool]
IsOwn = Callable[[Candidate], bool]


def _is_cut(candidate: Candidate, current: Candidate) -> bool:
    return False


def _is_own(candidate: Candidate) -> bool:
    return True


def choose_files(
    entries: Sequence[Entry],
    rotated: Sequence[Candidate],
    current: Candidate | None,
    matches: Matches,
    named: Collection[str] = (),
    is_uncut: IsUncut = _is_cut,
    is_own: IsOwn = _is_own,
    *,
    is_cut: bool = False,
) -> Reads:
    """The files to read of one log.

    entries: of the checkpoint, oldest first. rotated: oldest first. current: the file at the path of the log, if any.
    matches: whether a file has the contents of an entry. named: paths of rotated files that the user gave. is_uncut:
    whether a rotated file is a copy of the present contents of the current file, see is_uncut_copy. is_own: whether a
    file is unique in its log, see has_own_contents. is_cut: whether the current file was cut after the last entry was
    made.
    """
    files = [*rotated, current] if current is not None else list(rotated)
    reads = Reads()
    if not entries:
        reads.files = [(each, None) for each in files if each.is_current or each.path in named]
        return reads
    *earlier, last = entries
    at = None
    if not last.is_blank:
        at, reads.is_doubtful = _find_last(entries, rotated, current, matches, is_cut)
    chosen: dict[int, Entry | None] = {} if at is None else {at: last}  # by the place of the file
    may_be_copies = at is None and not (
        current is not None and current.is_file_of(last) and current.modified == last.modified
    )

    def is_surely_of(file: Candidate, entry: Entry) -> bool:
        is_later = may_be_copies and file.modified > last.modified
        return matches(file, entry) and (entry.is_blank or not is_later or is_own(file))

    # Contents are a better proof than an inode, but of a file that was empty only the inode is known. If contents are
    # equal, the time of the last write decides: compressing keeps it.
    left = sorted(earlier, key=lambda entry: entry.is_blank)
    for of_same_time in (True, False):
        for entry in left:
            surely = matches if of_same_time else is_surely_of
            place = _find(entry, files[:at], surely, chosen, of_same_time=of_same_time)
            if place is not None:
                chosen[place] = entry
        left = [entry for entry in left if not any(entry is each for each in chosen.values())]
    reads.missing = [
        entry
        for entry in earlier
        if not entry.is_read and any(entry is each for each in left)
        if _find(entry, files[:at], matches, chosen) is None
    ]
    if at is not None:
        newer = list(range(at + 1, len(files)))
    else:
        # A file that was empty is known by its inode alone: times may be older, if the clock was set back.
        blank = _find(last, files, matches) if last.is_blank else None
        since = [
            place
            for place, each in enumerate(files)
            if each.is_current or each.modified > last.modified or (blank is not None and place >= blank)
        ]
        copies = {place for place in since if _is_first_part(files[place], last, matches)}
        if not last.is_blank and not copies and not reads.is_doubtful and (current is not None or not last.is_read):
            reads.missing.append(last)
        newer = [place for place in since if place not in copies]
    for place in newer:
        if place not in chosen:
            chosen[place] = last if last.is_blank and files[place].is_file_of(last) else None
    for place, of in sorted(chosen.items()):
        is_newest = place == len(rotated) - 1
        if is_newest and current is not None and (of is None or of.is_blank) and is_uncut(files[place], current):
            continue
        reads.files.append((files[place], of))
    return reads


def choose_copies(
    blank: Entry,
    file: Candidate,
    rotated: Sequence[Candidate],
    is_known: Callable[[Candidate], bool],
    is_same: IsSame,
    is_uncut: IsUncut,
) -> tuple[list[Candidate], int]:
    """The copies to read, oldest first, before a file that was empty when it was last seen; and the time, ns since
    1970, up to which rotated files need not be checked again.

    blank: the entry of the file when it was empty. file: the same file just before the rotated files were listed; its
    is_current tells whether it was still at the path of the log just after that. rotated: oldest first. is_known:
    whether a file is being read, or has an entry. is_same: whether a compressed file begins with these bytes. is_uncut:
    as above.
    """
    older = rotated
    if not file.is_current:  # it was renamed, and perhaps compressed: only files older than it come before it
        places = (place for place, each in enumerate(rotated) if each.is_file_of(blank) or is_same(each, file.head))
        older = rotated[: next(places, 0)]
    copies = [
        each
        for each in older
        if each.modified > blank.modified and (each.size or each.compression)
        if not is_known(each)
    ]
    until = max((each.modified for each in copies), default=blank.modified)
    if copies and copies[-1] is rotated[-1] and is_uncut(copies[-1], file):
        left_out = copies.pop()
        until = min(max((each.modified for each in copies), default=blank.modified), left_out.modified - 1)
    return copies, until


def is_uncut_copy(copy: Candidate, current: Candidate) -> bool:
    """Whether the log is not cut yet after `copy`, which has the same first bytes, was made. current: the log as it was
    after the copy."""
    return copy.size <= current.size and (copy.modified > current.modified or has_own_contents(current.head))


def has_own_contents(head: bytes) -> bool:
    """Whether a file with these first bytes is unique in its log: its first line has a date, a time or a number in it,
    and occurs once. False if the line is repeated, or if no line is complete."""
    first, end, rest = head.partition(b"\n")
    digits = sum(map(first.count, (b"%d" % digit for digit in range(10))))
    return bool(end) and digits >= OWN_DIGITS and first not in rest.split(b"\n")


def find_copied_away(
    entries: Sequence[Entry], rotated: Sequence[Candidate], current: Candidate | None, matches: Matches
) -> int | None:
    """The place in `rotated` of the file to which the last entry's file was renamed or copied; None if it may still be
    the current file."""
    *earlier, last = entries
    is_same = current is not None and current.inode == last.inode
    for place, each in enumerate(rotated):
        if each.modified < last.modified or any(
            each.is_file_of(entry) and each.modified <= entry.modified and matches(each, entry) for entry in earlier
        ):
            continue
        if is_same and current is not None and not each.compression and current.modified < each.modified:
            continue  # a copy of a file that is not cut yet
        if matches(each, last):
            return place
    return None


def _find_last(
    entries: Sequence[Entry],
    rotated: Sequence[Candidate],
    current: Candidate | None,
    matches: Matches,
    is_cut: bool,
) -> tuple[int | None, bool]:
    """The place of the last entry's file among the rotated files and the current one; and whether the current file has
    its contents, but counts as another file."""
    last = entries[-1]
    place = find_copied_away(entries, rotated, current, matches)
    if place is not None:
        return place, False
    is_like = current is not None and not is_cut and matches(current, last)
    # The number of a device may change at a restart. A checkpoint of an earlier version may have no inode.
    if is_like and current is not None and (current.inode == last.inode or not last.prints):
        return len(rotated), False
    place = _find(last, rotated, matches)
    if place is not None and (not is_like or rotated[place].is_file_of(last)):
        return place, False
    return None, is_like


def _find(
    entry: Entry,
    files: Sequence[Candidate],
    matches: Matches,
    used: Container[int] = frozenset(),
    *,
    of_same_time: bool = False,
) -> int | None:
    """The place in `files` of the entry's file. Tried are first the file with its inode, then those written to since,
    oldest first, then the others, newest first. of_same_time: only files with exactly the entry's time."""

    def order(place: int) -> tuple[bool, bool, int]:
        is_older = files[place].modified < entry.modified
        return not files[place].is_file_of(entry), is_older, -place if is_older else place

    places = [place for place in range(len(files)) if place not in used]
    if of_same_time:
        places = [place for place in places if files[place].modified == entry.modified]
    return next((place for place in sorted(places, key=order) if matches(files[place], entry)), None)


def _is_first_part(file: Candidate, entry: Entry, matches: Matches) -> bool:
    """Whether a rotated file has the first bytes of the entry's file, and is shorter than what was read of it."""
    if file.is_current or file.compression or entry.head is None or file.size >= entry.offset:
        return False
    return matches(file, replace(entry, offset=entry.head.length, mark=None, checksum=None))


def keep_entries(entries: list[Entry], being_read: Sequence[Entry] = ()) -> list[Entry]:
    """`entries` without the oldest of files that were read to their end. being_read: entries of files that are open:
    these are kept, as the end of a compressed file is not known before it is read."""
    old, new = entries[:-MOST_ENTRIES], entries[-MOST_ENTRIES:]
    return [each for each in old if not each.is_read or any(each is other for other in being_read)] + new
