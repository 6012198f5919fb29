"""`place` is a bucket on a real S3 server in one run of a test and a directory in the other."""

from __future__ import annotations

from pathlib import Path

import pytest

from .store_kinds import Bucket, Directory, Place


@pytest.fixture(params=["s3", "directory"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    if request.param == "directory":
        return Directory(tmp_path / "archive")
    return Bucket(request.getfixturevalue("seaweed"), monkeypatch)


@pytest.fixture
def bucket(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    return Bucket(request.getfixturevalue("seaweed"), monkeypatch)
