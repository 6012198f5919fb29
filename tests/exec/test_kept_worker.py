"""q-exec --keep: workers that answer each message with a line."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import pytest
from harness.brokers import Broker
from harness.shell import Shell

FAST = ("--backoff", "50ms")

# Answers each line by its words: `ok`, `die`, `hang`, or the answer itself. A message that came before is `ok`.
WORKER = """
import os, sys, time
for line in sys.stdin:
    word = line.strip()
    again = os.path.exists(f"seen.{word}")
    open(f"seen.{word}", "w").close()
    if again or word.isdigit():
        print("ok", flush=True)
    elif word == "die":
        os._exit(9)
    elif word == "hang":
        time.sleep(300)
    else:
        print(word, flush=True)
"""


def worker(shell: Shell) -> list[str]:
    (shell.home / "worker.py").write_text(WORKER)
    return ["--", sys.executable, "worker.py"]


def test_all_are_answered(shell: Shell, broker: Broker, topic: str) -> None:
    broker.create(topic, "me")
    broker.fill(topic, [b"%d" % number for number in range(3000)])
    done = shell.run("q-exec", f"{topic}/me", "--until-empty", "--keep", "-j2", *broker.flags, *worker(shell))
    assert (done.status, done.err) == (0, "")
    assert broker.depth(topic, "me").held == 0


def test_answers(shell: Shell, broker: Broker, topic: str) -> None:
    broker.create(topic, "me")
    broker.create(f"{topic}.dead", "see")
    broker.fill(topic, [b"1", b"requeue", b"requeue 10ms", b"dead no such user", b"2"])
    done = shell.run("q-exec", f"{topic}/me", "--until-empty", "--keep", *FAST, *broker.flags, *worker(shell))
    assert done.status == 0
    assert "4 done, 2 requeued, 1 dead-lettered" in done.err
    [letter] = broker.drain(f"{topic}.dead", "see")
    assert json.loads(letter.body)["reason"] == "no such user"


@pytest.mark.parametrize(
    ("body", "part"),
    [
        (b"stop the disk is full", "the disk is full; the run ends, and gives it back"),
        (b"perhaps", "answered 'perhaps'; answers are ok, requeue [DURATION], dead [REASON] and stop [REASON]"),
    ],
)
def test_the_end_of_the_run(shell: Shell, broker: Broker, topic: str, body: bytes, part: str) -> None:
    broker.create(topic, "me")
    broker.fill(topic, [b"1", body, b"2"])
    done = shell.run("q-exec", f"{topic}/me", "--keep", *broker.flags, *worker(shell))
    assert done.status == 1
    assert part in done.err
    assert body in [message.body for message in broker.drain(topic, "me")]


def test_a_worker_that_ends_is_started_again(shell: Shell, broker: Broker, topic: str) -> None:
    broker.create(topic, "me")
    broker.fill(topic, [b"1", b"die", b"2", b"3"])
    done = shell.run("q-exec", f"{topic}/me", "--until-empty", "--keep", *FAST, *broker.flags, *worker(shell))
    assert done.status == 0
    assert "1 message requeued: the worker ended before it answered: exit status 9" in done.err
    assert "4 done, 1 requeued" in done.err


def test_a_message_that_always_ends_its_worker(shell: Shell, broker: Broker, topic: str) -> None:
    broker.create(topic, "me")
    broker.create(f"{topic}.dead", "see")
    broker.fill(topic, [b"1", b"die", b"2", b"3"])
    script = "while read x; do [ $x != die ] || exit 9; echo ok; done"
    done = shell.run(
        "q-exec", f"{topic}/me", "--until-empty", "--keep", *FAST, "--max-attempts", "3", *broker.flags,
        "--", "sh", "-c", script,
    )  # fmt: skip
    assert done.status == 0
    assert "3 done, 2 requeued, 1 dead-lettered" in done.err
    [letter] = broker.drain(f"{topic}.dead", "see")
    assert json.loads(letter.body)["body"] == "die"


def test_a_worker_that_hangs(shell: Shell, broker: Broker, topic: str) -> None:
    broker.create(topic, "me")
    broker.fill(topic, [b"1", b"hang", b"2"])
    done = shell.run(
        "q-exec", f"{topic}/me", "--until-empty", "--keep", "--timeout", "1s", *FAST, *broker.flags, *worker(shell)
    )
    assert done.status == 0
    assert "it ran longer than --timeout" in done.err
    assert "3 done, 1 requeued" in done.err


@pytest.mark.parametrize("command", [["-j1", "--", "true"], ["-j6", "--", "true"], ["--", "sh", "-c", "exit 3"]])
def test_a_worker_that_never_answers(shell: Shell, broker: Broker, topic: str, command: list[str]) -> None:
    """Of six workers the first ones have ended before the last one has started."""
    broker.create(topic, "me")
    broker.fill(topic, [b"%d" % number for number in range(10)])
    done = shell.run("q-exec", f"{topic}/me", "--keep", *FAST, *broker.flags, *command)
    assert done.status == 1
    assert "has ended 3 times without an answer (the last time: exit status" in done.err
    assert "Traceback" not in done.err
    assert broker.depth(topic, "me").held == 10


def test_too_many_answers(shell: Shell, broker: Broker, topic: str) -> None:
    broker.create(topic, "me")
    broker.fill(topic, [b"x"])
    script = "while read x; do echo ok; echo ok; done"
    done = shell.run("q-exec", f"{topic}/me", "--keep", *broker.flags, "--", "sh", "-c", script)
    assert done.status == 1
    assert "gave more answers than it was sent messages" in done.err


def test_a_body_with_the_delimiter(shell: Shell, broker: Broker, topic: str) -> None:
    broker.create(topic, "me")
    broker.create(f"{topic}.dead", "see")
    broker.fill(topic, [b"1", b"two\nlines", b"3"])
    words = ["--", "sh", "-c", "while read x; do echo ok; done"]
    done = shell.run("q-exec", f"{topic}/me", "--until-empty", "--keep", *broker.flags, *words)
    assert "2 done, 1 dead-lettered" in done.err
    [letter] = broker.drain(f"{topic}.dead", "see")
    assert "use --format length32 or envelope" in json.loads(letter.body)["reason"]
    broker.fill(topic, [b"two\nlines"])
    done = shell.run("q-exec", f"{topic}/me", "--until-empty", "--keep", "-f", "envelope", *broker.flags, *words)
    assert (done.status, done.err) == (0, "")


def test_a_worker_that_does_not_read(shell: Shell, broker: Broker, topic: str) -> None:
    """What was written and not read is bounded, and goes back after a signal."""
    broker.create(topic, "me")
    broker.fill(topic, [b"x" * 100_000] * 60)
    running = shell.start(
        "q-exec", f"{topic}/me", "--keep", "--drain-timeout", "200ms", *broker.flags,
        "--", "sh", "-c", "echo begun >&2; exec sleep 300",
    )  # fmt: skip
    running.wait_err("begun")
    running.signal(signal.SIGTERM)
    done = running.wait()
    assert done.status == 0
    assert "0 done" in done.err
    assert broker.depth(topic, "me").held == 60


def test_a_signal_waits_for_answers(shell: Shell, broker: Broker, topic: str) -> None:
    broker.create(topic, "me")
    broker.fill(topic, [b"a", b"b"])
    script = "read x; read y; echo both >&2; while ! [ -e go ]; do sleep 0.02; done; echo ok; echo ok; cat"
    running = shell.start("q-exec", f"{topic}/me", "--keep", *broker.flags, "--", "sh", "-c", script)
    running.wait_err("both")
    running.signal(signal.SIGTERM)
    Path(shell.home / "go").touch()
    done = running.wait()
    assert done.status == 0
    assert broker.depth(topic, "me").held == 0


@pytest.mark.slow
def test_a_worker_that_does_not_flush(shell: Shell, broker: Broker, topic: str) -> None:
    broker.create(topic, "me")
    broker.fill(topic, [b"x"])
    words = ["--", sys.executable, "-c", "import sys; [print('ok') for _ in sys.stdin]"]
    running = shell.start("q-exec", f"{topic}/me", "--keep", *broker.flags, *words)
    running.wait_err("has given no answer for 10 s: with --keep it has to write a line", 30)
    running.signal(signal.SIGTERM)
    assert running.wait().status == 0
    assert broker.depth(topic, "me").held == 0  # its answer came with its end


@pytest.mark.parametrize(
    ("script", "part"),
    [
        ("sleep 300 2>/dev/null & exit 1", "exit status 1"),
        ("read x; exec 1>&-; sleep 300", "it had closed its stdout"),
    ],
    ids=["leaves a child", "closes stdout"],
)
def test_a_pipe_that_tells_nothing(shell: Shell, broker: Broker, topic: str, script: str, part: str) -> None:
    """A child holds the worker's stdout, or the worker stays without one: neither holds up the run."""
    broker.create(topic, "me")
    broker.create(f"{topic}.dead", "see")
    broker.fill(topic, [b"x"])
    words = ["--until-empty", "--keep", "--max-attempts", "1", *broker.flags, "--", "sh", "-c", script]
    done = shell.run("q-exec", f"{topic}/me", *words)
    assert done.status == 0
    [letter] = broker.drain(f"{topic}.dead", "see")
    assert part in json.loads(letter.body)["reason"]
