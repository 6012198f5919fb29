"""The directory as a store, on a file system without hard links and files without a name."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from qtools.to_file.stores.directory import link_new


def test_a_file_system_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.delattr(os, "O_TMPFILE")
    assert link_new(tmp_path, "a/b", b"first") == "created"
    assert link_new(tmp_path, "a/b", b"second") == "existed"
    assert (tmp_path / "a/b").read_bytes() == b"first"
    assert os.listdir(tmp_path / "a") == ["b"]
