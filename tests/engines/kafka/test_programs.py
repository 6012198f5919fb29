"""The programs on a real Kafka, as a user runs them: between engines, over crashes, with numbered messages."""

from __future__ import annotations

import asyncio
import json
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from harness.brokers import Broker
from harness.kafka import KafkaNode
from harness.shell import Shell
from harness.waiting import wait_until

from qtools.engines.kafka.engine import KafkaEngine
from qtools.engines.kafka.settings import KafkaSettings

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
COUNT = 20_000
Make = Callable[..., list[KafkaNode]]


def numbered(count: int, start: int = 0) -> bytes:
    return b"".join(b'{"n":%d,"user":"u%d"}\n' % (number, number % 17) for number in range(start, start + count))


def numbers(lines: list[bytes]) -> Counter[int]:
    return Counter(json.loads(line)["n"] for line in lines)


def drained(shell: Shell, url: str, topic: str, channel: str = "own") -> list[bytes]:
    done = shell.run("q-tail", f"{url}/{topic}/{channel}", "--until-empty", "-q", timeout=120)
    assert done.status == 0, done.err
    return done.lines


@pytest.fixture
def url(kafka: str) -> str:
    return f"kafka://{kafka}"


def fill(shell: Shell, url: str, topic: str, data: bytes, *flags: str) -> None:
    done = shell.run("q-pipe", topic, "-b", url, "--create-topics", "partitions=3", "-q", *flags, input=data)
    assert done.status == 0, done.err


def test_there_and_back_between_engines(shell: Shell, url: str, topic: str, make_broker: Callable[..., Broker]) -> None:
    broker = make_broker()
    nsq = f"nsq://{broker.address}"
    assert shell.run("q-pipe", "events", "-b", nsq, input=numbered(COUNT)).status == 0
    there = [
        "q-bridge",
        f"{nsq}/events/router",
        "--to",
        f"{url}/{topic}",
        "--key",
        ".user",
        "--create-topics",
        "default",
    ]
    done = shell.run(*there, "--until-empty")
    assert done.status == 0, done.err
    done = shell.run("q-bridge", f"{url}/{topic}/back", "--to", f"{nsq}/returned", "--until-empty")
    assert done.status == 0, done.err
    done = shell.run("q-tail", f"{nsq}/returned/own", "--until-empty", "-q")
    assert sorted(done.lines) == sorted(numbered(COUNT).splitlines())


def test_a_bridge_from_a_cluster_to_itself_is_refused(shell: Shell, url: str, topic: str) -> None:
    fill(shell, url, topic, numbered(3))
    done = shell.run("q-bridge", f"{url}/{topic}/own", "--to", f"{url.replace('127.0.0.1', 'localhost')}/{topic}")
    assert done.status == 2
    assert topic in done.err


@pytest.mark.parametrize("what", ["kill", "freeze"])
def test_a_server_that_goes_and_comes_back(shell: Shell, make_kafka: Make, what: str, tmp_path: Path) -> None:
    """Under q-pipe and q-tail at once: all that was confirmed arrives, nothing else fails."""
    (node,) = make_kafka()
    fill(shell, node.url, "events", numbered(10))
    (tmp_path / "lines").write_bytes(numbered(COUNT, 10))
    flags = ["--rate", "4000", "--batch-count", "200"]
    sender = shell.start("q-pipe", "events", tmp_path / "lines", "-b", node.url, *flags)
    reader = shell.start("q-tail", f"{node.url}/events/own", "-q")
    for _ in range(2):
        seen = reader.out.count(b"\n")
        wait_until(lambda: reader.out.count(b"\n") > seen + 2000, 60)  # noqa: B023 - called at once
        if what == "kill":
            node.kill()
            node.start()
        else:
            node.freeze()
            with pytest.raises(AssertionError):  # nothing arrives meanwhile
                wait_until(lambda: False, 8)
            node.thaw()
    done = sender.wait(180)
    assert done.status == 0, done.err
    wait_until(lambda: set(numbers(reader.out.splitlines())) == set(range(COUNT + 10)), 120, lambda: reader.err)
    reader.signal(signal.SIGTERM)
    reader.wait()


