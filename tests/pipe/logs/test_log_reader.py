"""What is read of a log that was empty when it was opened, and was copied and cut before its first read."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from pipe.logs.waits import no_waiting
from qtools.pipe.logs.log_file import LogFile
from qtools.pipe.logs.log_reader import LogReader
from qtools.pipe.logs.open_files import LogOptions
from qtools.pipe.logs.rotating_log import Chunk

BEFORE = 10**18  # ns since 1970, long ago


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty file, last written to long ago."""
    no_waiting(monkeypatch)
    path = tmp_path / "app.log"
    path.touch()
    os.utime(path, ns=(BEFORE, BEFORE))
    return path


def opened(log: Path) -> LogReader:
    reader = LogReader([str(log)], {}, LogOptions(True, (), False))
    reader.check()
    return reader


def read(reader: LogReader) -> list[bytes]:
    steps = [reader.step() for _ in range(20)]
    return [step.data for step in steps if isinstance(step, Chunk)]


def test_the_copy_is_read_first(log: Path) -> None:
    reader = opened(log)
    assert read(reader) == []
    log.write_bytes(b"1\n")
    shutil.copyfile(log, f"{log}.2")
    log.write_bytes(b"2\n")
    shutil.copyfile(log, f"{log}.1")
    log.write_bytes(b"3\n")
    assert read(reader) == [b"1\n", b"2\n", b"3\n"]
    assert reader.lag == {str(log): 6}
    reader.close()


def test_a_copy_of_what_is_in_it_now_is_not_read(log: Path) -> None:
    reader = opened(log)
    log.write_bytes(b"1\n2\n")
    Path(f"{log}.1").write_bytes(b"1\n")
    assert read(reader) == [b"1\n2\n"]
    reader.close()


def test_a_file_that_is_cut_within_one_tick_of_the_clock(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its time is the same as before, and there is no copy: the step ends, and the next line is read."""
    reader = opened(log)
    log.write_bytes(b"1\n")
    os.utime(log, ns=(BEFORE, BEFORE))
    peek = LogFile.peek

    def peek_and_cut(file: LogFile) -> bytes:
        head = peek(file)
        os.truncate(log, 0)
        os.utime(log, ns=(BEFORE, BEFORE))
        return head

    with monkeypatch.context() as patch:
        patch.setattr(LogFile, "peek", peek_and_cut)
        assert read(reader) == []
    log.write_bytes(b"2\n")
    assert read(reader) == [b"2\n"]
    reader.close()
