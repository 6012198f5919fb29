"""--where and --select of q-tail and q-pipe: what passes, as what, and that nothing is lost on the way."""

from __future__ import annotations

import json
import re

import pytest
from harness.brokers import Broker
from harness.shell import Done, Shell

pytestmark = pytest.mark.forks

EVENTS = [b'{"n": %d, "type": "%s"}' % (n, b"purchase" if n % 3 == 0 else b"view") for n in range(300)]
PURCHASES = EVENTS[::3]
WHERE = ["--where", '.type == "purchase"']
BROKEN = [b'{"n": 1}', b'{"n": 2}', b"not json", b'{"n": 3}', b'{"n": "x"}', b'{"n": 4}']
POSITIVE = ["--where", ".n + 0 > 1"]


def told(done: Done) -> int:
    found = re.search(r"--skip-bytes (\d+) goes on there$", done.err_lines[-1])
    assert found, done.err
    return int(found[1])


# ── q-tail ──


def test_tail_prints_what_matches_byte_for_byte_and_finishes_all(shell: Shell, broker: Broker, topic: str) -> None:
    broker.fill(topic, EVENTS)
    done = shell.run("q-tail", f"{topic}/me", "--until-empty", *WHERE, *broker.flags)
    assert done.status == 0
    assert done.err.endswith("printed; 300 messages taken from the queue; 200 did not match\n")
    assert sorted(done.lines) == sorted(PURCHASES)
    assert broker.depth(topic, "me").held == 0


def test_tail_counts_what_it_printed(shell: Shell, broker: Broker, topic: str) -> None:
    broker.create(topic, "me")
    broker.fill(topic, EVENTS)
    done = shell.run("q-tail", f"{topic}/me", "-n", "5", "-v", *WHERE, *broker.flags)
    assert done.status == 0
    assert len(done.lines) == 5
    rest = broker.bodies(topic, "me")
    # Printed, or in front of the last that was printed and no match: finished. Everything else is still there.
    assert not set(done.lines) & set(rest)
    gone = [event for event in EVENTS if event not in rest]
    assert [event for event in gone if b"purchase" in event] == sorted(done.lines, key=EVENTS.index)
    if broker.kind == "q-broker":
        assert gone == EVENTS[: EVENTS.index(done.lines[-1]) + 1]
    assert "did not match" in done.err


def test_tail_selects_and_an_envelope_keeps_the_rest(shell: Shell, broker: Broker, topic: str) -> None:
    broker.fill(topic, [b'{"id": 18446744073709551617, "user": {"name": "Ada"}, "big": true}', b'{"id": 2}'])
    select = ["--select", "select(.big) | {id, name: .user.name}"]
    done = shell.run("q-tail", f"{topic}/me", "--until-empty", *select, "-f", "envelope", *broker.flags)
    assert done.status == 0
    assert done.err.endswith("printed; 2 messages taken from the queue; 1 did not match\n")
    (line,) = done.lines
    envelope = json.loads(line)
    assert envelope["body"] == '{"id":18446744073709551617,"name":"Ada"}'
    assert (envelope["topic"], envelope["attempts"], len(envelope["id"])) == (topic, 1, 16)
    assert broker.depth(topic, "me").held == 0


def test_tail_leaves_out_what_has_no_answer_and_says_so(shell: Shell, broker: Broker, topic: str) -> None:
    broker.fill(topic, BROKEN)
    done = shell.run("q-tail", f"{topic}/me", "--until-empty", *POSITIVE, *broker.flags)
    assert done.status == 0
    assert sorted(done.lines) == [BROKEN[1], BROKEN[3], BROKEN[5]]
    first, last = done.err_lines
    assert re.fullmatch(
        rf"q-tail: {topic}: message [0-9a-f]{{16}}: (it is not JSON .*|--where has no .*): left out", first
    )
    assert last.endswith(
        "printed; 6 messages taken from the queue; 1 did not match; 2 failed and were left out (-v names each)"
    )
    assert broker.depth(topic, "me").held == 0


