"""nsqd and q-broker, started, filled, asked and stopped. Both answer nsqd's HTTP API, so both are handled alike."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measure.processes import BenchError, end_group, last_line, start

START = 15.0  # seconds until a broker must answer
SETTLE = 10.0  # seconds until its counts must be what was sent
POST_BYTES = 4_000_000  # under nsqd's --max-body-size, 5 MiB
TICKS = os.sysconf("SC_CLK_TCK")


def cpu_of(pid: int | None) -> float | None:
    """Seconds of CPU that a process used so far, all threads; None where /proc does not tell."""
    try:
        told = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = told.rpartition(")")[2].split()  # what stands before the last bracket is a name, and may hold blanks
    return (int(fields[11]) + int(fields[12])) / TICKS


def spent(before: float | None, after: float | None) -> float | None:
    return after - before if before is not None and after is not None else None


@dataclass(slots=True)
class Counts:
    """What a broker says of a topic, its channels taken together with it."""

    published: int
    bytes: int
    waiting: int  # depth, in flight and deferred


class Broker:
    """A running broker."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], port: int) -> None:
        self.name = name
        self.address = f"127.0.0.1:{port}"
        self.http_port = port + 1
        self._process = process
        self._http = http.client.HTTPConnection("127.0.0.1", port + 1, timeout=30)

    def fill(self, topic: str, lines: Path) -> None:
        """Publish the lines of a file over HTTP, by no tool that is measured here."""
        with lines.open("rb") as source:
            while block := source.read(POST_BYTES):
                self._ask("POST", f"/mpub?topic={topic}", block + source.readline())

    def create(self, topic: str, channel: str | None = None) -> None:
        self._ask("POST", f"/topic/create?topic={topic}")
        if channel:
            self._ask("POST", f"/channel/create?topic={topic}&channel={channel}")

    def delete(self, topic: str) -> None:
        self._ask("POST", f"/topic/delete?topic={topic}")

    def counts(self, topic: str) -> Counts:
        for told in json.loads(self._ask("GET", f"/stats?format=json&topic={topic}"))["topics"] or []:
            if told["topic_name"] == topic:
                return Counts(told["message_count"], told["message_bytes"], _waiting(told))
        raise BenchError(f"{self.name} does not know topic {topic} that was just made")

    def settle(self, topic: str, done: Callable[[Counts], bool]) -> Counts:
        """The topic's counts, as soon as they are `done`, or as they are when they never become it."""
        deadline = time.monotonic() + SETTLE
        while not done(counts := self.counts(topic)) and time.monotonic() < deadline:
            time.sleep(0.01)
        return counts

    def cpu(self) -> float | None:
        return cpu_of(self._process.pid)

    def _ask(self, method: str, path: str, body: bytes | None = None) -> bytes:
        try:
            self._http.request(method, path, body)
            answer = self._http.getresponse()
            told = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise BenchError(f"{self.name} does not answer {method} {path}: {error or type(error).__name__}") from error
        if answer.status != 200:
            raise BenchError(
                f"{self.name} answers {method} {path} with {answer.status}: {told.decode(errors='replace')}"
            )
        return told


def _waiting(topic: dict[str, Any]) -> int:
    channels = topic["channels"] or []
    return sum([topic["depth"], *(c["depth"] + c["in_flight_count"] + c["deferred_count"] for c in channels)])


# q-broker as it keeps messages on disk, by how it is called here; any other one keeps them in memory.
MEMORY = "q-broker, --memory"
SYNCS = {"q-broker, --sync full": "full", "q-broker, --sync normal": "normal"}


@contextlib.contextmanager
def running(name: str, program: str, directory: Path, queue: int) -> Iterator[Broker]:
    """Start `program`, an nsqd or a q-broker, on free ports of this machine, and end it afterwards.

    `queue` messages fit into its memory, so that the programs are compared and not the disk.
    """
    directory.mkdir()
    log = directory / "log"
    port = free_ports()
    argv = [
        program,
        f"--tcp-address=127.0.0.1:{port}",
        f"--http-address=127.0.0.1:{port + 1}",
        "--broadcast-address=127.0.0.1",
        f"--mem-queue-size={queue}",
    ]
    if name == "nsqd":
        argv += [f"--data-path={directory}", "--log-level=error"]
    elif name in SYNCS:
        argv += [f"--data-path={directory}", f"--sync={SYNCS[name]}"]
    else:
        argv += ["--memory"]
    with log.open("wb") as talk:
        process = start(argv, stdin=subprocess.DEVNULL, stdout=talk, stderr=talk, cwd=directory)
    try:
        deadline = time.monotonic() + START
        while not answers(port + 1):
            if process.poll() is not None:
                raise BenchError(f"{program} ended with status {process.returncode}{last_line(log)}")
            if time.monotonic() > deadline:
                raise BenchError(f"{program} does not answer after {START:.0f} s{last_line(log)}")
            time.sleep(0.02)
        yield Broker(name, process, port)
    finally:
        end_group(process)


def answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/ping")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def free_ports() -> int:
    """The first of two neighbouring free ports: tools that know the TCP port look for HTTP on the next one."""
    for _ in range(100):
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            try:
                second.bind(("127.0.0.1", port + 1))
            except (OSError, OverflowError):
                continue
            return port
    raise BenchError("no two neighbouring free ports on 127.0.0.1")
