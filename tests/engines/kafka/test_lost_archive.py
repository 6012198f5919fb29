"""The newest files of an archive of Kafka are lost: the next run names their offsets, and verify finds the gap."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]
from harness import archives
from harness.seaweed import Seaweed
from harness.shell import Shell

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
Archive = Callable[..., str]


@pytest.fixture
def admin(kafka: str, topic: str) -> AdminClient:
    made = AdminClient({"bootstrap.servers": kafka})
    made.create_topics([NewTopic(topic, 1, 1)])[topic].result()
    return made


def fill(shell: Shell, kafka: str, topic: str, start: int, count: int) -> None:
    lines = b"".join(b'{"n":%d}\n' % number for number in range(start, start + count))
    assert shell.run("q-pipe", topic, "-b", f"kafka://{kafka}", "-q", input=lines, timeout=60).status == 0


def archive(shell: Shell, kafka: str, topic: str, *words: str, environ: dict[str, str] | None = None) -> list[str]:
    """One run; returns its lines of stderr."""
    done = shell.run("q-to-file", f"kafka://{kafka}/{topic}", "--until-empty", "--format", "raw", *words,
                     environ=environ, timeout=60)  # fmt: skip
    assert done.status == 0, done.err
    return done.err_lines


def test_in_a_directory(shell: Shell, kafka: str, topic: str, admin: AdminClient, tmp_path: Path) -> None:
    output = ["-o", str(tmp_path / "archive"), "--where", ".n % 10 != 9"]  # what a filter leaves out is no loss
    for start in (0, 10, 20):
        fill(shell, kafka, topic, start, 10)
        archive(shell, kafka, topic, *output)
    files = archives.finished(tmp_path / "archive")
    files[-1].unlink()
    manifest = tmp_path / "archive" / "manifest.jsonl"
    manifest.write_text("".join(manifest.read_text().splitlines(keepends=True)[:2]))
    assert shell.run("q-to-file", "verify", tmp_path / "archive").status == 0  # an older copy is whole
    fill(shell, kafka, topic, 30, 10)
    first = archive(shell, kafka, topic, *output)[0]
    assert f"{topic}, partition 0: offsets 19 to 28 were archived, and are not in the archive any more" in first
    done = shell.run("q-to-file", "verify", tmp_path / "archive")
    assert done.status == 1
    assert b"partition 0: offsets 19 to 28 are in no file, and were once" in done.out
    fill(shell, kafka, topic, 40, 10)
    assert "archived" not in archive(shell, kafka, topic, *output)[:-1]


@pytest.mark.parametrize("how", [[], ["--no-spool"]], ids=["spooled", "unspooled"])
def test_in_a_store(
    shell: Shell, kafka: str, topic: str, admin: AdminClient, seaweed: Seaweed, tmp_path: Path, how: list[str]
) -> None:
    bucket = seaweed.bucket()
    spool = how or ["--spool-dir", str(tmp_path / "spool")]
    output = ["-o", f"s3://{bucket}/pre", "--s3-endpoint", seaweed.endpoint, *spool]
    for start in (0, 10):
        fill(shell, kafka, topic, start, 10)
        archive(shell, kafka, topic, *output, environ=seaweed.environ)
    for name in seaweed.names(bucket):
        if f"{10:020d}" in name:
            seaweed.client.delete_object(Bucket=bucket, Key=name)
    fill(shell, kafka, topic, 20, 10)
    told = archive(shell, kafka, topic, *output, environ=seaweed.environ)[0]
    assert f"{topic}, partition 0: offsets 10 to 19 were archived, and are not in the archive any more" in told
    words = ["verify", f"s3://{bucket}/pre", "--s3-endpoint", seaweed.endpoint]
    done = shell.run("q-to-file", *words, environ=seaweed.environ)
    assert done.status == 1
    assert b"partition 0: offsets 10 to 19 are in no file, and were once" in done.out


def test_what_the_topic_deleted_before_it_was_read_is_named(
    shell: Shell, kafka: str, topic: str, admin: AdminClient, tmp_path: Path
) -> None:
    output = ["-o", str(tmp_path / "archive")]
    fill(shell, kafka, topic, 0, 10)
    archive(shell, kafka, topic, *output)
    fill(shell, kafka, topic, 10, 10)
    place = TopicPartition(topic, 0, 15)
    for future in admin.delete_records([place]).values():
        future.result()
    told = archive(shell, kafka, topic, *output)
    assert f"{topic}, partition 0: the topic has deleted offsets 10 to 14 (retention, or on request)" in told[0]
    assert sorted(archives.lines(tmp_path / "archive")) == sorted(
        b'{"n":%d}' % number for number in (*range(10), *range(15, 20))
    )
    assert shell.run("q-to-file", "verify", tmp_path / "archive").status == 0  # the archive has lost nothing
