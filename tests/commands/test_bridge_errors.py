"""q-bridge --on-error: what cannot be routed is kept, dropped, passed on or the end; and the counts always add up."""

from __future__ import annotations

import json
import re

import pytest
from conftest import MakeBroker
from harness.brokers import Broker
from harness.reader import Reader
from harness.shell import Done, Shell
from harness.waiting import wait_until

pytestmark = pytest.mark.forks

GOOD = [b'{"n":%d}' % nth for nth in range(20)]
BAD = [b"not json", b'{"n":"\\u0000"', b"\xff\xfe"]
MIXED = [*GOOD[:10], BAD[0], *GOOD[10:15], BAD[1], *GOOD[15:], BAD[2]]
OUTCOMES = ("routed", "filtered", "dead-lettered", "dropped", "requeued")


def counts(done: Done) -> dict[str, int]:
    """What the summary says became of the messages; all of them, or the test fails."""
    (line,) = [line for line in done.err_lines if " read: " in line]
    read = re.search(r"q-bridge: ([\d,]+) messages? ", line)
    assert read is not None, line
    found = {
        name: int(count.replace(",", "")) for count, name in re.findall(r"([\d,]+) ([a-z-]+)", line.split("read:")[1])
    }
    assert found.keys() <= set(OUTCOMES), line
    assert sum(found.values()) == int(read[1].replace(",", "")), line
    return found


def deliver_again(reader: Reader, times: int) -> None:
    """Take and give back all there is, so often."""
    for nth in range(times):
        messages = reader.take(1)
        while more := reader.read(0.05):
            messages += more
        if nth == times - 1:
            reader.ready(0)
        reader.requeue(messages)
    reader.close()


def bridge(shell: Shell, broker: Broker, topic: str, *words: str) -> Done:
    return shell.run(
        "q-bridge", topic, "--to", f"{topic}.out", "--where", ".n >= 5", "--until-empty", *words, *broker.flags
    )


def test_a_message_that_cannot_be_routed_is_kept_with_the_reason(shell: Shell, broker: Broker, topic: str) -> None:
    broker.fill(topic, MIXED)
    done = bridge(shell, broker, topic)
    assert done.status == 0, done.err
    assert counts(done) == {"routed": 15, "filtered": 5, "dead-lettered": 3}
    assert broker.bodies(f"{topic}.out") == GOOD[5:]
    letters = [json.loads(letter) for letter in broker.bodies(f"{topic}.dead")]
    assert [letter.get("body") for letter in letters] == ["not json", '{"n":"\\u0000"', None]
    assert letters[2]["body_base64"] == "//4="
    for letter in letters:
        assert letter["reason"].startswith("it is not JSON (")
        assert (letter["topic"], letter["channel"], letter["attempts"]) == (topic, "q-bridge", 1)
        assert letter["source"] == broker.address
        assert re.fullmatch(r"[0-9a-f]{16}", letter["id"])
    assert f"message{'s' if ' 3 messages sent' in done.err else ''} sent to {topic}.dead: it is not JSON" in done.err


def test_drop_leaves_them_out_and_counts_them(shell: Shell, broker: Broker, topic: str) -> None:
    broker.fill(topic, MIXED)
    done = bridge(shell, broker, topic, "--on-error", "drop")
    assert done.status == 0, done.err
    assert counts(done) == {"routed": 15, "filtered": 5, "dropped": 3}
    assert " dropped: it is not JSON" in done.err
    assert broker.topic(f"{topic}.dead") is None
    assert broker.depth(topic, "q-bridge").held == 0


def test_pass_sends_them_on_as_they_are(shell: Shell, broker: Broker, topic: str) -> None:
    broker.fill(topic, MIXED)
    done = bridge(shell, broker, topic, "--on-error", "pass")
    assert done.status == 0, done.err
    assert counts(done) == {"routed": 18, "filtered": 5}
    assert sorted(broker.bodies(f"{topic}.out")) == sorted([*GOOD[5:], *BAD])


def test_pass_needs_somewhere_to_pass_to(shell: Shell, broker: Broker, topic: str) -> None:
    done = shell.run("q-bridge", topic, "--to", "x.\\(.n)", "--on-error", "pass", *broker.flags)
    assert done.status == 2
    assert "--on-error pass needs a topic that takes what cannot be routed, and --to is a template" in done.err


def test_fail_ends_it_and_gives_the_message_back(shell: Shell, broker: Broker, topic: str) -> None:
    broker.fill(topic, MIXED)
    done = bridge(shell, broker, topic, "--on-error", "fail")
    assert done.status == 1
    assert re.search(rf"^q-bridge: message [0-9a-f]{{16}} of {topic} cannot be routed: it is not JSON", done.err, re.M)
    told = counts(done)
    assert told["requeued"] >= 1
    held = broker.wait_held(topic, "q-bridge", len(MIXED) - told["routed"] - told.get("filtered", 0))
    assert held.held >= 1
    assert len(broker.bodies(f"{topic}.out")) == told["routed"]


def test_one_that_came_too_often(shell: Shell, broker: Broker, topic: str) -> None:
    broker.create(topic, "q-bridge")
    broker.fill(topic, GOOD[5:7])
    reader = broker.reader(topic, "q-bridge")
    deliver_again(reader, 3)
    broker.wait_clients(topic, "q-bridge", 0)
    broker.fill(topic, GOOD[7:8])
    done = bridge(shell, broker, topic, "--max-attempts", "3")
    assert done.status == 0, done.err
    assert counts(done) == {"routed": 1, "dead-lettered": 2}
    letters = [json.loads(letter) for letter in broker.bodies(f"{topic}.dead")]
    assert {letter["reason"] for letter in letters} == {"it was delivered 4 times, more than --max-attempts 3"}
    assert {letter["attempts"] for letter in letters} == {4}


