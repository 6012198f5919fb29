"""q-exec --where and --select: which messages get a command, and what becomes of the others."""

from __future__ import annotations

import json

import pytest
from harness.brokers import Broker
from harness.shell import Shell

SENT = [b'{"n":1,"go":true}', b'{"n":2,"go":false}', b"no JSON", b'{"n":3,"go":true}']
RULES = ("--where", ".go", "--select", "{n}")


def test_where_and_select(shell: Shell, broker: Broker, topic: str) -> None:
    broker.create(topic, "me")
    broker.create(f"{topic}.dead", "see")
    broker.fill(topic, SENT)
    done = shell.run("q-exec", f"{topic}/me", "--until-empty", *RULES, *broker.flags, "--", "sh", "-c", "cat; echo")
    assert sorted(done.lines) == [b'{"n":1}', b'{"n":3}']
    assert "4 messages" in done.err
    assert "2 done, 1 dead-lettered, 1 filtered" in done.err
    [letter] = broker.drain(f"{topic}.dead", "see")
    assert json.loads(letter.body)["body"] == "no JSON"


def test_a_dead_letter_has_the_body_as_it_came(shell: Shell, broker: Broker, topic: str) -> None:
    broker.create(topic, "me")
    broker.create(f"{topic}.dead", "see")
    broker.fill(topic, [SENT[0]])
    words = ["--exit", "1=dead-letter", *RULES, *broker.flags, "--", "false"]
    assert shell.run("q-exec", f"{topic}/me", "-n1", *words).status == 0
    [letter] = broker.drain(f"{topic}.dead", "see")
    assert json.loads(letter.body)["body"] == SENT[0].decode()


@pytest.mark.parametrize(
    ("on_error", "status", "printed", "note"),
    [
        ("skip", 0, [b'{"n":1}', b'{"n":3}'], "2 done, 1 filtered, 1 left out"),
        ("pass", 0, [b"no JSON", b'{"n":1}', b'{"n":3}'], "3 done, 1 filtered"),
        ("fail", 1, None, "it is not JSON"),
    ],
)
def test_on_error(
    shell: Shell, broker: Broker, topic: str, on_error: str, status: int, printed: list[bytes] | None, note: str
) -> None:
    broker.create(topic, "me")
    broker.fill(topic, SENT)
    words = ["--until-empty", "--on-error", on_error, *RULES, *broker.flags, "--", "sh", "-c", "cat; echo"]
    done = shell.run("q-exec", f"{topic}/me", *words)
    assert done.status == status
    assert note in done.err
    if printed is None:
        assert b"no JSON" in [message.body for message in broker.drain(topic, "me")]
    else:
        assert sorted(done.lines) == sorted(printed)
        assert broker.depth(topic, "me").held == 0


def test_count_counts_those_that_match(shell: Shell, broker: Broker, topic: str) -> None:
    broker.create(topic, "me")
    broker.fill(topic, [b'{"n":%d}' % number for number in range(50)])
    words = ["-n", "3", "--where", ".n % 5 == 4", "--max-in-flight", "20", *broker.flags]
    done = shell.run("q-exec", f"{topic}/me", *words, "--", "sh", "-c", "cat; echo")
    assert sorted(done.lines) == [b'{"n":14}', b'{"n":4}', b'{"n":9}']
    assert done.status == 0
    assert broker.depth(topic, "me").held == 35


def test_with_a_worker(shell: Shell, broker: Broker, topic: str) -> None:
    broker.create(topic, "me")
    broker.fill(topic, [b'{"n":%d,"go":%s}' % (number, b"true" if number % 2 else b"false") for number in range(10)])
    script = "while read x; do echo $x >> seen; echo ok; done"
    words = ["--until-empty", "--keep", *RULES, *broker.flags, "--", "sh", "-c", script]
    assert shell.run("q-exec", f"{topic}/me", *words).status == 0
    assert sorted((shell.home / "seen").read_text().split()) == [f'{{"n":{number}}}' for number in range(1, 10, 2)]
