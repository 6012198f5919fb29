"""q-bridge --where and --select: only some messages, or a part of each; what is left out is finished and counted."""

from __future__ import annotations

import json

import pytest
from harness.brokers import Broker
from harness.shell import Shell

pytestmark = pytest.mark.forks

EVENTS = [{"type": "purchase" if nth % 3 else "look", "amount": nth, "id": 2**53 + nth} for nth in range(900)]
BODIES = [json.dumps(event).encode() for event in EVENTS]


def test_only_what_it_is_true_for(shell: Shell, broker: Broker, topic: str) -> None:
    broker.fill(topic, BODIES)
    where = '.type == "purchase" and .amount >= 100'
    done = shell.run("q-bridge", topic, "--to", f"{topic}.out", "--where", where, "--until-empty", *broker.flags)
    assert done.status == 0, done.err
    wanted = [b for b, e in zip(BODIES, EVENTS, strict=True) if e["type"] == "purchase" and int(e["amount"]) >= 100]
    assert broker.bodies(f"{topic}.out") == wanted
    assert f"{len(wanted)} routed, {900 - len(wanted)} filtered\n" in done.err
    assert broker.depth(topic, "q-bridge").held == 0


def test_a_new_body_and_exact_integers(shell: Shell, broker: Broker, topic: str) -> None:
    broker.fill(topic, BODIES[:10])
    words = ["--where", ".amount > 5", "--select", "{id, n: (.amount + 1)}", "--until-empty", *broker.flags]
    done = shell.run("q-bridge", topic, "--to", f"{topic}.out", *words)
    assert done.status == 0, done.err
    assert broker.bodies(f"{topic}.out") == [b'{"id":%d,"n":%d}' % (2**53 + nth, nth + 1) for nth in range(6, 10)]


def test_a_topic_from_the_message(shell: Shell, broker: Broker, topic: str) -> None:
    broker.fill(topic, BODIES)
    done = shell.run("q-bridge", topic, "--to", f"{topic}.\\(.type)", "--until-empty", *broker.flags)
    assert done.status == 0, done.err
    for kind in ("purchase", "look"):
        assert broker.bodies(f"{topic}.{kind}") == [b for b, e in zip(BODIES, EVENTS, strict=True) if e["type"] == kind]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--where", ".a ==="], "--where: expression '.a ===', column "),
        (["--where", ""], "--where: expression '', column "),
        (["--select", "{"], "--select: expression '{', column "),
        (["--to", "a b"], "--to: topic name 'a b' has ' '"),
        (["--to", "e.\\(.x"], "--to: expression "),
        (["--on-error", "retry"], "'retry' is not one of"),
        (["--max-attempts", "0"], "--max-attempts"),
        (["--to-nsqd", "h:1", "--to-lookupd", "h:2"], "give --to-nsqd or --to-lookupd, not both"),
        (["--to-nsqd", "::"], "address '::'"),
        (["--routes", "r.toml"], "give --to TOPIC or --routes FILE, not both"),
        (["--redrive"], "--to does not go with it"),
        (["--rate", "0"], "--rate"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_read(shell: Shell, words: list[str], told: str) -> None:
    done = shell.run("q-bridge", "events", "--to", "out", *words, "--nsqd", "127.0.0.1:1")
    assert done.status == 2
    assert told in done.err
    assert len(done.err_lines) == 1, done.err


def test_nothing_to_read_or_nowhere_to_go(shell: Shell) -> None:
    done = shell.run("q-bridge", "--to", "x")
    assert (done.status, "name a topic to read" in done.err) == (2, True)
    done = shell.run("q-bridge", "events")
    assert (done.status, "give --to TOPIC or --routes FILE" in done.err) == (2, True)
    done = shell.run("q-bridge", "events", "--routes", "r.toml", "--select", ".x")
    assert (done.status, "each route has a select of its own" in done.err) == (2, True)
