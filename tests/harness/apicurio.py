"""A real schema registry: Apicurio, as a process that keeps its schemas in memory. In: nothing. Out: an URL.

It is fetched with Maven (140 MB), once, into a cache of the user; without Java or Maven tests are skipped. Of newer
versions Java 21 is needed.
"""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import os
import shutil
import subprocess
import tarfile
import time
from pathlib import Path

from harness.ports import free_pair
from harness.shell import MARK, SESSION
from harness.waiting import wait_until

VERSION = "2.6.13.Final"
ARTIFACT = f"io.apicurio:apicurio-registry-app:{VERSION}:tar.gz:all"
PATH = "/apis/ccompat/v7"  # Confluent's API
RESOLVE_TIMEOUT = 300.0  # s
START_TIMEOUT = 90.0  # s


def cache_directory() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "qtools-tests" / f"apicurio-{VERSION}"


def why_not() -> str:
    """Why there is no Apicurio here; "" if there is one. The first call may fetch it, which takes a minute."""
    if shutil.which("java") is None:
        return "no Java on PATH, to run Apicurio"
    cache = cache_directory()
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (cache / "complete").exists():
            return ""
        if shutil.which("mvn") is None:
            return "no Maven on PATH, to fetch Apicurio"
        if (cache / "failed").exists() and time.time() - (cache / "failed").stat().st_mtime < 3600:
            return "Apicurio cannot be fetched with Maven"
        words = ["mvn", "-q", "-B", "dependency:copy", f"-Dartifact={ARTIFACT}", f"-DoutputDirectory={cache}"]
        with contextlib.suppress(subprocess.TimeoutExpired):
            done = subprocess.run(words, capture_output=True, timeout=RESOLVE_TIMEOUT, check=False)
            packed = next(cache.glob("*.tar.gz"), None)
            if done.returncode == 0 and packed is not None:
                with tarfile.open(packed) as archive:
                    archive.extractall(cache, filter="data")
                packed.unlink()
                (cache / "complete").touch()
                return ""
        (cache / "failed").touch()
        return "Apicurio cannot be fetched with Maven"


class Apicurio:
    """Serves until `close`."""

    def __init__(self, room: Path) -> None:
        self.port = free_pair()
        self.url = f"http://127.0.0.1:{self.port}{PATH}"
        self._log = room / "apicurio.log"
        runner = next(cache_directory().glob("*-runner.jar"))
        words = [
            "java", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dquarkus.http.host=127.0.0.1",
            f"-Dquarkus.http.port={self.port}", "-jar", str(runner),
        ]  # fmt: skip
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, MARK: SESSION}, cwd=room
            )
        wait_until(self._answers, START_TIMEOUT, lambda: self._log.read_text(errors="replace")[-3000:])

    def _answers(self) -> bool:
        assert self._process.poll() is None, self._log.read_text(errors="replace")[-3000:]
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", f"{PATH}/schemas/types")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
