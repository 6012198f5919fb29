"""A file is given its name on file systems without links too, and a failure leaves nothing behind."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from qtools.to_file.archive.publish_file import give_name


@pytest.fixture(autouse=True)
def no_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on FAT: no file system of a test machine refuses links."""

    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)


def test_without_links_the_file_has_its_name_and_no_draft_stays(tmp_path: Path) -> None:
    (tmp_path / "work").write_bytes(b"messages")
    assert give_name(tmp_path / "work", tmp_path / "archive/a.log", ".draft")
    assert (tmp_path / "archive/a.log").read_bytes() == b"messages"
    assert os.listdir(tmp_path / "archive") == ["a.log"]
    (tmp_path / "work").write_bytes(b"others")
    assert not give_name(tmp_path / "work", tmp_path / "archive/a.log", ".draft")
    assert (tmp_path / "archive/a.log").read_bytes() == b"messages"
    assert os.listdir(tmp_path / "archive") == ["a.log"]


def test_a_name_that_cannot_be_filled_is_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "work").write_bytes(b"messages")
    with monkeypatch.context() as patch:

        def fail(*_: object) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        patch.setattr(os, "replace", fail)
        with pytest.raises(OSError, match="Input/output"):
            give_name(tmp_path / "work", tmp_path / "archive/a.log", ".draft")
    assert os.listdir(tmp_path / "archive") == []
    assert give_name(tmp_path / "work", tmp_path / "archive/a.log", ".draft")
    assert (tmp_path / "archive/a.log").read_bytes() == b"messages"
