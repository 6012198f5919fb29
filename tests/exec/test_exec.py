"""q-exec with real commands: what they get, and what becomes of the messages."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from harness.brokers import Broker
from harness.shell import Shell
from harness.waiting import wait_until

FAST = ("--backoff", "50ms")


def bodies(lines: list[bytes]) -> list[bytes]:
    return sorted(lines)


def test_a_command_reads_the_body(shell: Shell, broker: Broker, topic: str) -> None:
    sent = [b"one", b"two words", b"", b"\x00\xff binary \n with a newline"]
    sent = [body for body in sent if body]  # NSQ has no empty messages
    broker.create(topic, "me")
    broker.fill(topic, sent)
    done = shell.run("q-exec", f"{topic}/me", "-n", "3", *broker.flags, "--", "sh", "-c", "cat; echo '|'")
    assert (done.status, done.err) == (0, "")
    assert sorted(done.out.split(b"|\n")[:-1]) == sorted(sent)
    assert broker.depth(topic, "me").held == 0


def test_a_large_body(shell: Shell, broker: Broker, topic: str) -> None:
    """More than a pipe holds, and a command that reads none of it, or half."""
    body = os.urandom(700_000)
    broker.create(topic, "me")
    broker.fill(topic, [body])
    script = "cat > body; echo done"
    assert shell.run("q-exec", f"{topic}/me", "-n1", *broker.flags, "--", "sh", "-c", script).out == b"done\n"
    assert (shell.home / "body").read_bytes() == body
    for command in (["true"], ["head", "-c", "100000"]):
        broker.fill(topic, [body])
        done = shell.run("q-exec", f"{topic}/me", "-n1", *broker.flags, "--", *command)
        assert (done.status, done.err) == (0, "")
        assert broker.depth(topic, "me").held == 0


def test_the_environment(shell: Shell, broker: Broker, topic: str) -> None:
    broker.create(topic, "me")
    broker.fill(topic, [b"x"])
    done = shell.run(
        "q-exec", f"{topic}/me", "-n1", *broker.flags, "--", "env",
        environ={"Q_TOPIC": "of another q-exec", "Q_KEY": "likewise", "KEPT": "yes"},
    )  # fmt: skip
    found = dict(line.partition("=")[::2] for line in done.out.decode().splitlines())
    assert found["Q_TOPIC"] == topic
    assert found["Q_CHANNEL"] == "me"
    assert found["Q_ATTEMPTS"] == "1"
    assert len(found["Q_ID"]) == 16
    assert int(found["Q_TIMESTAMP"]) > 10**18
    assert found["Q_COUNT"] == "1"
    assert found["KEPT"] == "yes"
    assert "Q_KEY" not in found


def test_the_body_as_an_argument(shell: Shell, broker: Broker, topic: str) -> None:
    broker.create(topic, "me")
    broker.fill(topic, [b"a b;$(id)", b"two"])
    script = 'printf "%s|" "$@"; cat'
    words = ["--", "sh", "-c", script, "sh", "-x", "<{}{}>"]
    done = shell.run("q-exec", f"{topic}/me", "-n2", *broker.flags, *words)
    assert done.out == b"-x|<a b;$(id)a b;$(id)>|-x|<twotwo>|"
    broker.fill(topic, [b"body"])
    done = shell.run("q-exec", f"{topic}/me", "-n1", "--replace", "", *broker.flags, *words)
    assert done.out == b"-x|<{}{}>|body"
    broker.fill(topic, [b"body"])
    done = shell.run("q-exec", f"{topic}/me", "-n1", "-I", "%", *broker.flags, "--", "echo", "{}", "%")
    assert done.out == b"{} body\n"


@pytest.mark.parametrize("body", [b"with\0NUL", b"x" * 300_000], ids=["NUL", "long"])
def test_a_body_that_cannot_be_an_argument(shell: Shell, broker: Broker, topic: str, body: bytes) -> None:
    broker.create(topic, "me")
    broker.create(f"{topic}.dead", "see")
    broker.fill(topic, [body, b"good"])
    done = shell.run("q-exec", f"{topic}/me", "-n2", *broker.flags, "--", "echo", "{}")
    assert (done.status, done.out) == (0, b"good\n")
    assert "stdin" in done.err or "NUL byte" in done.err
    [letter] = broker.drain(f"{topic}.dead", "see")
    fields = json.loads(letter.body)
    assert fields["reason"] in done.err
    assert broker.depth(topic, "me").held == 0


def test_a_message_that_fails_comes_again_later(shell: Shell, broker: Broker, topic: str) -> None:
    broker.create(topic, "me")
    broker.fill(topic, [b"a", b"b"])
    script = 'date +%s%N; [ $Q_ATTEMPTS = 3 ] || { echo "not yet" >&2; exit 3; }'
    done = shell.run(
        "q-exec", f"{topic}/me", "--until-empty", "--backoff", "200ms", *broker.flags, "--", "sh", "-c", script
    )
    assert done.status == 0
    assert done.err.count("not yet\n") >= 4
    assert "2 done, 4 requeued" in done.err
    assert "requeued: exit status 3: not yet" in done.err
    times = sorted(map(int, done.lines))
    assert len(times) == 6
    assert times[-1] - times[0] >= 0.6e9  # 200 ms, then 400 ms


def test_dead_letters(shell: Shell, broker: Broker, topic: str) -> None:
    broker.create(topic, "me")
    broker.create(f"{topic}.dead", "see")
    broker.fill(topic, [b"1", b"2", b"3"])
    script = "read x; [ $x != 2 ] || { echo first >&2; echo 'no such user: 2' >&2; exit 4; }; echo $x"
    words = [f"{topic}/me", "--until-empty", *FAST, "--max-attempts", "3", *broker.flags]
    done = shell.run("q-exec", *words, "--", "sh", "-c", script)
    assert done.status == 0
    assert sorted(done.lines) == [b"1", b"3"]
    assert "2 done, 2 requeued, 1 dead-lettered" in done.err
    [letter] = broker.drain(f"{topic}.dead", "see")
    fields = json.loads(letter.body)
    assert fields["body"] == "2"
    assert fields["attempts"] == 3
    assert fields["reason"] == "exit status 4: no such user: 2 (--max-attempts 3 reached)"
    assert (fields["topic"], fields["channel"]) == (topic, "me")


def test_exit_rules(shell: Shell, broker: Broker, topic: str) -> None:
    broker.create(topic, "me")
    broker.create("graves", "see")
    broker.fill(topic, [b"%d" % status for status in (0, 7, 9, 65)])
    done = shell.run(
        "q-exec", f"{topic}/me", "-n4", "--exit", "7-8=finish", "--exit", "9=requeue:1h", "--exit", "65=dead-letter",
        "--dead-letter-topic", "graves", *broker.flags, "--", "sh", "-c", "exit {}",
    )  # fmt: skip
    assert done.status == 0
    assert "2 done, 1 requeued, 1 dead-lettered" in done.err
    assert [json.loads(each.body)["body"] for each in broker.drain("graves", "see")] == ["65"]
    assert broker.depth(topic, "me").held == 1


def test_stop(shell: Shell, broker: Broker, topic: str) -> None:
    broker.create(topic, "me")
    broker.fill(topic, [b"%d" % number for number in range(20)])
    done = shell.run(
        "q-exec",
        f"{topic}/me",
        "--exit",
        "5=stop",
        *broker.flags,
        "--",
        "sh",
        "-c",
        "echo the disk is full >&2; exit 5",
    )
    assert done.status == 1
    assert "exit status 5: the disk is full; the run ends, and gives it back" in done.err
    assert broker.depth(topic, "me").held == 20


@pytest.mark.parametrize(
    ("words", "status", "part"),
    [
        (["no-such-program"], 127, "cannot run no-such-program: there is no such program"),
        (["./not-executable"], 126, "cannot run ./not-executable: it is not executable: see chmod +x"),
        (["./no-interpreter"], 127, "cannot run ./no-interpreter: its interpreter does not exist"),
        (["./no-program"], 126, "cannot run ./no-program: it is neither a program nor a script"),
        (["./folder"], 126, "cannot run ./folder: it is a directory"),
        (["sh", "-c", "no-such-program"], 127, "exit status 127: "),
    ],
)
def test_a_command_that_cannot_be_run(
    shell: Shell, broker: Broker, topic: str, words: list[str], status: int, part: str
) -> None:
    """The run ends at once, and everything goes back: an endless loop would use up the attempts of all messages."""
    (shell.home / "not-executable").write_text("#!/bin/sh\n")
    for name, text in (("no-interpreter", "#!/no/such/interpreter\n"), ("no-program", "\0\1\2")):
        (shell.home / name).write_text(text)
        (shell.home / name).chmod(0o755)
    (shell.home / "folder").mkdir()
    broker.create(topic, "me")
    broker.fill(topic, [b"%d" % number for number in range(50)])
    done = shell.run("q-exec", f"{topic}/me", "-j", "4", *broker.flags, "--", *words)
    assert done.status == status
    assert part in done.err
    assert broker.depth(topic, "me").held == 50
    assert max(message.attempts for message in broker.drain(topic, "me")) <= 2


def test_jobs_at_once(shell: Shell, broker: Broker, topic: str) -> None:
    """Three commands wait for one another, which they could not with fewer at once."""
    broker.create(topic, "me")
    broker.fill(topic, [b"a", b"b", b"c"])
    script = 'touch "$0"; while [ $(ls | grep -c "^[abc]$") -lt 3 ]; do sleep 0.02; done; echo $0'
    (shell.home / "work").mkdir()
    done = shell.run(
        "q-exec", f"{topic}/me", "-n3", "-j3", *broker.flags, "--", "sh", "-c", script, "{}", cwd=shell.home / "work"
    )
    assert sorted(done.lines) == [b"a", b"b", b"c"]


def test_order_with_one_job(shell: Shell, broker: Broker, topic: str) -> None:
    broker.create(topic, "me")
    sent = [b"%03d" % number for number in range(60)]
    broker.fill(topic, sent)
    done = shell.run("q-exec", f"{topic}/me", "-n60", *broker.flags, "--", "echo", "{}")
    assert done.lines == sent


def test_batches(shell: Shell, broker: Broker, topic: str) -> None:
    broker.create(topic, "me")
    broker.fill(topic, [b"%d" % number for number in range(10)])
    done = shell.run(
        "q-exec", f"{topic}/me", "-n10", "--batch", "4", "--batch-wait", "200ms", *broker.flags,
        "--", "sh", "-c", "echo $Q_COUNT $(cat)",
    )  # fmt: skip
    assert done.err == ""
    assert [line.split()[0] for line in done.lines] == [b"4", b"4", b"2"]
    assert sorted(word for line in done.lines for word in line.split()[1:]) == [b"%d" % number for number in range(10)]
    broker.fill(topic, [b"a", b"b"])
    done = shell.run("q-exec", f"{topic}/me", "-n2", "--batch", "9", "--format", "envelope", *broker.flags, "--", "cat")
    assert [json.loads(line)["body"] for line in done.lines] == ["a", "b"]


def test_a_batch_that_fails_comes_again_whole(shell: Shell, broker: Broker, topic: str) -> None:
    broker.create(topic, "me")
    broker.fill(topic, [b"%d" % number for number in range(6)])
    script = 'x=$(cat | tr "\\n" ,); [ -e ran ] || { touch ran; exit 1; }; echo $x'
    done = shell.run(
        "q-exec", f"{topic}/me", "--until-empty", "--batch", "6", *FAST, *broker.flags, "--", "sh", "-c", script
    )
    assert done.status == 0
    assert "6 done, 6 requeued" in done.err
    assert sorted(done.out.replace(b"\n", b"").split(b",")[:-1]) == [b"%d" % number for number in range(6)]


def test_timeout_ends_the_whole_group(shell: Shell, broker: Broker, topic: str) -> None:
    broker.create(topic, "me")
    broker.fill(topic, [b"x"])
    script = "echo $$ > group; sleep 300 & trap '' TERM; sleep 300"
    done = shell.run(
        "q-exec", f"{topic}/me", "-n1", "--timeout", "300ms", "--exit", "timeout=finish", *broker.flags,
        "--", "sh", "-c", script,
    )  # fmt: skip
    assert done.status == 0
    group = int((shell.home / "group").read_text())
    wait_until(lambda: not group_is_alive(group), what="the group to be gone")
    assert broker.depth(topic, "me").held == 0


def group_is_alive(group: int) -> bool:
    """Whether a process of the group runs; one that has ended and was not waited for does not."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            state, _, number = (entry / "stat").read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(number) == group and state != "Z":
            return True
    return False


