"""--complete-marker: _SUCCESS appears in a partition when no source has anything left that belongs there."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from harness.archives import finished, lines
from harness.brokers import Broker
from harness.seaweed import Seaweed
from harness.shell import Shell
from harness.waiting import pass_time, wait_until

WORDS = [
    "--partition-format", "%Y-%m-%d_%H%M%S", "--complete-marker", "--lateness", "1s", "--sync-interval", "50ms",
    "--msg-timeout", "30s",
]  # fmt: skip


def complete(output: Path) -> set[str]:
    return {path.parent.name for path in output.glob("*/_SUCCESS")}


def test_a_partition_is_marked_when_it_is_over(shell: Shell, broker: Broker, topic: str, tmp_path: Path) -> None:
    running = shell.start("q-to-file", f"{topic}/me", "-o", tmp_path / "a", *WORDS, *broker.flags)
    broker.wait_clients(topic, "me")
    broker.fill(topic, [b"x", b"y"])
    wait_until(lambda: complete(tmp_path / "a"))
    # Closed for it, though nothing else would have: rotation is by the hour.
    assert complete(tmp_path / "a") == {path.parent.name for path in finished(tmp_path / "a")}
    assert sorted(lines(tmp_path / "a")) == [b"x", b"y"]
    running.signal(signal.SIGTERM)
    assert running.wait(10).status == 0


def test_not_while_somebody_else_holds_what_may_belong_there(
    shell: Shell, broker: Broker, topic: str, tmp_path: Path
) -> None:
    broker.create(topic, "me")
    broker.fill(topic, [b"held"])
    reader = broker.reader(topic, "me", ready=1)
    held = reader.take(1)
    reader.ready(0)
    shell.start("q-to-file", f"{topic}/me", "-o", tmp_path / "a", *WORDS, *broker.flags)
    broker.wait_clients(topic, "me", 2)
    broker.fill(topic, [b"x"])
    wait_until(lambda: broker.depth(topic, "me").held == 1)
    pass_time(3.5)  # its second and the lateness are over, and it has been looked at
    assert complete(tmp_path / "a") == set()
    reader.requeue(held)
    wait_until(lambda: complete(tmp_path / "a") and lines(tmp_path / "a").count(b"held"))
    reader.close()


def test_what_a_run_left_open_is_marked_by_the_next(shell: Shell, broker: Broker, topic: str, tmp_path: Path) -> None:
    broker.fill(topic, [b"x"])
    words = ["-o", tmp_path / "a", *WORDS, "--lateness", "1h", "--until-empty", *broker.flags]
    assert shell.run("q-to-file", f"{topic}/me", *words).status == 0
    assert complete(tmp_path / "a") == set()
    shell.start("q-to-file", f"{topic}/me", "-o", tmp_path / "a", *WORDS, *broker.flags)
    wait_until(lambda: complete(tmp_path / "a"))


def test_in_a_store_when_all_of_it_is_uploaded(
    shell: Shell, broker: Broker, topic: str, tmp_path: Path, seaweed: Seaweed
) -> None:
    shell.environ |= seaweed.environ
    bucket = seaweed.bucket()
    words = ["-o", f"s3://{bucket}/a", "--s3-endpoint", seaweed.endpoint, "--spool-dir", tmp_path / "spool", *WORDS]
    shell.start("q-to-file", f"{topic}/me", *words, *broker.flags)
    broker.wait_clients(topic, "me")
    broker.fill(topic, [b"x"])
    names = wait_until(lambda: (found := seaweed.names(bucket)) and any("_SUCCESS" in name for name in found) and found)
    assert len(names) == 3  # the object, its manifest, the marker
    assert len({name.rpartition("/")[0] for name in names}) == 1


def test_a_short_run_marks_what_is_complete_before_it_ends(
    shell: Shell, broker: Broker, topic: str, tmp_path: Path
) -> None:
    words = ["-o", tmp_path / "a", *WORDS, "--until-empty", *broker.flags]
    for body in (b"x", b"y"):
        broker.fill(topic, [body])
        assert shell.run("q-to-file", f"{topic}/me", *words).status == 0
        pass_time(2.1)  # what was archived now is over then, its lateness with it
    assert shell.run("q-to-file", f"{topic}/me", *words).status == 0
    assert complete(tmp_path / "a") == {path.parent.name for path in finished(tmp_path / "a")}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--complete-marker"], "--complete-marker needs --partition-by or --partition-format"),
        (["--lateness", "1s"], "--lateness goes with --complete-marker only"),
        (["--complete-marker", "--partition-format", "hour=%H"], "needs partitions that do not come again"),
    ],
)
def test_what_makes_no_sense(shell: Shell, tmp_path: Path, words: list[str], told: str) -> None:
    done = shell.run("q-to-file", "t/me", "-o", tmp_path, *words, "--nsqd", "127.0.0.1:1")
    assert done.status == 2
    assert told in done.err
