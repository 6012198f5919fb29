"""q-bridge --dedupe: what was sent within the window is not sent again; what was not is never taken for it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import MakeBroker
from harness.brokers import Broker
from harness.shell import Done, Shell
from harness.waiting import pass_time

pytestmark = pytest.mark.forks


def body(ident: object, nth: int = 0) -> bytes:
    return json.dumps({"id": ident, "nth": nth}).encode()


def bridge(shell: Shell, broker: Broker, topic: str, *words: str) -> Done:
    return shell.run(
        "q-bridge", topic, "--to", f"{topic}.out", "--dedupe", ".id", "--until-empty", *words, *broker.flags
    )


def test_one_of_equal_ones_is_sent_and_the_others_are_finished_and_counted(
    shell: Shell, broker: Broker, topic: str
) -> None:
    broker.fill(topic, [body(nth % 100, nth) for nth in range(5000)])
    done = bridge(shell, broker, topic)
    assert done.status == 0, done.err
    out = [json.loads(each) for each in broker.bodies(f"{topic}.out")]
    assert sorted(each["id"] for each in out) == list(range(100))
    assert "5,000 messages" in done.err
    assert "100 routed, 4,900 duplicate\n" in done.err
    assert broker.depth(topic, "q-bridge").held == 0


def test_it_remembers_over_a_restart_and_forgets_after_the_window(shell: Shell, broker: Broker, topic: str) -> None:
    broker.fill(topic, [body("a"), body("b")])
    assert "2 routed\n" in bridge(shell, broker, topic).err
    broker.fill(topic, [body("a"), body("c")])
    assert "1 routed, 1 duplicate\n" in bridge(shell, broker, topic).err
    pass_time(0.3)
    broker.fill(topic, [body("a")])
    assert "1 routed\n" in bridge(shell, broker, topic, "--dedupe-window", "200ms").err


def test_what_has_no_key_is_always_sent(shell: Shell, broker: Broker, topic: str) -> None:
    broker.fill(topic, [body(None), b'{"x":1}', b'{"x":1}', body(None), body(0), body(False), body(""), body("0")])
    done = bridge(shell, broker, topic)
    assert "8 routed\n" in done.err


def test_values_are_told_apart_as_json_does(shell: Shell, broker: Broker, topic: str) -> None:
    broker.fill(topic, [body(1), body("1"), body([1]), body({"a": 1}), body(2**53), body(2**53 + 1), body({"a": 1})])
    assert "6 routed, 1 duplicate\n" in bridge(shell, broker, topic).err


def test_numbers_are_told_apart_to_the_last_digit(shell: Shell, broker: Broker, topic: str) -> None:
    bodies = [body(number) for number in (2**64, 2**64 + 1, 2**64 + 2, -(2**63) - 1, 10**30, 10**30 + 1)]
    bodies += [b'{"id":0.1234567890123456789%d}' % digit for digit in range(3)]
    broker.fill(topic, bodies * 2)
    assert "9 routed, 9 duplicate\n" in bridge(shell, broker, topic).err
    assert sorted(broker.bodies(f"{topic}.out")) == sorted(bodies)


def test_only_what_is_sent_has_a_key(shell: Shell, broker: Broker, topic: str) -> None:
    broker.fill(topic, [body("a", 0), body("a", 1), body("b", 0), body("b", 0)])
    done = bridge(shell, broker, topic, "--where", ".nth == 1")
    assert "1 routed, 3 filtered\n" in done.err


def test_a_dead_letter_does_not_make_its_key_a_known_one(shell: Shell, make_broker: MakeBroker, topic: str) -> None:
    here, there = make_broker(), make_broker("--max-msg-size=1000")
    big = json.dumps({"id": "a", "x": "x" * 2000}).encode()
    words = ["--to", topic, "--to-nsqd", there.address, "--dedupe", ".id", "--until-empty", *here.flags]
    here.fill(topic, [big, b"no json", b'{"id": "b"}'])
    done = shell.run("q-bridge", topic, *words)
    assert "1 routed, 2 dead-lettered\n" in done.err
    here.fill(topic, [b'{"id": "a"}', b'{"id": "b"}'])
    assert "1 routed, 1 duplicate\n" in shell.run("q-bridge", topic, *words).err
    assert there.bodies(topic) == [b'{"id": "b"}', b'{"id": "a"}']


def test_a_key_that_fails_is_an_error_of_the_message(shell: Shell, broker: Broker, topic: str) -> None:
    broker.fill(topic, [b'{"id": 1}', b"7"])
    done = bridge(shell, broker, topic)
    assert "1 routed, 1 dead-lettered\n" in done.err
    (letter,) = broker.bodies(f"{topic}.dead")
    assert json.loads(letter)["reason"].startswith("--dedupe has no key for it: ")


def test_with_routes_a_message_counts_once(shell: Shell, broker: Broker, topic: str, tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text(f"[[route]]\nto = '{topic}.a'\n[[route]]\nwhen = '.nth > 0'\nto = '{topic}.b'\n")
    broker.fill(topic, [body("x", 1), body("x", 0), body("y", 0)])
    words = ["--routes", str(path), "--dedupe", ".id", "--dedupe-file", str(tmp_path / "keys"), "--until-empty"]
    done = shell.run("q-bridge", topic, *words, *broker.flags)
    assert "2 routed, 1 duplicate\n" in done.err
    assert broker.bodies(f"{topic}.a") == [body("x", 1), body("y", 0)]
    assert broker.bodies(f"{topic}.b") == [body("x", 1)]
    assert (tmp_path / "keys").exists()


def test_a_file_in_use_or_of_something_else(shell: Shell, broker: Broker, topic: str, tmp_path: Path) -> None:
    words = ["--to", f"{topic}.out", "--dedupe", ".id", *broker.flags]
    first = shell.start("q-bridge", topic, *words)
    broker.wait_clients(topic, "q-bridge")
    done = shell.run("q-bridge", topic, *words)
    assert (done.status, "is in use by another process" in done.err) == (3, True)
    first.signal(15)
    assert first.wait().status == 0
    (tmp_path / "text").write_text("hello")
    done = shell.run("q-bridge", topic, *words, "--dedupe-file", str(tmp_path / "text"))
    assert (done.status, len(done.err_lines)) == (3, 1)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--dedupe", ".a ="], "--dedupe: expression '.a =', column "),
        (["--dedupe", ".a", "--dedupe-window", "0s"], "--dedupe-window"),
        (["--dedupe", ".a", "--dedupe-keys", "0"], "--dedupe-keys"),
        (["--dedupe-window", "1m"], "--dedupe-window goes with --dedupe"),
        (["--dedupe", ".a", "--dry-run"], "--dry-run and --dedupe do not go together: --dry-run sends nothing"),
    ],
)
def test_what_cannot_be(shell: Shell, words: list[str], told: str) -> None:
    done = shell.run("q-bridge", "events", "--to", "x", *words, "--nsqd", "127.0.0.1:1")
    assert done.status == 2
    assert told in done.err