def test_tagged_output(shell: Shell, broker: Broker, topic: str) -> None:
    broker.create(topic, "me")
    broker.fill(topic, [b"a", b"b", b"c"])
    script = "echo $Q_ID 1; echo $Q_ID err >&2; printf '%s end' $Q_ID"
    done = shell.run("q-exec", f"{topic}/me", "-n3", "-j3", "--tag", *broker.flags, "--", "sh", "-c", script)
    assert len(done.lines) == 6
    for line in [*done.lines, *(each.encode() for each in done.err_lines)]:
        tag, _, rest = line.partition(b"\t")
        assert rest.startswith(tag)
    assert len(done.err_lines) == 3


def test_grouped_output(shell: Shell, broker: Broker, topic: str) -> None:
    broker.create(topic, "me")
    broker.fill(topic, [b"%d" % number for number in range(4)])
    script = 'read x; for i in 1 2 3 4 5; do echo $x; sleep 0.02; done; echo "err $x" >&2; [ $x != 2 ]'
    done = shell.run(
        "q-exec", f"{topic}/me", "-n4", "-j4", "--group", "--exit", "1=finish", *broker.flags, "--", "sh", "-c", script
    )
    assert [done.lines[start : start + 5] for start in range(0, 20, 5)] == [
        [done.lines[start]] * 5 for start in range(0, 20, 5)
    ]
    assert sorted(done.err_lines) == [f"err {number}" for number in range(4)]


