"""Real Apache Kafka: nodes of one cluster as processes, in KRaft mode. In: flags. Out: addresses.

The server's jars are resolved with Maven from pom.xml beside this file, once, into a cache of the user; without Java or
Maven tests are skipped. A node comes back on its port and with its data. `python -m harness.kafka PID ROOM` keeps a
server for as long as the process PID lives: several test processes share it.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path

from harness.maven import cache_of, why_not_fetched
from harness.ports import free_pair
from harness.waiting import wait_until

POM = Path(__file__).with_name("kafka-pom.xml")
WHICH = hashlib.sha256(POM.read_bytes()).hexdigest()[:12]  # what is in the cache
START_TIMEOUT = 90.0  # s
_keepers: list[subprocess.Popen[bytes]] = []


def cache_directory() -> Path:
    return cache_of(f"kafka-{WHICH}")


def why_not() -> str:
    """Why there is no Kafka here; "" if there is one. The first call may resolve the jars, which takes a minute."""
    cache = cache_directory()
    words = ["-f", str(POM), "dependency:copy-dependencies", f"-DoutputDirectory={cache}/jars"]
    return why_not_fetched("Apache Kafka", cache, words)


class KafkaNode:
    """One node, broker and controller in one. settings: of server.properties, beside those that it needs."""

    def __init__(self, room: Path, number: int = 1, settings: dict[str, str] | None = None) -> None:
        self.room = room
        self.number = number
        self.port = free_pair()  # the broker's, and behind it the controller's
        self.tls_port = free_pair()  # of a secured node: TLS, and behind it SASL
        self.settings = settings or {}
        self.process: subprocess.Popen[bytes] | None = None
        room.mkdir(parents=True, exist_ok=True)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"kafka://{self.address}"

    @property
    def sasl_port(self) -> int:
        return self.tls_port + 1

    @property
    def log(self) -> str:
        return (self.room / "log").read_text(errors="replace")[-3000:]

    def format(self, cluster: str, voters: str) -> None:
        """Make its data directory, once."""
        properties = {
            "process.roles": "broker,controller", "node.id": str(self.number),
            "controller.quorum.voters": voters, "controller.listener.names": "CONTROLLER",
            "listeners": f"PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{self.port + 1}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{self.port}",
            "log.dirs": str(self.room / "data"), "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "4", "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1", "transaction.state.log.num.partitions": "4",
            "group.initial.rebalance.delay.ms": "0", "auto.create.topics.enable": "false",
            "log.cleaner.dedupe.buffer.size": "2097152", "num.network.threads": "2", "num.io.threads": "2",
        } | self.settings  # fmt: skip
        path = self.room / "server.properties"
        path.write_text("".join(f"{key}={value}\n" for key, value in properties.items()))
        words = [*self.java(), "kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(path)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr + done.stdout

    def start(self, environment: dict[str, str] | None = None) -> None:
        """Start it, and return when it listens."""
        self.launch(environment)
        self.wait_started()

    def launch(self, environment: dict[str, str] | None = None) -> None:
        """Start its process. It listens once a majority of the cluster's nodes run. environment: beside that of this
        process; default: what marks it as started by this run of the tests."""
        if environment is None:
            from harness.shell import MARK, SESSION  # it imports pytest, which the demo does not need

            environment = {MARK: SESSION}
        words = [*self.java(), "kafka.Kafka", str(self.room / "server.properties")]
        with (self.room / "log").open("ab") as log:
            self.process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.room,
                env=os.environ | environment,
            )  # fmt: skip

    def wait_started(self) -> None:
        """Return when it listens."""
        process = self.process
        assert process is not None
        wait_until(lambda: self._listens() or process.poll() is not None, START_TIMEOUT, lambda: self.log)
        assert process.poll() is None, self.log

    @property
    def memory(self) -> int:
        """Bytes of memory that its process has in use (RSS)."""
        assert self.process is not None
        return resident_memory(self.process.pid)

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True

    def java(self) -> list[str]:
        return [
            "java", "-Xms64m", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", f"{cache_directory()}/jars/*",
        ]  # fmt: skip

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def _end(self, number: signal.Signals) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)
            self.process.wait(60)


def make_cluster(room: Path, nodes: int = 1, settings: dict[str, str] | None = None) -> list[KafkaNode]:
    """Nodes of a new cluster, which are not started yet."""
    made = [KafkaNode(room / f"node-{number}", number, dict(settings or {})) for number in range(1, nodes + 1)]
    voters = ",".join(f"{node.number}@127.0.0.1:{node.port + 1}" for node in made)
    cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=").replace("-", "A")  # it is no flag
    for node in made:
        node.format(cluster, voters)
    return made


def start_cluster(nodes: list[KafkaNode]) -> None:
    """Start all nodes, and return when all of them listen."""
    for node in nodes:
        node.launch()
    for node in nodes:
        node.wait_started()


def resident_memory(pid: int) -> int:
    """Bytes of memory that a process has in use (RSS)."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def shared_node(room: Path, owner: int) -> str:
    """The address of one server that all test processes with the same `room` share; it ends after the process `owner`
    does."""
    room.mkdir(parents=True, exist_ok=True)
    ready = room / "ready.json"
    with (room / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not ready.exists():
            with (room / "keeper.log").open("ab") as log:
                keeper = subprocess.Popen(
                    [sys.executable, "-m", "harness.kafka", str(owner), str(room)], cwd=Path(__file__).parents[1],
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                )  # fmt: skip
                _keepers.append(keeper)  # it outlives this process, and is not waited for
            wait_until(ready.exists, START_TIMEOUT, lambda: (room / "keeper.log").read_text())
    address: str = json.loads(ready.read_text())["address"]
    return address


def _keep(owner: int, room: Path) -> None:
    """Run a server until the process `owner` has ended, or SIGTERM comes."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    (node,) = make_cluster(room)
    try:
        node.start({})
        temporary = room / "ready.new"
        temporary.write_text(json.dumps({"address": node.address}))
        temporary.rename(room / "ready.json")
        while node.process is not None and node.process.poll() is None and _runs(owner):
            time.sleep(0.5)
    finally:
        node.kill()
        shutil.rmtree(room, ignore_errors=True)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    _keep(int(sys.argv[1]), Path(sys.argv[2]))