def test_an_exact_count_and_the_rest(shell: Shell, url: str, topic: str) -> None:
    fill(shell, url, topic, numbered(1000))
    first = shell.run("q-tail", f"{url}/{topic}/own", "-n", "137", "-q").lines
    assert len(first) == 137
    assert numbers(first + drained(shell, url, topic)) == Counter(range(1000))


def test_order_of_a_key(shell: Shell, url: str, topic: str) -> None:
    fill(shell, url, topic, numbered(COUNT), "--key", ".user", "--batch-count", "100")
    last: dict[str, int] = {}
    for line in drained(shell, url, topic):
        value = json.loads(line)
        assert value["n"] > last.get(value["user"], -1)
        last[value["user"]] = value["n"]
    assert len(last) == 17


def test_a_poison_message_waits_and_then_is_a_dead_letter(shell: Shell, url: str, topic: str) -> None:
    fill(shell, url, topic, b'{"n":0}\nnot JSON\n{"n":2}\n')
    words = ["q-bridge", f"{url}/{topic}/own", "--to", "copy", "--where", ".n >= 0", "--create-topics", "default"]
    done = shell.run(*words, "--until-empty")
    assert done.status == 0, done.err
    (letter,) = drained(shell, url, f"{topic}.dead")
    assert json.loads(letter)["body"] == "not JSON"


def test_an_archive(shell: Shell, url: str, topic: str, tmp_path: Path) -> None:
    fill(shell, url, topic, numbered(COUNT))
    done = shell.run("q-to-file", f"{url}/{topic}", "-o", str(tmp_path), "--gzip", "--until-empty")
    assert done.status == 0, done.err
    done = shell.run("q-to-file", "verify", str(tmp_path))
    assert done.status == 0, done.err + done.out.decode()
    done = shell.run("q-to-file", "replay", str(tmp_path), f"{url}/{topic}.again", "--create-topics", "default")
    assert done.status == 0, done.err
    assert numbers(drained(shell, url, f"{topic}.again")) == Counter(range(COUNT))


def test_two_bridges_share_a_group(shell: Shell, url: str, topic: str) -> None:
    """The second one takes partitions of the first, which has messages of them in flight."""
    fill(shell, url, topic, numbered(COUNT))
    words = ["q-bridge", f"{url}/{topic}/own", "--to", f"{url}/{topic}.copy", "--create-topics", "default"]
    first = shell.start(*words, "--rate", "3000", "--max-in-flight", "2000", "-q")
    wait_until(lambda: lag(url, topic) < COUNT, 60, lambda: first.err)
    second = shell.start(*words, "-q", "--until-empty")
    done = second.wait(120)
    assert done.status == 0, done.err
    first.signal(signal.SIGTERM)
    assert first.wait().status == 0
    found = numbers(drained(shell, url, f"{topic}.copy"))
    assert set(found) == set(range(COUNT))
    assert found.total() - COUNT <= 2000  # what the first had in flight


def lag(url: str, topic: str) -> int:
    """What the group has not committed."""
    engine = KafkaEngine(KafkaSettings((url.removeprefix("kafka://"),)))
    rows = {row["topic"]: row["channels"] for row in asyncio.run(engine.statistics().topics())}
    return sum(int(each["depth"]) for each in rows[topic]) if rows.get(topic) else COUNT