@pytest.mark.parametrize("flags", [[], ["--tag"], ["--group"]], ids=["direct", "tag", "group"])
def test_much_output(shell: Shell, broker: Broker, topic: str, flags: list[str]) -> None:
    broker.create(topic, "me")
    broker.fill(topic, [b"x"])
    script = "yes 0123456789012345678901234567890123456789 | head -c 41000000; yes err | head -c 4000000 >&2"
    done = shell.run("q-exec", f"{topic}/me", "-n1", *flags, *broker.flags, "--", "sh", "-c", script)
    tag = 17 if flags == ["--tag"] else 0
    assert len(done.out) == 1_000_000 * (41 + tag)
    assert len(done.err) == 1_000_000 * (4 + tag)


def test_what_a_command_leaves_behind_goes_on(shell: Shell, broker: Broker, topic: str) -> None:
    """A process in the background that holds the command's stderr does not delay the message."""
    broker.create(topic, "me")
    broker.fill(topic, [b"x"])
    script = "{ while ! [ -e go ]; do sleep 0.02; done; echo late >&2; touch gone; } & echo done"
    running = shell.start("q-exec", f"{topic}/me", *broker.flags, "--", "sh", "-c", script)
    running.wait_out(5)
    wait_until(lambda: broker.depth(topic, "me").held == 0, what="the message to be finished")
    (shell.home / "go").touch()
    running.wait_err("late")
    running.signal(signal.SIGTERM)
    assert running.wait().status == 0


