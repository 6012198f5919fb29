"""An archive of a Kafka topic has every message exactly once, whenever its processes are killed.

q-pipe sends numbered messages all the time; processes that archive are killed at random moments and started again,
alone or two in one group. In the end what is in the archive is counted by other means than the project's own.
"""

from __future__ import annotations

import gzip
import json
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import archives
from harness.kafka import KafkaNode
from harness.seaweed import Seaweed
from harness.shell import Shell

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
COUNT = 200_000
KILLS = 30
RATE = 2500  # messages a second, so that the sending lasts as long as the kills
SESSION = "1500"  # ms until a group gives the partitions of a killed member to others
START = 1_795_507_200  # 2026-11-24T08:00:00Z


class Archived:
    """Where an archive is, and what is in it, read without any code of the project."""

    def __init__(
        self, url: str, flags: list[str], environ: dict[str, str], contents: Callable[[], list[bytes]]
    ) -> None:
        self.url, self.flags, self.environ = url, flags, environ
        self._contents = contents

    def numbers(self) -> Counter[int]:
        return Counter(json.loads(line)["n"] for content in self._contents() for line in content.splitlines())

    @property
    def files(self) -> int:
        return len(self._contents())


@pytest.fixture
def directory(tmp_path: Path) -> Archived:
    output = tmp_path / "archive"
    return Archived(str(output), [], {}, lambda: [archives.unpacked(path) for path in archives.finished(output)])


@pytest.fixture
def store(seaweed: Seaweed) -> Archived:
    bucket = seaweed.bucket()

    def contents() -> list[bytes]:
        names = [name for name in seaweed.names(bucket) if name.endswith(".gz")]
        return [gzip.decompress(seaweed.read(bucket, name)) for name in names]

    return Archived(f"s3://{bucket}/pre", ["--s3-endpoint", seaweed.endpoint], seaweed.environ, contents)


@pytest.fixture
def node(make_kafka: Callable[..., list[KafkaNode]]) -> KafkaNode:
    return make_kafka(1, {"group.min.session.timeout.ms": "500"})[0]


def numbered() -> Iterator[bytes]:
    """Their times go to and fro between three hours, so that each partition of Kafka fills several directories."""
    chance = random.Random(1)
    for number in range(COUNT):
        yield b'{"n":%d,"at":%d}\n' % (number, START + number // 40 - 3600 * chance.choice([0, 0, 0, 1, 2]))


@pytest.mark.parametrize(
    ("how", "members"),
    [
        ("directory", 1), ("directory", 2), ("spooled", 1), ("spooled", 2), ("unspooled", 1), ("unspooled", 2),
        ("directory by time", 2), ("spooled by time", 2),
    ],
)  # fmt: skip
def test_no_message_is_missing_and_none_is_twice(
    shell: Shell, node: KafkaNode, request: pytest.FixtureRequest, tmp_path: Path, how: str, members: int
) -> None:
    archived: Archived = request.getfixturevalue("directory" if "directory" in how else "store")
    first, *rest = numbered()
    (tmp_path / "lines").write_bytes(b"".join(rest))
    done = shell.run("q-pipe", "events", "-b", node.url, "--create-topics", "partitions=3", input=first)
    assert done.status == 0, done.err
    flags = ["--rate", str(RATE), "--batch-count", "100", "-q"]
    sender = shell.start("q-pipe", "events", tmp_path / "lines", "-b", node.url, *flags)
    words = ["q-to-file", f"{node.url}/events", "-o", archived.url, *archived.flags, "--gzip"]
    words += ["--engine-option", f"session.timeout.ms={SESSION}", "--engine-option", "heartbeat.interval.ms=300"]
    if how == "unspooled":
        words += ["--no-spool", "--sync-interval", "300ms"]
    else:
        words += ["--rotate-count", "400", "--sync-interval", "100ms"]
    if "by time" in how:
        words += ["--partition-by", ".at"]
    own: list[list[str]] = [[] for _ in range(members)]
    for nth, flags in enumerate(own):
        if how != "unspooled":
            flags += ["--work-dir", str(tmp_path / f"work-{nth}")]
        if how.startswith("spooled"):
            flags += ["--spool-dir", str(tmp_path / f"spool-{nth}")]
    chance = random.Random(how + str(members))
    running = [shell.start(*words, *own[nth], environ=archived.environ) for nth in range(members)]
    for kill in range(KILLS):
        time.sleep(chance.uniform(0.2, 4.5) / members)
        nth = kill % members
        running[nth].signal(signal.SIGKILL)
        running[nth].wait()
        running[nth] = shell.start(*words, *own[nth], environ=archived.environ)
    done = sender.wait(300)
    assert done.status == 0, done.err
    for each in running:
        each.signal(signal.SIGTERM)
    for each in running:
        done = each.wait(60)
        assert done.status == 0, done.err
    for nth in range(members):  # the other work directories may have files, too
        done = shell.run(*words, *own[nth], "--until-empty", environ=archived.environ, timeout=120)
        assert done.status == 0, done.err
    found = archived.numbers()
    repeated = found.total() - len(found)
    print(
        f"\n{how}, {members} in the group: {KILLS} kills, {COUNT:,} messages sent, {len(found):,} archived in"
        f" {archived.files:,} files, {COUNT - len(found):,} missing, {repeated:,} twice"
    )
    assert set(found) == set(range(COUNT))
    assert not repeated
    words = ["q-to-file", "verify", archived.url, *archived.flags, "--deep"]
    done = shell.run(*words, environ=archived.environ, timeout=120)
    print(done.lines[-1].decode())
    assert done.status == 0, done.out.decode()
    assert b"FOUND" not in done.out