def test_tail_ends_at_what_has_no_answer_if_so_asked_and_gives_it_back(
    shell: Shell, broker: Broker, topic: str
) -> None:
    broker.fill(topic, BROKEN[:3])
    words = ["q-tail", f"{topic}/me", "--until-empty", *POSITIVE, *broker.flags]
    done = shell.run(*words, "--on-error", "fail")
    assert done.status == 1
    assert re.search(r": it is not JSON \(.*\) \(--on-error skip leaves such messages out", done.err)
    assert b"not json" in broker.bodies(topic, "me")


def test_tail_lets_through_what_has_no_answer_if_so_asked(shell: Shell, broker: Broker, topic: str) -> None:
    broker.fill(topic, BROKEN)
    done = shell.run("q-tail", f"{topic}/me", "--until-empty", *POSITIVE, "--on-error", "pass", *broker.flags)
    assert done.status == 0
    assert done.err.endswith("; 1 did not match; 2 failed and were printed unchanged\n")
    assert sorted(done.lines) == sorted(BROKEN[1:])


def test_tail_samples_what_matches(shell: Shell, broker: Broker, topic: str) -> None:
    broker.fill(topic, EVENTS * 10)
    done = shell.run("q-tail", f"{topic}/me", "--until-empty", *WHERE, "--sample", "0.5", *broker.flags)
    assert done.status == 0
    assert 350 < len(done.lines) < 650  # of 1000: nine standard deviations
    assert set(done.lines) <= set(PURCHASES)
    assert broker.depth(topic, "me").held == 0


# ── q-pipe ──


def test_pipe_sends_what_matches_in_order(shell: Shell, broker: Broker, topic: str) -> None:
    done = shell.run("q-pipe", topic, *WHERE, *broker.flags, input=b"\n".join(EVENTS) + b"\n")
    assert done.status == 0
    size = sum(map(len, PURCHASES))
    assert done.err.startswith(f"q-pipe: 100 messages ({size / 1000:.1f} kB) in ")
    assert done.err.rstrip().endswith(f" to {topic}; 200 did not match")
    assert broker.bodies(topic) == PURCHASES


def test_pipe_selects(shell: Shell, broker: Broker, topic: str) -> None:
    done = shell.run("q-pipe", "-q", topic, *WHERE, "--select", "{n}", *broker.flags, input=b"\n".join(EVENTS))
    assert (done.status, done.err) == (0, "")
    assert broker.bodies(topic) == [b'{"n":%d}' % n for n in range(0, 300, 3)]


def test_pipe_ends_at_what_has_no_answer_and_goes_on_there(shell: Shell, broker: Broker, topic: str) -> None:
    text = b"\n".join(BROKEN) + b"\n"
    (shell.home / "input").write_bytes(b"\n" + text)
    words = ["q-pipe", topic, "input", *POSITIVE, *broker.flags]
    done = shell.run(*words)
    assert done.status == 1
    assert re.match(r"q-pipe: input: message 4: it is not JSON \(.*\) \(--on-error skip leaves such messages", done.err)
    assert done.err_lines[-1].startswith("q-pipe: confirmed: 2 messages, 19 bytes of input;")
    assert told(done) == 1 + len(BROKEN[0]) + 1 + len(BROKEN[1]) + 1
    assert broker.bodies(topic) == [BROKEN[1]]
    done = shell.run(*words, "--skip-bytes", str(told(done)), "--on-error", "skip")
    assert done.status == 0
    assert [line.partition(": it is")[0].partition(": --where")[0] for line in done.err_lines[:2]] == [
        "q-pipe: input from byte 19 on: message 1",
        "q-pipe: input from byte 19 on: message 3",
    ]
    assert done.err_lines[2].endswith("; 2 failed and were left out")
    assert broker.bodies(topic) == [BROKEN[3], BROKEN[5]]


def test_pipe_lets_through_what_has_no_answer_if_so_asked(shell: Shell, broker: Broker, topic: str) -> None:
    done = shell.run("q-pipe", topic, *POSITIVE, "--on-error", "pass", *broker.flags, input=b"\n".join(BROKEN))
    assert done.status == 0
    assert done.err.rstrip().endswith("; 1 did not match; 2 failed and were sent unchanged")
    assert broker.bodies(topic) == BROKEN[1:]