def test_a_reader_of_stdout_that_leaves_ends_the_run(shell: Shell, broker: Broker, topic: str) -> None:
    broker.create(topic, "me")
    broker.fill(topic, [b"%d" % number for number in range(2000)])
    flags = " ".join(broker.flags)
    for output in ("", "--tag", "--group"):
        running = shell.script(f"q-exec {topic}/me {output} {flags} -- echo x | head -n 3; echo ended")
        done = running.wait()
        assert done.out.endswith(b"ended\n")
        assert done.out.count(b"x\n") == 3
    assert 0 < broker.depth(topic, "me").held < 2000


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_commands_end(shell: Shell, broker: Broker, topic: str, number: signal.Signals) -> None:
    broker.create(topic, "me")
    broker.fill(topic, [b"a", b"b", b"c"])
    script = "echo begun; while ! [ -e go ]; do sleep 0.02; done; echo ended"
    running = shell.start("q-exec", f"{topic}/me", *broker.flags, "--", "sh", "-c", script)
    running.wait_out(6)
    running.signal(number)
    (shell.home / "go").touch()
    done = running.wait()
    assert done.status == (0 if number == signal.SIGTERM else -signal.SIGINT)
    assert done.out == b"begun\nended\n"
    assert broker.depth(topic, "me").held == 2
    assert "1 done" in done.err


