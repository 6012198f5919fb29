"""--where and --select: what does not match is finished and not archived; what cannot be judged is archived."""

from __future__ import annotations

from pathlib import Path

from harness.archives import finished, in_work, lines
from harness.brokers import Broker
from harness.shell import Shell

EVENTS = [b'{"type":"buy","n":%d}' % n if n % 3 else b'{"type":"view","n":%d}' % n for n in range(30)]
WORDS = ["--until-empty", "--sync-interval", "50ms"]


def test_where_and_select(shell: Shell, broker: Broker, topic: str, tmp_path: Path) -> None:
    broker.fill(topic, [*EVENTS, b"no JSON"])
    words = ["-o", tmp_path / "a", "--where", '.type == "view"', "--select", "{n}", *WORDS]
    done = shell.run("q-to-file", f"{topic}/me", *words, *broker.flags)
    assert done.status == 0
    assert "20 did not match" in done.err
    assert sorted(lines(tmp_path / "a")) == sorted([b'{"n":%d}' % n for n in range(0, 30, 3)] + [b"no JSON"])
    assert broker.depth(topic, "me").held == 0


def test_where_nothing_matches_there_is_no_file(shell: Shell, broker: Broker, topic: str, tmp_path: Path) -> None:
    broker.fill(topic, [*EVENTS, b"no JSON"])
    words = ["-o", tmp_path / "a", "--where", ".n > 100", "--on-error", "skip", *WORDS]
    done = shell.run("q-to-file", f"{topic}/me", *words, *broker.flags)
    assert done.status == 0
    assert "it is not JSON" in done.err
    assert finished(tmp_path / "a") == []
    assert in_work(tmp_path / "a") == []
    assert broker.depth(topic, "me").held == 0


def test_told_to_fail_it_keeps_what_came_before(shell: Shell, broker: Broker, topic: str, tmp_path: Path) -> None:
    broker.fill(topic, [*EVENTS, b"no JSON"])
    words = ["-o", tmp_path / "a", "--where", ".n >= 0", "--on-error", "fail", *WORDS]
    done = shell.run("q-to-file", f"{topic}/me", *words, *broker.flags)
    assert done.status == 1
    assert "it is not JSON" in done.err
    assert len(lines(tmp_path / "a")) + broker.depth(topic, "me").held == 31