MISSING = "topic missing: there is no such topic on the cluster"
BAD: list[tuple[list[str], int, str]] = [
    (["q-tail", "{url}/missing/own"], 3, "topic missing: there is no such topic on the cluster"),
    (["q-pipe", "missing", "-b", "{url}"], 3, f"{MISSING}: create it, or use --create-topics default"),
    (["q-bridge", "{queue}/a", "--to", "{url}/missing"], 3, f"{MISSING}: create it, or use --create-topics default"),
    (["q-tail", "kafka://127.0.0.1:1/a/b"], 3, "127.0.0.1:1: connection refused"),
    (["q-tail", "{tls}/a/b"], 3, "it does not speak TLS: use kafka:// instead of kafkas://"),
    (["q-tail", "{http}/a/b"], 3, "it answers HTTP, and does not speak Kafka's protocol"),
    (["q-tail", "{nsq}/a/b"], 3, "it speaks NSQ's protocol, and not Kafka's: use nsq://127.0.0.1:"),
    (["q-tail", "{other}/a/b"], 3, "it speaks Kafka's protocol, and not NSQ's: use kafka://127.0.0.1:"),
    (["q-pipe", "a", "-b", "{other}"], 3, "it speaks Kafka's protocol, and not NSQ's: use kafka://127.0.0.1:"),
    (["q-tail", "{lookup}/a/b"], 3, "it speaks Kafka's protocol, and not HTTP's: use kafka://127.0.0.1:"),
    (["q-pipe", "a", "-b", "{url}", "--defer", "1s"], 2, "--defer: Kafka cannot hold messages back"),
    (["q-pipe", "a", "-b", "{url}", "--engine-option", "no.such=1"], 2, "no such configuration property"),
    (["q-tail", "{url}/a/b", "--until-empty", "--fail-if-paused"], 2, "--fail-if-paused: Kafka has no pause"),
]


@pytest.mark.parametrize(("words", "status", "text"), BAD, ids=lambda each: each[0] if isinstance(each, list) else None)
def test_what_is_wrong_is_one_line(
    shell: Shell, url: str, words: list[str], status: int, text: str, make_broker: Callable[..., Broker]
) -> None:
    broker = make_broker()
    places = {
        "url": url, "tls": url.replace("kafka:", "kafkas:"), "http": f"kafka://{broker.http}",
        "nsq": f"kafka://{broker.address}", "queue": f"nsq://{broker.address}",
        "other": url.replace("kafka:", "nsq:"), "lookup": url.replace("kafka:", "nsq+lookupd:"),
    }  # fmt: skip
    done = shell.run(*(word.format(**places) for word in words), input=b"x\n", timeout=60)
    assert done.status == status, done.err
    assert text.lower() in done.err_lines[0].lower()
    assert "Traceback" not in done.err
    assert len(done.err_lines) <= 2


def test_a_group_whose_members_share_partitions_in_another_way(shell: Shell, url: str, kafka: str, topic: str) -> None:
    from confluent_kafka import Consumer

    fill(shell, url, topic, numbered(3))
    settings = {"bootstrap.servers": kafka, "group.id": "theirs", "partition.assignment.strategy": "range"}
    other = Consumer(settings | {"auto.offset.reset": "earliest"})
    other.subscribe([topic])
    try:
        assert other.poll(30) is not None  # it is a member now
        done = shell.run("q-tail", f"{url}/{topic}/theirs", "--until-empty", timeout=60)
    finally:
        other.close()
    assert done.status == 1
    assert "the consumer group has members of other programs" in done.err_lines[0]


def test_a_dead_letter_topic_that_is_missing_is_warned_of_at_the_start(shell: Shell, url: str, topic: str) -> None:
    fill(shell, url, topic, numbered(3))
    to = ["--to", f"{url}/{topic}.copy", "--until-empty"]
    fill(shell, url, f"{topic}.copy", b"{}\n")
    done = shell.run("q-bridge", f"{url}/{topic}/own", *to, timeout=60)
    assert done.status == 0
    assert done.err_lines[0] == (
        f"q-bridge: a message that cannot be delivered would go to the topic {topic}.dead, which does not exist,"
        " so that the run would end: create it, or use --create-topics default"
    )
    for more in (["--on-error", "drop"], ["--create-topics", "default"]):
        assert "would go to" not in shell.run("q-bridge", f"{url}/{topic}/own", *to, *more, timeout=60).err
