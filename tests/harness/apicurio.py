"""A real schema registry: Apicurio, as a process that keeps its schemas in memory. In: nothing. Out: an URL.

It is fetched with Maven (140 MB), once, into a cache of the user; without Java or Maven tests are skipped. Of newer
versions Java 21 is needed.
"""

from __future__ import annotations

import http.client
import os
import subprocess
import tarfile
from pathlib import Path

from harness.maven import cache_of, why_not_fetched
from harness.ports import free_pair
from harness.shell import MARK, SESSION
from harness.waiting import wait_until

VERSION = "2.6.13.Final"
ARTIFACT = f"io.apicurio:apicurio-registry-app:{VERSION}:tar.gz:all"
PATH = "/apis/ccompat/v7"  # Confluent's API
START_TIMEOUT = 90.0  # s


def cache_directory() -> Path:
    return cache_of(f"apicurio-{VERSION}")


def why_not() -> str:
    """Why there is no Apicurio here; "" if there is one. The first call may fetch it, which takes a minute."""
    cache = cache_directory()

    def unpack() -> bool:
        packed = next(cache.glob("*.tar.gz"), None)
        if packed is None:
            return False
        with tarfile.open(packed) as archive:
            archive.extractall(cache, filter="data")
        packed.unlink()
        return True

    words = ["dependency:copy", f"-Dartifact={ARTIFACT}", f"-DoutputDirectory={cache}"]
    return why_not_fetched("Apicurio", cache, words, unpack)


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
