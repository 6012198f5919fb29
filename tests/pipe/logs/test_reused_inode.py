"""What is read of a log whose rotated file has the inode of a removed one, and begins with the same lines.

The system uses the inode of a removed file again. Tests cannot make it do so, and write the inode of the new file into
the entry of the old one.
"""

from __future__ import annotations

import gzip
import os
import shutil
from pathlib import Path

import pytest

from pipe.logs.waits import no_waiting
from qtools.pipe.logs.log_file import HEAD, fingerprint
from qtools.pipe.logs.log_reader import LogReader
from qtools.pipe.logs.open_files import LogOptions
from qtools.pipe.logs.rotating_log import Chunk
from qtools.pipe.logs.rotation import Entry

OLD, EMPTY, LATER = 10**18, 10**18 + 100, 10**18 + 200  # ns since 1970
FIRST = b"ok\n" * 47
MORE = b"ok\n" * 44
OWN = b"2026-11-29T10:00:00 begin\n"  # a line that no other file has


def write(path: Path, data: bytes, modified: int) -> int:
    """Write the file. Returns its inode."""
    with path.open("r+b" if path.exists() else "xb") as file:
        file.write(data)
        file.truncate()
    os.utime(path, ns=(modified, modified))
    return path.stat().st_ino


def copy_and_cut(log: Path, copy: Path) -> int:
    """As copytruncate does. Returns the inode of the copy."""
    shutil.copyfile(log, copy)
    modified = log.stat().st_mtime_ns + 1
    os.utime(copy, ns=(modified, modified))
    write(log, b"", modified + 1)
    return copy.stat().st_ino


def entry(path: Path, inode: int, data: bytes, modified: int) -> Entry:
    """The entry of a file that had this data, all of it read."""
    head = fingerprint(data[:HEAD], 0) if data else None
    return Entry(path.parent.stat().st_dev, inode, len(data), len(data), modified, head)


def read(reader: LogReader) -> bytes:
    steps = [reader.step() for _ in range(20)]
    return b"".join(step.data for step in steps if isinstance(step, Chunk))


def run(known: dict[Path, list[Entry]]) -> bytes:
    """What a run sends that does not follow."""
    reader = LogReader([str(log) for log in known], {str(log): each for log, each in known.items()}, LogOptions())
    reader.check()
    data = read(reader)
    reader.close()
    return data


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty log with a compressed rotated file."""
    no_waiting(monkeypatch)
    packed = tmp_path / "app.log.9.gz"
    write(packed, gzip.compress(FIRST), OLD)
    write(tmp_path / "app.log", b"", EMPTY)
    return tmp_path / "app.log"


def following(log: Path, data: bytes) -> tuple[LogReader, Entry]:
    """A run that follows, and has read `data` of the log; and the entry of the compressed file."""
    packed = Path(f"{log}.9.gz")
    current = entry(log, log.stat().st_ino, data, log.stat().st_mtime_ns)
    known = [entry(packed, packed.stat().st_ino, FIRST, OLD), current]
    reader = LogReader([str(log)], {str(log): known}, LogOptions(follow=True))
    reader.check()
    assert read(reader) == b""
    return reader, reader.logs[str(log)].entries[0]


def test_a_copy_made_after_the_log_was_seen_empty(log: Path) -> None:
    reader, old = following(log, b"")
    write(log, FIRST + MORE, LATER)
    old.inode = copy_and_cut(log, Path(f"{log}.1"))
    assert read(reader) == FIRST + MORE
    reader.close()


def test_a_copy_made_after_the_copy_of_what_was_read(log: Path) -> None:
    write(log, b"ok\n" * 5, EMPTY)
    reader, old = following(log, b"ok\n" * 5)
    write(log, b"ok\n" * 60, LATER)
    copy_and_cut(log, Path(f"{log}.2"))
    write(log, FIRST + MORE, LATER + 10)
    old.inode = copy_and_cut(log, Path(f"{log}.1"))
    write(log, b"ok\n", LATER + 20)
    assert read(reader) == b"ok\n" * 55 + FIRST + MORE + b"ok\n"
    reader.close()


@pytest.mark.parametrize("offset", [len(FIRST), len(FIRST) - 3])
def test_a_copy_made_between_two_runs(log: Path, offset: int) -> None:
    """Also if the old file was not read to its end: nothing of it is said to be missing, as it may be this one."""
    Path(f"{log}.9.gz").unlink()
    blank = entry(log, log.stat().st_ino, b"", EMPTY)
    write(log, FIRST + MORE, LATER)
    old = entry(log, copy_and_cut(log, Path(f"{log}.1")), FIRST, OLD + 1)
    old.offset = offset
    assert run({log: [old, blank]}) == FIRST + MORE


def test_a_log_that_was_seen_empty_and_begins_as_a_removed_file(log: Path) -> None:
    Path(f"{log}.9.gz").unlink()
    blank = entry(log, log.stat().st_ino, b"", EMPTY)
    write(log, FIRST + MORE, LATER)
    assert run({log: [entry(log, 1, FIRST, OLD + 1), blank]}) == FIRST + MORE


def test_another_log_with_the_inode_of_a_removed_file(log: Path) -> None:
    other = log.with_name("other.log")
    inode = write(other, FIRST + MORE, LATER)
    blank = entry(log, log.stat().st_ino, b"", EMPTY)
    assert run({log: [entry(log, inode, FIRST, OLD), blank], other: []}) == FIRST + MORE


def test_late_lines_of_a_renamed_file_whose_successor_is_still_empty(log: Path) -> None:
    """Nothing was written to the log, so no copy of it was made."""
    old = entry(log, write(Path(f"{log}.1"), FIRST + MORE, LATER), FIRST, OLD + 1)
    assert run({log: [old, entry(log, log.stat().st_ino, b"", EMPTY)]}) == MORE


def test_late_lines_of_a_renamed_file_that_no_other_file_can_be(log: Path) -> None:
    old = entry(log, write(Path(f"{log}.1"), OWN + FIRST + MORE, LATER), OWN + FIRST, OLD + 1)
    blank = entry(log, log.stat().st_ino, b"", EMPTY)
    write(log, b"ok\n", LATER + 10)
    assert run({log: [old, blank]}) == MORE + b"ok\n"


def test_a_log_under_another_name(log: Path) -> None:
    other = log.with_name("other.log")
    inode = write(other, OWN + FIRST + MORE, LATER)
    blank = entry(log, log.stat().st_ino, b"", EMPTY)
    assert run({log: [entry(log, inode, OWN + FIRST, OLD), blank], other: []}) == MORE
