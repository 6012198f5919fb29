"""What cannot be is said in one line before anything is read, with status 2; and where files go by a URL."""

from __future__ import annotations

from pathlib import Path

import pytest
from harness.archives import lines
from harness.brokers import Broker
from harness.shell import Shell

pytestmark = pytest.mark.forks


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["-o", "a"], "give a TOPIC, --topic-pattern or --topic-glob"),
        (["t"], "give --output: a directory, or s3://BUCKET/PREFIX"),
        (["t t", "-o", "a"], "topic name 't t' has ' '"),
        (["t/a", "t/b", "-o", "a"], "give each topic once"),
        (["t", "u", "-o", "a", "--filename-format", "all.log"], "needs <TOPIC> where there may be several"),
        (["t", "-o", "a", "--filename-format", "/etc/<TOPIC>"], "leads out of the output directory"),
        (["t", "-o", "a", "--filename-format", "<NAME>"], "<NAME>; known are <TOPIC>"),
        (["t", "-o", "a", "--partition-format", "../%Y"], "--partition-format '../"),
        (["t", "-o", "a", "--partition-by", ".a |"], "--partition-by: expression '.a |', column 5"),
        (["t", "-o", "a", "--topic-pattern", "("], "is no regular expression"),
        (["--topic-pattern", "a", "--topic-glob", "a", "-o", "a"], "--topic-pattern or --topic-glob, not both"),
        (["t", "-o", "a", "--gzip", "--compression", "zstd"], "--gzip or --compression zstd, not both"),
        (["t", "-o", "a", "--gzip", "--compression-level", "9"], "--compression-level of gzip is 0 to 3, not 9"),
        (["t", "-o", "a", "--compression-level", "1"], "needs --compression gzip or zstd"),
        (["t", "-o", "a", "--format", "msgpack", "-0"], "go with --format raw only"),
        (["t", "-o", "ftp://x/y"], "is neither a directory nor s3://"),
        (["t", "-o", "file://x"], "is not absolute: file:///DIRECTORY"),
        (["t", "-o", "a", "--no-spool"], "go with --output s3://"),
        (["t", "-o", "s3://b/p", "--no-spool", "--rotate-size", "1MB"], "--rotate-… means nothing with --no-spool"),
        (["t", "-o", "s3://b/p", "--no-spool", "--skip-if-running"], "mean nothing with --no-spool"),
    ],
)
def test_one_line_and_status_2(shell: Shell, tmp_path: Path, words: list[str], told: str) -> None:
    done = shell.run("q-to-file", *words, "--nsqd", "127.0.0.1:1", cwd=tmp_path)
    assert (done.status, done.out, len(done.err_lines)) == (2, b"", 1), done.err
    assert told in done.err
    assert done.err.endswith("(see q-to-file --help)\n")
    assert list(tmp_path.iterdir()) == []


def test_a_file_url_is_a_directory(shell: Shell, broker: Broker, topic: str, tmp_path: Path) -> None:
    broker.fill(topic, [b"a"])
    output = f"file://{tmp_path}/with%20space"
    assert shell.run("q-to-file", topic, "-o", output, "--until-empty", *broker.flags).status == 0
    assert lines(tmp_path / "with space") == [b"a"]
