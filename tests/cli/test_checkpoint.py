"""A checkpoint file: what it says when it cannot be written, read or locked, and what remains of it then."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from qtools.cli.checkpoint import CheckpointFile, CheckpointInUse
from qtools.errors import StartError, UsageError


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """No file of this process may become longer: a write up to there is cut short, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def opened(path: Path) -> CheckpointFile:
    return CheckpointFile(str(path), "a program")


def test_a_first_record_that_was_cut_short_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "state"
    file = opened(path)
    file.save({"at": 1})
    with files_of_at_most(path.stat().st_size + 4), pytest.raises(StartError, match=r"cannot write .*: File too large"):
        file.append('{"at": 2}')
    file.close()
    assert path.read_bytes() == b'{"at": 1}\n{"at'
    again = opened(path)
    assert again.load() == {"at": 1}
    assert again.records == []


def test_a_later_record_that_was_cut_short_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.write_bytes(b'{"at": 1}\n{"at": 2}\n{"at')
    file = opened(path)
    assert file.load() == {"at": 1}
    assert file.records == [{"at": 2}]


def test_a_save_that_fails_leaves_the_state_before_and_its_lock(tmp_path: Path) -> None:
    path = tmp_path / "state"
    file = opened(path)
    file.save({"at": 1})
    with files_of_at_most(4), pytest.raises(StartError, match=r"cannot write the checkpoint .*: File too large"):
        file.save({"at": 2})
    assert os.listdir(tmp_path) == ["state"]
    with pytest.raises(CheckpointInUse, match=f"in use by process {os.getpid()}"):
        opened(path).load()
    file.save({"at": 3})
    file.close()
    assert opened(path).load() == {"at": 3}


def test_two_first_saves_of_one_file(tmp_path: Path) -> None:
    path = tmp_path / "state"
    first, second = opened(path), CheckpointFile(f"{tmp_path}/./state", "a program")
    assert first.load() is None
    assert second.load() is None
    first.save({"at": 1})
    with pytest.raises(CheckpointInUse):
        second.save({"at": 0})
    first.close()
    assert opened(path).load() == {"at": 1}
    assert os.listdir(tmp_path) == ["state"]


def test_a_file_system_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(source: str, target: str) -> None:
        raise OSError(errno.EPERM, "Operation not permitted", source)

    monkeypatch.setattr(os, "link", refused)
    path = tmp_path / "state"
    first, second = opened(path), CheckpointFile(f"{tmp_path}/./state", "a program")
    first.save({"at": 1})
    with pytest.raises(CheckpointInUse):
        second.save({"at": 0})
    first.save({"at": 2})
    first.close()
    assert opened(path).load() == {"at": 2}
    assert os.listdir(tmp_path) == ["state"]


def test_paths_that_cannot_hold_a_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "fifo")
    for path, why in (
        (tmp_path / "none" / "state", "the directory .*none does not exist"),
        (tmp_path / "file" / "state", ".*file is not a directory"),
        (tmp_path, "it is a directory"),
        (tmp_path / "fifo", "it is not a regular file"),
    ):
        with pytest.raises(StartError, match=f"cannot write the checkpoint {path}: {why}"):
            opened(path).check()
    with pytest.raises(StartError, match="it is not a regular file"):
        opened(tmp_path / "fifo").load()


@pytest.mark.parametrize("content", [b"", b"[1", b"{}}\n", b"[" * 100_000, b"\xff\n", b'{"at": 1}\n{{}\n{}\n'])
def test_what_is_no_checkpoint(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "state"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="state is not a checkpoint of a program: remove it to begin anew"):
        opened(path).load()


def test_a_file_that_is_replaced_between_its_opening_and_its_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state that counts is the one at the path."""
    path = tmp_path / "state"
    path.write_bytes(b'{"at": 1}\n')
    flock = fcntl.flock
    holder = os.open(path, os.O_RDWR)

    def replaced(file: int, how: int) -> None:
        monkeypatch.setattr(fcntl, "flock", flock)
        flock(holder, fcntl.LOCK_EX)
        (tmp_path / "newer").write_bytes(b'{"at": 2}\n')
        os.replace(tmp_path / "newer", path)
        flock(file, how)

    monkeypatch.setattr(fcntl, "flock", replaced)
    file = opened(path)
    assert file.load() == {"at": 2}
    file.close()
    os.close(holder)