def test_without_a_limit_it_comes_as_often_as_it_must(shell: Shell, broker: Broker, topic: str) -> None:
    broker.create(topic, "q-bridge")
    broker.fill(topic, GOOD[5:6])
    reader = broker.reader(topic, "q-bridge")
    deliver_again(reader, 12)
    assert counts(bridge(shell, broker, topic)) == {"routed": 1}


def test_a_name_that_no_topic_can_have(shell: Shell, broker: Broker, topic: str) -> None:
    broker.fill(topic, [b'{"n":"a"}', b'{"n":"b c"}', b'{"n":"d"}'])
    words = ["--to", f"{topic}.\\(.n)", "--until-empty", *broker.flags]
    done = shell.run("q-bridge", topic, *words)
    assert counts(done) == {"routed": 2, "dead-lettered": 1}
    (letter,) = broker.bodies(f"{topic}.dead")
    assert "b c' has ' '" in json.loads(letter)["reason"]


def test_one_over_the_destinations_limit(shell: Shell, make_broker: MakeBroker, topic: str) -> None:
    here, there = make_broker(), make_broker("--max-msg-size=1000")
    here.fill(topic, [b"a", b"x" * 1001, b"b"])
    done = shell.run("q-bridge", topic, "--to", topic, "--to-nsqd", there.address, "--until-empty", *here.flags)
    assert counts(done) == {"routed": 2, "dead-lettered": 1}
    assert there.bodies(topic) == [b"a", b"b"]
    (letter,) = here.bodies(f"{topic}.dead")
    assert json.loads(letter)["body"] == "x" * 1001
    assert "1001 bytes" in json.loads(letter)["reason"]


def test_one_that_not_even_a_dead_letter_holds_waits_and_stops_nobody(
    shell: Shell, make_broker: MakeBroker, topic: str
) -> None:
    here = make_broker("--max-msg-size=1000")
    here.fill(topic, [b"x" * 999, *GOOD])
    words = ["--to", f"{topic}.out", "--where", ".n >= 5", *here.flags]
    running = shell.start("q-bridge", topic, *words)
    wait_until(lambda: here.published(f"{topic}.out") == 15)
    wait_until(lambda: here.depth(topic, "q-bridge").deferred == 1)
    running.wait_err("given back for a while, as not even a dead letter can hold them: it is not JSON")
    running.signal(15)
    done = running.wait()
    assert done.status == 0
    assert counts(done) == {"routed": 15, "filtered": 5, "requeued": 1}
    assert here.depth(topic, "q-bridge").held == 1


@pytest.mark.parametrize("number", [1, 300])
def test_however_many_there_are_stderr_is_not_flooded(shell: Shell, broker: Broker, topic: str, number: int) -> None:
    broker.fill(topic, [b"x"] * number)
    done = bridge(shell, broker, topic)
    assert counts(done) == {"routed": 0, "dead-lettered": number}
    assert len(done.err_lines) <= 3
    assert len(broker.bodies(f"{topic}.dead")) == number


def test_dead_letters_of_another_name(shell: Shell, broker: Broker, topic: str) -> None:
    broker.fill(topic, [b"x"])
    bridge(shell, broker, topic, "--dead-letter-topic", f"{topic}.lost")
    assert len(broker.bodies(f"{topic}.lost")) == 1


def test_a_name_too_long_for_dead_letters_is_said_at_the_start(shell: Shell, broker: Broker) -> None:
    long = "x" * 60
    done = shell.run("q-bridge", long, "--to", "y", *broker.flags)
    assert done.status == 2
    assert "has 65 characters, at most 64 are allowed (--dead-letter-topic names another)" in done.err
    assert broker.topic(long) is None


def test_several_reasons_are_counted_one_by_one(shell: Shell, broker: Broker, topic: str) -> None:
    broker.fill(
        topic, [b"not json", b'{"n":{}}', b"not json", b'{"n":[]}', b'{"n":true}', b'{"n":{"a":"b"}}', b'{"n":1}']
    )
    done = shell.run("q-bridge", topic, "--to", f"{topic}.out", "--where", ".n + 1 > 1", "--until-empty", *broker.flags)
    assert done.status == 0
    (line,) = [line for line in done.err_lines if " sent to " in line]
    start = f"q-bridge: 6 messages sent to {topic}.dead: it is not JSON ("
    assert line.startswith(start), line
    assert re.search(r"\) \(2\), object .* \(1\), array .* \(1\), other reasons \(2\)$", line), line


def test_all_that_fail_are_counted_as_read_and_requeued(shell: Shell, broker: Broker, topic: str) -> None:
    broker.fill(topic, [b"not json"] * 1500)
    words = ["--to", f"{topic}.out", "--where", ".n > 1", "--until-empty"]
    done = shell.run("q-bridge", topic, *words, *broker.flags)
    assert done.status == 1
    found = counts(done)
    assert found["requeued"] >= 1000
    assert "on the first one: it is not JSON" in done.err
    assert "Stopping: they are requeued. Give --on-error to go on regardless" in done.err
    broker.wait_held(topic, "q-bridge", 1500)
