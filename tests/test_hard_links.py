"""A file gets a new name, with and without hard links, and a failure leaves nothing behind."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from qtools.hard_links import move_to_new_name


@pytest.fixture(params=[True, False], ids=["hard links", "no hard links"])
def directory(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    if not request.param:  # as on FAT
        monkeypatch.setattr(os, "link", refuse)
    (tmp_path / "draft").write_bytes(b"new")
    return tmp_path


def test_a_file_is_moved(directory: Path) -> None:
    move_to_new_name(directory / "draft", directory / "file")
    assert os.listdir(directory) == ["file"]
    assert (directory / "file").read_bytes() == b"new"


def test_a_name_that_is_taken_stays_as_it_is(directory: Path) -> None:
    (directory / "file").write_bytes(b"old")
    with pytest.raises(FileExistsError):
        move_to_new_name(directory / "draft", directory / "file")
    assert (directory / "file").read_bytes() == b"old"
    assert (directory / "draft").read_bytes() == b"new"


def test_a_name_that_was_reserved_in_vain_is_free_again(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(errno.EOPNOTSUPP, "no links")))
    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        move_to_new_name(directory / "draft", directory / "file")
    assert os.listdir(directory) == ["draft"]


def test_another_error_is_raised(directory: Path) -> None:
    with pytest.raises(FileNotFoundError):
        move_to_new_name(directory / "none" / "draft", directory / "none" / "file")