@pytest.mark.parametrize("linger", [[], ["--linger", "50ms"]], ids=["", "gathered"])
def test_a_checkpoint_stands_behind_what_was_filtered_out(
    shell: Shell, broker: Broker, topic: str, linger: list[str]
) -> None:
    lines = [b'{"n": %d}' % n for n in range(20_000)]
    lines[15_000] = b"broken"
    (shell.home / "input").write_bytes(b"\n".join(lines) + b"\n")
    words = ["q-pipe", topic, "input", "--checkpoint", "pos", "--where", ".n % 100 == 0", *linger, *broker.flags]
    done = shell.run(*words)
    assert done.status == 1
    assert "confirmed: 15,000 messages" in done.err
    position = json.loads((shell.home / "pos").read_text())
    (log,) = position["logs"].values()
    assert log[0]["offset"] == sum(len(line) + 1 for line in lines[:15_000])
    (shell.home / "input").write_bytes(b"\n".join([*lines[:15_000], b'{"n": 15000}', *lines[15_001:]]) + b"\n")
    done = shell.run(*words)
    assert done.status == 0, done.err
    assert sorted(int(json.loads(body)["n"]) for body in broker.bodies(topic)) == list(range(0, 20_000, 100))
    position = json.loads((shell.home / "pos").read_text())
    assert (position["messages"], position["total"]) == (20_000, (shell.home / "input").stat().st_size)


def test_oversized_and_undecided_messages_in_one_batch_keep_their_places(
    shell: Shell, broker: Broker, topic: str
) -> None:
    large = b'{"n": 2, "x": "%s"}' % (b"x" * 1024 * 1024)
    (shell.home / "input").write_bytes(b"\n".join([BROKEN[0], BROKEN[1], large, BROKEN[2], BROKEN[3]]) + b"\n")
    words = ["q-pipe", topic, "input", *POSITIVE, *broker.flags]
    done = shell.run(*words, "--on-oversize", "skip", "--on-error", "skip")
    assert done.status == 0
    said = [line.partition(":")[2].split(":")[1] for line in done.err_lines[:2]]
    assert sorted(said) == [" message 3 was not sent", " message 4"]
    assert broker.bodies(topic) == [BROKEN[1], BROKEN[3]]
    done = shell.run(*words, "--on-oversize", "skip")
    assert done.status == 1
    assert "input: message 4: it is not JSON" in done.err
    assert told(done) <= len(BROKEN[0]) + len(BROKEN[1]) + len(large) + 3
    assert BROKEN[3] not in broker.bodies(topic)


def test_what_a_select_makes_too_big_is_named_as_any_other(shell: Shell, broker: Broker, topic: str) -> None:
    done = shell.run(
        "q-pipe", topic, "--select", ". * 3", *broker.flags, input=b'"%s"\n"b"\n' % (b"a" * 600_000)
    )  # fmt: skip
    assert done.status == 1
    assert done.err_lines[0].startswith("q-pipe: stdin: message 1 was not sent: it has 1800002 bytes")


# ── usage ──


@pytest.mark.parametrize("program", ["q-tail", "q-pipe"])
def test_what_does_not_compile_is_said_before_anything_is_done(shell: Shell, program: str) -> None:
    done = shell.run(program, "topic", "--where", '.type = "purchase"', "--nsqd", "127.0.0.1:1", input=b"")
    assert done.status == 2
    assert done.err.startswith(
        f"{program}: --where: expression '.type = \"purchase\"', column 7: '=' assigns in jq, and nothing is assigned"
    )
    done = shell.run(program, "topic", "--select", ".items[]", "--nsqd", "127.0.0.1:1", input=b"")
    assert done.status == 2
    assert "--select: expression '.items[]', column 7: .[] yields many results" in done.err
    assert "jq" in done.err
    done = shell.run(program, "topic", "--on-error", "skip", "--nsqd", "127.0.0.1:1", input=b"")
    assert done.status == 2
    assert "--on-error goes with --where or --select only" in done.err
    done = shell.run(program, "topic", "--on-error", "cry", "--where", ".", "--nsqd", "127.0.0.1:1", input=b"")
    assert done.status == 2
