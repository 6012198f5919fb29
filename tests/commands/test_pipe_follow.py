"""q-pipe --follow: what is appended to files is sent as it comes, whatever becomes of the files."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from harness.brokers import Broker
from harness.metrics import WITH_METRICS, wait_value, where
from harness.shell import Running, Shell, words_for
from harness.waiting import wait_until

# root reads every file, whatever its mode; without these capabilities it is a user like others
WITHOUT_RIGHTS = (
    ["setpriv", "--inh-caps=-all", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
)


def append(path: Path, text: bytes) -> None:
    with path.open("ab") as file:
        file.write(text)


def follow(shell: Shell, broker: Broker, topic: str, *words: str) -> Running:
    return shell.start("q-pipe", topic, "-F", *words, *broker.flags)


def wait_published(broker: Broker, topic: str, count: int) -> None:
    wait_until(lambda: broker.published(topic) >= count, what=lambda: f"{count}, there are {broker.published(topic)}")


def end(pipe: Running) -> str:
    pipe.signal(signal.SIGTERM)
    done = pipe.wait()
    assert done.status == 0, done.err
    return done.err


def test_over_every_fate_of_a_file(shell: Shell, broker: Broker, topic: str) -> None:
    """Not there at first, appended to, renamed and created, cut, replaced, removed and created again."""
    log = shell.home / "app.log"
    pipe = follow(shell, broker, topic, "app.log", "--checkpoint", "position")
    append(log, b"1\n")
    wait_published(broker, topic, 1)
    append(log, b"2\nhalf")
    wait_published(broker, topic, 2)
    append(log, b" a line\n")
    wait_published(broker, topic, 3)
    log.rename(f"{log}.1")
    append(Path(f"{log}.1"), b"late\n")
    append(log, b"4\n")
    wait_published(broker, topic, 5)
    append(Path(f"{log}.1"), b"later\n")
    wait_published(broker, topic, 6)
    os.truncate(log, 0)
    append(log, b"5\n6\n7\n")
    wait_published(broker, topic, 9)
    fresh = shell.home / "fresh"
    fresh.write_bytes(b"8\n")
    fresh.rename(log)
    wait_published(broker, topic, 10)
    log.unlink()
    append(log, b"9\n")
    wait_published(broker, topic, 11)
    append(log, b"no end")
    log.rename(f"{log}.1")
    append(log, b"10\n")
    wait_published(broker, topic, 13)
    end(pipe)
    assert broker.bodies(topic) == [
        b"1", b"2", b"half a line", b"late", b"4", b"later", b"5", b"6", b"7", b"8", b"9", b"no end", b"10",
    ]  # fmt: skip


def test_a_next_run_goes_on_with_what_came_meanwhile(shell: Shell, broker: Broker, topic: str) -> None:
    log = shell.home / "app.log"
    log.write_bytes(b"1\n2\npart")
    words = ["app.log", "--checkpoint", "position"]
    pipe = follow(shell, broker, topic, *words)
    wait_published(broker, topic, 2)
    assert "4 bytes of a last message without its end left for later" in end(pipe)
    append(log, b" of it\n")
    log.rename(f"{log}.1")
    append(log, b"3\n")
    pipe = follow(shell, broker, topic, *words)
    wait_published(broker, topic, 4)
    end(pipe)
    assert broker.bodies(topic) == [b"1", b"2", b"part of it", b"3"]


def test_a_glob_finds_files_that_come_later_and_no_rotated_ones(shell: Shell, broker: Broker, topic: str) -> None:
    (shell.home / "a.log").write_bytes(b"a1\n")
    pipe = follow(shell, broker, topic, "*.log*")
    wait_published(broker, topic, 1)
    append(shell.home / "b.log", b"b1\n")
    wait_published(broker, topic, 2)
    (shell.home / "a.log").rename(shell.home / "a.log.1")
    append(shell.home / "a.log", b"a2\n")
    wait_published(broker, topic, 3)
    append(shell.home / "c.log", b"c1\n")
    wait_published(broker, topic, 4)
    end(pipe)
    assert broker.bodies(topic) == [b"a1", b"b1", b"a2", b"c1"]


def test_with_a_filter_and_a_rate(shell: Shell, broker: Broker, topic: str) -> None:
    log = shell.home / "app.log"
    append(log, b'{"a":1}\n{"a":2}\n')
    pipe = follow(shell, broker, topic, "app.log", "--where", ".a > 1", "--select", ".a", "--rate", "100")
    append(log, b'{"a":3}\n')
    wait_published(broker, topic, 2)
    assert "1 did not match" in end(pipe)
    assert broker.bodies(topic) == [b"2", b"3"]


def test_with_routes(shell: Shell, broker: Broker, topic: str) -> None:
    """Over a rotation and a kill: each topic has its lines, in order."""
    log = shell.home / "app.log"
    append(log, b'{"to":"a","n":1}\n{"to":"b","n":2}\n')
    (shell.home / "routes.toml").write_text(f"[[route]]\nwhen = '.to'\nto = '{topic}.\\(.to)'\nselect = '.n'\n")
    words = ["-F", "--routes", "routes.toml", "app.log", "--checkpoint", "position", *broker.flags]
    pipe = shell.start("q-pipe", *words)
    wait_published(broker, f"{topic}.b", 1)
    log.rename(f"{log}.1")
    append(log, b'{"to":"a","n":3}\n')
    wait_published(broker, f"{topic}.a", 2)
    pipe.signal(signal.SIGKILL)
    pipe.wait()
    append(log, b'{"to":"a","n":4}\n{"to":"b","n":5}\n{"no":6}\n')
    pipe = shell.start("q-pipe", *words)
    wait_published(broker, f"{topic}.b", 2)
    assert " by routes.toml; 1 went nowhere" in end(pipe)
    numbers = [list(map(int, broker.bodies(f"{topic}.{name}"))) for name in "ab"]
    assert [list(dict.fromkeys(each)) for each in numbers] == [[1, 3, 4], [2, 5]]


def test_metrics_say_how_far_behind_it_is(shell: Shell, broker: Broker, topic: str) -> None:
    log = shell.home / "app.log"
    append(log, b"1\n2\n")
    append(shell.home / "other.log", b"1\nhalf")
    pipe = follow(shell, broker, topic, "*.log", "--checkpoint", "position", *WITH_METRICS)
    base = where(pipe)
    wait_value(base, "qtools_pipe_published_total", 3)
    found = wait_value(base, "qtools_pipe_lag_bytes app.log", 0)
    assert found["qtools_pipe_lag_bytes other.log"] == 4
    broker.stop()
    append(log, b"3\n")
    log.rename(f"{log}.1")
    append(log, b"4\n5\n")
    wait_value(base, "qtools_pipe_lag_bytes app.log", 6)
    broker.start()
    wait_value(base, "qtools_pipe_lag_bytes app.log", 0)
    end(pipe)


def test_a_file_that_may_not_be_read_is_tried_again(shell: Shell, broker: Broker, topic: str) -> None:
    """At the start, and after a rotation that made a file with other rights."""
    log = shell.home / "app.log"
    append(log, b"1\n")
    log.chmod(0)
    pipe = shell.start("q-pipe", topic, "-F", "app.log", *broker.flags, argv=[*WITHOUT_RIGHTS, *words_for("q-pipe")])
    pipe.wait_err("cannot read app.log: Permission denied; it is tried again")
    log.chmod(0o600)
    wait_published(broker, topic, 1)
    log.rename(f"{log}.1")
    fresh = shell.home / "fresh"
    append(fresh, b"2\n")
    fresh.chmod(0)
    fresh.rename(log)
    wait_until(lambda: pipe.err.count("cannot read app.log: Permission denied") == 2)
    log.chmod(0o600)
    wait_published(broker, topic, 2)
    end(pipe)
    assert broker.bodies(topic) == [b"1", b"2"]


def test_without_follow_a_file_that_may_not_be_read_ends_the_run(shell: Shell, broker: Broker, topic: str) -> None:
    log = shell.home / "app.log"
    append(log, b"1\n")
    words = [topic, "app.log", "--checkpoint", "position", *broker.flags]
    assert shell.run("q-pipe", *words).status == 0
    log.chmod(0)
    done = shell.run("q-pipe", *words, argv=[*WITHOUT_RIGHTS, *words_for("q-pipe")])
    assert done.status == 2
    assert "q-pipe: cannot read app.log: Permission denied" in done.err
    log.chmod(0o600)
    append(log, b"2\n")
    assert shell.run("q-pipe", *words).status == 0
    assert broker.bodies(topic) == [b"1", b"2"]


def test_a_line_is_sent_soon_and_idling_costs_little(shell: Shell, broker: Broker, topic: str) -> None:
    log = shell.home / "app.log"
    append(log, b"1\n")
    pipe = follow(shell, broker, topic, "app.log")
    wait_published(broker, topic, 1)
    before = cpu_seconds(pipe.pid)
    began = time.monotonic()
    wait_until(lambda: time.monotonic() - began > 2)
    assert cpu_seconds(pipe.pid) - before < 0.2
    append(log, b"2\n")
    wait_published(broker, topic, 2)
    end(pipe)


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_stdin_cannot_be_followed(shell: Shell) -> None:
    for words in (["-F"], ["-F", "-"]):
        done = shell.run("q-pipe", "topic", *words, input=b"1\n")
        assert done.status == 2
        assert "--follow follows files, and stdin is none: name one" in done.err


def killed_while_rotating(shell: Shell, broker: Broker, topic: str, seed: int, kills: int) -> None:
    """A writer that rotates, a follower that is killed: nothing is missing, at most the window twice."""
    chance = random.Random(seed)
    log = shell.home / "app.log"
    log.write_bytes(b"")
    words = [topic, "-F", "app.log", "--checkpoint", "position", "--batch-count", "20", "--window", "2", *broker.flags]
    count = 0
    for _ in range(kills):
        pipe = shell.start("q-pipe", *words)
        # What was rotated away before the first run is not read.
        wait_until((shell.home / "position").exists)
        for _ in range(chance.randrange(1, 12)):
            lines = [b"line %07d\n" % number for number in range(count, count + chance.randrange(1, 200))]
            count += len(lines)
            append(log, b"".join(lines))
            if chance.random() < 0.3:
                for number in range(8, 0, -1):
                    if (old := Path(f"{log}.{number}")).exists():
                        old.rename(f"{log}.{number + 1}")
                log.rename(f"{log}.1")
                log.touch()
            aim = chance.randrange(min(count, broker.published(topic)), count + 1)  # more where some came twice
            wait_until(lambda aim=aim: broker.published(topic) >= aim or chance.random() < 0.02)
        pipe.signal(signal.SIGKILL)
        pipe.wait()
    pipe = shell.start("q-pipe", *words)
    pipe.wait_err("going on after")  # from now on it ends in order
    found: Counter[bytes] = Counter()

    def arrived() -> bool:
        found.update(broker.bodies(topic))
        return len(found) >= count

    wait_until(arrived, what=lambda: f"seed {seed}: {count} lines, {len(found)} came; {pipe.err}")
    end(pipe)
    found.update(broker.bodies(topic))
    assert sorted(found) == [b"line %07d" % number for number in range(count)], f"seed {seed}"
    assert sum(found.values()) - count <= kills * 20 * 2, f"seed {seed}"


def test_killed_while_files_are_rotated(shell: Shell, broker: Broker, topic: str) -> None:
    killed_while_rotating(shell, broker, topic, seed=1, kills=3)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 12))
def test_killed_many_times_while_files_are_rotated(shell: Shell, broker: Broker, topic: str, seed: int) -> None:
    killed_while_rotating(shell, broker, topic, seed=seed, kills=8)
