"""A real S3 server: SeaweedFS, in a directory of its own, with credentials. In: buckets. Out: what a command needs.

What was written there is read back by boto3, which is none of ours. A server that was killed comes back on the
ports and with the data it had.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path
from typing import Any

from harness.ports import is_free
from harness.shell import MARK, SESSION, base_environment
from harness.waiting import DEADLINE, wait_until

KEY, SECRET = "archivist", "not-a-secret-but-long-enough"
PORTS = ("master.port", "volume.port", "filer.port", "s3.port", "admin.port")
GRPC = 10_000  # each port has its second one so far above


def weed_binary() -> str | None:
    """The server's program, beside this Python or on PATH."""
    beside = Path(sys.executable).with_name("weed")
    return str(beside) if beside.exists() else shutil.which("weed")


class Seaweed:
    """One server. `bucket()` makes a fresh bucket for a test."""

    def __init__(self) -> None:
        self.room = Path(tempfile.mkdtemp(prefix="qt-s3-", dir="/tmp"))  # its sockets need a short path
        self.process: subprocess.Popen[bytes] | None = None
        self._ports: dict[str, int] = {}
        self._client: Any = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._ports['s3.port']}"

    @property
    def environ(self) -> dict[str, str]:
        """Credentials as a command finds them."""
        return {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_REGION": "us-east-1"}

    @property
    def log(self) -> str:
        return (self.room / "log").read_text(errors="replace")

    # ── the process ──

    def start(self) -> None:
        """Start it, on the ports it had; returns when it answers as S3 does."""
        for _ in range(5):
            fresh = not self._ports
            self._ports = self._ports or dict(zip(PORTS, _free_ports(len(PORTS)), strict=True))
            with (self.room / "log").open("ab") as log:
                self.process = subprocess.Popen(
                    self._command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.room,
                    env=base_environment() | self.environ
                    | {"HOME": str(self.room), "TMPDIR": str(self.room), MARK: SESSION},
                )  # fmt: skip
            if wait_until(lambda: self._ended() or self._answers(), 60, lambda: self.log[-2000:]) == "answers":
                return
            assert fresh, self.log
            self._ports = {}  # somebody else was faster
        raise AssertionError(self.log)

    def _command(self) -> list[str]:
        binary = weed_binary()
        assert binary is not None
        return [
            binary, "mini", f"-dir={self.room}/data", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
            *(f"-{name}={port}" for name, port in self._ports.items()),
            f"-filer.localSocket={self.room}/filer.sock", f"-s3.localSocket={self.room}/s3.sock",
            "-s3.port.iceberg=0", "-s3.port.lance=0", "-webdav=false", "-admin.ui=false", "-master.telemetry=false",
            "-s3.autoCreateBucket=false", "-s3.allowDeleteBucketNotEmpty=false", "-master.volumeSizeLimitMB=64",
        ]  # fmt: skip

    def _ended(self) -> str:
        assert self.process is not None
        return "" if self.process.poll() is None else "ended"

    def _answers(self) -> str:
        """It listens before it can store anything: ask it to."""
        client = self._make_client(1)  # one that came too early is never answered
        with contextlib.suppress(Exception):
            name = f"ready-{uuid.uuid4().hex[:8]}"
            client.create_bucket(Bucket=name)
            client.put_object(Bucket=name, Key="x", Body=b"x")
            client.delete_object(Bucket=name, Key="x")
            client.delete_bucket(Bucket=name)
            return "answers"
        return ""

    def kill(self) -> None:
        """SIGKILL."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(DEADLINE)

    def freeze(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.thaw()
            self.kill()
        shutil.rmtree(self.room, ignore_errors=True)

    # ── further credentials ──

    def add_keys(self, user: str, secrets: dict[str, str]) -> None:
        """Let `user` read and write with each of these keys and its secret; returns when the server takes all."""
        actions = "-actions Read,Write,List,Tagging"
        self._configure(*(f"-user {user} -access_key {key} -secret_key {secrets[key]} {actions}" for key in secrets))
        wait_until(lambda: all(self._takes(key, secret) for key, secret in secrets.items()), DEADLINE)

    def remove_key(self, user: str, key: str, secret: str) -> None:
        """Take them away; returns when the server denies them."""
        self._configure(f"-user {user} -access_key {key} -delete")
        wait_until(lambda: not self._takes(key, secret), DEADLINE)

    def _configure(self, *changes: str) -> None:
        binary = weed_binary()
        assert binary is not None
        done = subprocess.run(
            [binary, "shell", f"-master=127.0.0.1:{self._ports['master.port']}"],
            input="".join([*(f"s3.configure {words} -apply\n" for words in changes), "exit\n"]).encode(),
            capture_output=True, cwd=self.room,
            env=base_environment() | {"HOME": str(self.room), "TMPDIR": str(self.room)},
            timeout=DEADLINE, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    def _takes(self, key: str, secret: str) -> bool:
        with contextlib.suppress(Exception):
            self._make_client(10, key, secret).list_buckets()
            return True
        return False

    # ── looked at by boto3 ──

    @property
    def client(self) -> Any:
        if self._client is None:
            self._client = self._make_client(10)
        return self._client

    def _make_client(self, patience: float, key: str = KEY, secret: str = SECRET) -> Any:
        import boto3
        from botocore.config import Config

        return boto3.client(
            "s3", endpoint_url=self.endpoint, aws_access_key_id=key, aws_secret_access_key=secret,
            region_name="us-east-1",
            config=Config(connect_timeout=2, read_timeout=patience, retries={"max_attempts": 0}, proxies={}),
        )  # fmt: skip

    def bucket(self) -> str:
        """A fresh bucket's name."""
        name = f"test-{uuid.uuid4().hex[:12]}"
        self.client.create_bucket(Bucket=name)
        return name

    def names(self, bucket: str) -> list[str]:
        """Everything in a bucket."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        return sorted(entry["Key"] for page in pages for entry in page.get("Contents", []))

    def read(self, bucket: str, name: str) -> bytes:
        body: bytes = self.client.get_object(Bucket=bucket, Key=name)["Body"].read()
        return body

    def unfinished(self, bucket: str) -> list[str]:
        """Uploads in parts that were begun and neither completed nor given up."""
        told = self.client.list_multipart_uploads(Bucket=bucket)
        return [upload["Key"] for upload in told.get("Uploads", [])]


def _free_ports(count: int) -> list[int]:
    """Ports that are free, as is the one GRPC above each; all below where outgoing connections begin."""
    draw = random.SystemRandom()
    found: list[int] = []
    while len(found) < count:
        port = draw.randrange(10_001, 32_000 - GRPC)
        if port not in found and is_free(port) and is_free(port + GRPC):
            found.append(port)
    return found
