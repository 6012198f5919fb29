"""Stores for tests: a bucket on a real server, a directory; and files to put there."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from harness.seaweed import Seaweed

from qtools.to_file.stores.object_store import ObjectStore
from qtools.to_file.stores.opening import open_store


class Place:
    """A place to archive to, and another way to look into it than ours."""

    def __init__(self, url: str, endpoint: str = "") -> None:
        self.url, self.endpoint = url, endpoint

    def open(self, **settings: float) -> ObjectStore:
        return open_store(self.url, endpoint=self.endpoint, create=True, **settings)  # type: ignore[arg-type]

    def names(self) -> list[str]:
        raise NotImplementedError

    def read(self, name: str) -> bytes:
        raise NotImplementedError

    def write(self, name: str, content: bytes) -> None:
        raise NotImplementedError

    def remove(self, name: str) -> None:
        raise NotImplementedError


class Bucket(Place):
    """A bucket of its own, looked at by boto3."""

    def __init__(self, server: Seaweed, monkeypatch: pytest.MonkeyPatch) -> None:
        self.server = server
        self.bucket = server.bucket()
        for name, value in server.environ.items():
            monkeypatch.setenv(name, value)
        for name in ("HTTP_PROXY", "http_proxy", "AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_CA_BUNDLE"):
            monkeypatch.delenv(name, raising=False)
        super().__init__(f"s3://{self.bucket}/pre/fix", server.endpoint)

    def names(self) -> list[str]:
        return [name.removeprefix("pre/fix/") for name in self.server.names(self.bucket)]

    def read(self, name: str) -> bytes:
        return self.server.read(self.bucket, f"pre/fix/{name}")

    def write(self, name: str, content: bytes) -> None:
        self.server.client.put_object(Bucket=self.bucket, Key=f"pre/fix/{name}", Body=content)

    def remove(self, name: str) -> None:
        self.server.client.delete_object(Bucket=self.bucket, Key=f"pre/fix/{name}")


class Directory(Place):
    """A directory that does not exist yet."""

    def __init__(self, root: Path) -> None:
        self.root = root
        super().__init__(f"file://{root}")

    def names(self) -> list[str]:
        return sorted(str(path.relative_to(self.root)) for path in self.root.rglob("*") if path.is_file())

    def read(self, name: str) -> bytes:
        return (self.root / name).read_bytes()

    def write(self, name: str, content: bytes) -> None:
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        (self.root / name).write_bytes(content)

    def remove(self, name: str) -> None:
        (self.root / name).unlink()


def noise(size: int, seed: int = 0) -> bytes:
    """Bytes that no two parts of are alike."""
    return random.Random(seed).randbytes(size)
