"""q-pipe on compressed files: their lines are sent, with a checkpoint and without."""

from __future__ import annotations

import bz2
import gzip
import lzma
import signal
import sys
from importlib import import_module

import pytest
from harness.brokers import Broker
from harness.shell import Shell
from harness.waiting import wait_until

pytestmark = pytest.mark.forks

zstd = import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")
COMPRESSED = {".gz": gzip.compress, ".zst": zstd.compress, ".bz2": bz2.compress, ".xz": lzma.compress}


@pytest.mark.parametrize("words", [[], ["--checkpoint", "position"]])
@pytest.mark.parametrize("end", COMPRESSED)
def test_the_lines_of_a_compressed_file(shell: Shell, broker: Broker, topic: str, end: str, words: list[str]) -> None:
    (shell.home / f"app.log.2{end}").write_bytes(COMPRESSED[end](b"1\n2\n"))
    (shell.home / "other").write_bytes(b"3\n")
    words = [topic, f"app.log.2{end}", "other", *words, *broker.flags]
    done = shell.run("q-pipe", *words)
    assert done.status == 0, done.err
    assert "3 messages" in done.err
    assert broker.bodies(topic) == [b"1", b"2", b"3"]
    assert shell.run("q-pipe", *words).status == 0
    assert len(broker.bodies(topic)) == (0 if "--checkpoint" in words else 3)


def test_a_compressed_file_that_is_followed(shell: Shell, broker: Broker, topic: str) -> None:
    """Nothing is appended to it."""
    (shell.home / "app.log.2.gz").write_bytes(gzip.compress(b"1\n2\n"))
    (shell.home / "app.log").write_bytes(b"3\n")
    pipe = shell.start("q-pipe", topic, "-F", "app.log.2.gz", "--checkpoint", "position", *broker.flags)
    wait_until(lambda: broker.published(topic) == 2, what=lambda: pipe.err)
    pipe.signal(signal.SIGTERM)
    assert pipe.wait().status == 0


def test_bytes_are_sent_as_they_are_from_stdin_and_as_one_message(shell: Shell, broker: Broker, topic: str) -> None:
    data = gzip.compress(b"1\n")
    (shell.home / "photo.gz").write_bytes(data)
    assert shell.run("q-pipe", topic, "-d", "", "photo.gz", *broker.flags).status == 0
    assert shell.run("q-pipe", topic, "-d", "", *broker.flags, input=data).status == 0
    assert broker.bodies(topic) == [data, data]


def test_what_is_not_compressed_is_named(shell: Shell, broker: Broker, topic: str) -> None:
    packed = gzip.compress(b"".join(b"%d\n" % number for number in range(100_000)))
    (shell.home / "app.log.2.gz").write_bytes(packed[:-5000])
    done = shell.run("q-pipe", topic, "app.log.2.gz", *broker.flags)
    assert done.status == 1
    assert "q-pipe: app.log.2.gz: it is damaged, or cut off: " in done.err
    (shell.home / "plain.gz").write_bytes(b"1\n")
    done = shell.run("q-pipe", topic, "plain.gz", *broker.flags)
    assert done.status == 1
    assert "q-pipe: plain.gz: it is damaged, or cut off: " in done.err
    assert "(to send its bytes as they are: q-pipe TOPIC < plain.gz)" in done.err


def test_skipped_bytes_are_those_in_it(shell: Shell, broker: Broker, topic: str) -> None:
    (shell.home / "one.gz").write_bytes(gzip.compress(b"1\n2\n"))
    (shell.home / "two.gz").write_bytes(gzip.compress(b"3\n4\n"))
    for skip, expected in ((2, [b"2", b"3", b"4"]), (4, [b"3", b"4"]), (6, [b"4"])):
        done = shell.run("q-pipe", topic, "one.gz", "two.gz", "--skip-bytes", str(skip), *broker.flags)
        assert done.status == 0, done.err
        assert broker.bodies(topic) == expected
    assert shell.run("q-pipe", topic, "one.gz", "--skip-bytes", "9", *broker.flags).status == 1