def test_after_a_signal_commands_have_the_drain_timeout(shell: Shell, broker: Broker, topic: str) -> None:
    broker.create(topic, "me")
    broker.fill(topic, [b"a"])
    running = shell.start(
        "q-exec", f"{topic}/me", "--drain-timeout", "200ms", *broker.flags, "--", "sh", "-c", "echo $$; exec sleep 300"
    )
    group = int(running.wait_out(2))
    running.signal(signal.SIGTERM)
    done = running.wait()
    assert done.status == 0
    assert not group_is_alive(group)
    assert "0 done, 1 given back" in done.err
    assert [message.body for message in broker.drain(topic, "me")] == [b"a"]


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["t/c"], "write the command after --, as in q-exec TOPIC/CHANNEL -- COMMAND"),
        (["t/c", "--"], "write the command after --"),
        (["t/c", "cat"], "write the command after --"),
        (["t", "--", "cat"], "name a channel of t, as in t/NAME"),
        (["t/c", "--batch", "2", "--", "echo", "{}"], "{} stands for one body, and --batch gives"),
        (["t/c", "--batch-wait", "2s", "--", "cat"], "--batch-wait goes with --batch"),
        (["t/c", "--keep", "--batch", "2", "--", "cat"], "--batch does not go with it"),
        (["t/c", "--keep", "--tag", "--", "cat"], "--tag does not go with it"),
        (["t/c", "--keep", "--exit", "1=stop", "--", "cat"], "--exit does not go with it"),
        (["t/c", "--exit", "1=x", "--", "cat"], "is not finish, requeue"),
        (["t/c", "--backoff", "1h", "--max-backoff", "1s", "--", "cat"], "--max-backoff is shorter than --backoff"),
        (["t/c", "--batch", "10", "--max-in-flight", "5", "--", "cat"], "is less than a batch"),
        (["t/c", "--format", "envelope", "-0", "--", "cat"], "--delimiter and -0 go with --format raw only"),
        (["t/c", "t.dead/c", "--max-attempts", "2", "--", "cat"], "they would be read again"),
    ],
)
def test_usage_errors(shell: Shell, words: list[str], part: str) -> None:
    at = words.index("--") if "--" in words else len(words)
    done = shell.run("q-exec", *words[:at], "--nsqd", "127.0.0.1:1", *words[at:])
    assert done.status == 2
    assert part in done.err
    assert len(done.err_lines) == 1


def test_a_stop_while_nobody_reads_the_output(shell: Shell, broker: Broker, topic: str) -> None:
    """The command has ended, so its message is finished; what it wrote is not waited for."""
    broker.create(topic, "me")
    broker.fill(topic, [b"x"])
    reading, writing = os.pipe()
    try:
        running = shell.start(
            "q-exec", f"{topic}/me", "--tag", "--drain-timeout", "200ms", *broker.flags,
            "--", "sh", "-c", "head -c 200000 /dev/zero | tr '\\0' x; echo ended >&2", stdout=writing,
        )  # fmt: skip
        running.wait_err("ended")
        running.signal(signal.SIGTERM)
        assert running.wait(20).status == 0
    finally:
        os.close(reading)
        os.close(writing)
    assert broker.depth(topic, "me").held == 0


def test_every_reason_is_named(shell: Shell, broker: Broker, topic: str) -> None:
    """Also one that comes so soon after another that it is only counted at first."""
    broker.create(topic, "me")
    broker.create(f"{topic}.dead", "see")
    broker.fill(topic, [b"3", b"4", b"4"])
    words = ["--exit", "1-9=dead-letter", *broker.flags, "--", "sh", "-c", "exit {}"]
    done = shell.run("q-exec", f"{topic}/me", "-n3", *words)
    assert done.status == 0
    reasons = [line.partition(".dead: ")[2] for line in done.err_lines if ".dead: " in line]
    assert len(reasons) == 2
    assert {"exit status 3", "exit status 4"} <= {
        word.strip() for each in reasons for word in each.split("(")[0].split(",")
    }
