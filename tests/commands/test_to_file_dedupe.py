"""--dedupe: what producers sent twice is archived once, within a batch, between batches, and between runs."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
from harness.archives import lines
from harness.brokers import Broker
from harness.shell import Shell
from harness.waiting import wait_until


def event(number: int, what: str = "") -> bytes:
    return json.dumps({"messageId": number, "what": what}).encode()


def test_each_key_once_whatever_comes_between(shell: Shell, broker: Broker, topic: str, tmp_path: Path) -> None:
    first = [event(n % 500) for n in range(3000)]
    second = [event(n) for n in range(400, 600)] + [b"no JSON", b"no JSON", b"{}", b"{}", event(1, "again")]
    words = ["-o", tmp_path / "a", "--dedupe", ".messageId", "--until-empty", "--sync-interval", "50ms"]
    broker.fill(topic, first)
    done = shell.run("q-to-file", f"{topic}/me", *words, "--sync-count", "100", *broker.flags)
    assert done.status == 0
    assert "2,500 duplicates" in done.err
    broker.fill(topic, second)
    done = shell.run("q-to-file", f"{topic}/me", *words, *broker.flags)
    assert done.status == 0
    assert "101 duplicates; 4 messages without a key" in done.err
    assert broker.depth(topic, "me").held == 0
    found = lines(tmp_path / "a")
    assert sorted(json.loads(line)["messageId"] for line in found if b"messageId" in line) == list(range(600))
    assert len(found) == 604


def test_topics_have_keys_of_their_own(shell: Shell, broker: Broker, topic: str, tmp_path: Path) -> None:
    for name in (topic, f"{topic}.b"):
        broker.fill(name, [event(1)] * 3)
    words = ["-o", tmp_path / "a", "--dedupe", ".messageId", "--until-empty", "--sync-interval", "50ms"]
    assert shell.run("q-to-file", topic, f"{topic}.b", *words, *broker.flags).status == 0
    assert lines(tmp_path / "a") == [event(1)] * 2


NUMBERS = [2**53, 2**53 + 1, 2**63, 2**64 - 1, 2**64, 2**64 + 1, 2**64 + 2, -(2**63) - 1, 10**30, 10**30 + 1]


def test_ids_are_told_apart_to_the_last_digit(shell: Shell, broker: Broker, topic: str, tmp_path: Path) -> None:
    """Two ids that became one would have the second message finished, and never archived."""
    bodies = [event(number) for number in NUMBERS]
    bodies += [b'{"messageId":0.1234567890123456789%d}' % digit for digit in range(3)]
    bodies += [event(each) for each in ("1", 1, [1], {"a": 1})]  # type: ignore[arg-type]
    broker.fill(topic, bodies * 2)
    words = ["-o", tmp_path / "a", "--dedupe", ".messageId", "--until-empty", "--sync-interval", "50ms"]
    done = shell.run("q-to-file", f"{topic}/me", *words, *broker.flags)
    assert (done.status, sorted(lines(tmp_path / "a"))) == (0, sorted(bodies))
    assert f"{len(bodies)} duplicates\n" in done.err


def test_after_a_kill_all_keys_are_there(shell: Shell, broker: Broker, topic: str, tmp_path: Path) -> None:
    broker.create(topic, "me")
    words = [
        f"{topic}/me",
        "-o",
        tmp_path / "a",
        "--dedupe",
        ".messageId",
        "--msg-timeout",
        "1s",
        "--sync-interval",
        "20ms",
    ]
    for begin in range(0, 3000, 1000):
        running = shell.start("q-to-file", *words, *broker.flags)
        broker.wait_clients(topic, "me")
        broker.fill(topic, [event(n) for n in range(begin, begin + 1500)])
        wait_until(lambda: broker.depth(topic, "me").depth < 1000)
        running.signal(signal.SIGKILL)
        running.wait()
    assert shell.run("q-to-file", *words, "--until-empty", *broker.flags).status == 0
    found = lines(tmp_path / "a")
    assert {json.loads(line)["messageId"] for line in found} == set(range(3500))
    # What was synced and not remembered yet, when it was killed: one sync each.
    assert len(found) - 3500 <= 3 * 2500


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--dedupe-keys", "5"], "go with --dedupe only"),
        (["--dedupe", ".a ||"], "--dedupe: expression"),
        (["--dedupe", ".a", "--no-spool", "-o", "s3://x/y"], "--dedupe with --no-spool needs --dedupe-file"),
    ],
)
def test_what_makes_no_sense(shell: Shell, tmp_path: Path, words: list[str], told: str) -> None:
    done = shell.run("q-to-file", "t/me", "-o", tmp_path, *words, "--nsqd", "127.0.0.1:1")
    assert done.status == 2
    assert told in done.err
