"""q-bridge is killed with SIGKILL again and again while it moves numbered messages: none is missing, and twice come at
most those that were in flight at a kill.

In flight are the messages that the destination has and the source does not know to be finished. From NSQ these are at
most as many as max-in-flight allows. From Kafka they are twice as many: so many may be unfinished, and when so many are
finished and not committed a commit is sent, before its time; and what is finished while that commit is under way.

    Kafka → NSQ      no order is promised: NSQ has none
    NSQ → Kafka      no order is promised: NSQ delivers in any order
    Kafka → Kafka    messages of a key stay in order: the first copies of all of them, and the copies between two kills

QTOOLS_PROOF_MESSAGES and QTOOLS_PROOF_KILLS: other numbers, for trials.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from harness.brokers import Broker
from harness.kafka_client import KafkaClient
from harness.shell import Running, Shell
from harness.waiting import wait_until

MESSAGES = int(os.environ.get("QTOOLS_PROOF_MESSAGES", "1_000_000"))
KILLS = int(os.environ.get("QTOOLS_PROOF_KILLS", "20"))
RATE = 20_000  # messages/s
MAX_IN_FLIGHT = 2500
COMMIT_TIME = 0.5  # s that a commit may take on a loaded machine
OF_KAFKA = 2 * MAX_IN_FLIGHT + round(RATE * COMMIT_TIME)
KEYS = 17
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def body_of(number: int) -> bytes:
    return b"%d" % number


def key_of(number: int) -> bytes:
    return b"k%d" % (number % KEYS)


def kill_again_and_again(
    start: Callable[[], Running], arrived: Callable[[], int], finished: Callable[[], int], bound: int
) -> str:
    """Run the bridge, and kill it KILLS times after a share of the messages drawn at random; at no kill more than
    `bound` messages were in flight.

    arrived: messages in the destination. finished: messages that the source knows to be finished. Returns how many
    messages were in flight at each kill.
    """
    chance = random.Random(3)
    in_flight: list[int] = []
    excess = 0  # copies that arrived more often than once, up to the last kill
    for kills_left in range(KILLS, 0, -1):
        before, running = arrived(), start()
        goal = before + chance.randrange(1, (MESSAGES - before) // kills_left)
        wait_until(lambda: arrived() >= goal or not running.is_running, 180, lambda: running.err)  # noqa: B023
        running.signal(signal.SIGKILL)
        assert running.wait().status == -signal.SIGKILL
        unknown = arrived() - finished()
        in_flight.append(unknown - excess)
        excess = unknown
    assert max(in_flight) <= bound
    return f"in flight at the kills: {in_flight}, most {max(in_flight)}, total {sum(in_flight)}"


def count_copies(numbers: Iterable[int]) -> bytearray:
    copies = bytearray(MESSAGES)
    for number in numbers:
        copies[number] += 1
    return copies


def judge(copies: bytearray, bound: int, what: str) -> None:
    """None is missing, and no more came twice than `bound` for each kill."""
    missing, duplicates = copies.count(0), sum(copies) - MESSAGES
    print(
        f"{what}: {MESSAGES:,} messages, {KILLS} kills: missing {missing}, duplicates {duplicates:,},"
        f" at most {max(copies)} copies; bound {bound:,} a kill, {KILLS * bound:,} in all"
    )
    assert missing == 0
    assert 0 <= duplicates <= KILLS * bound


@pytest.fixture
def client(kafka: str) -> KafkaClient:
    return KafkaClient(kafka)


def numbers_in(broker: Broker, topic: str, shell: Shell) -> Iterable[int]:
    done = shell.run("q-tail", f"nsq://{broker.address}/{topic}/judge", "--until-empty", "-q", timeout=600)
    assert done.status == 0, done.err
    return map(int, done.lines)


def test_from_kafka_to_nsq(
    shell: Shell, kafka: str, client: KafkaClient, topic: str, make_broker: Callable[..., Broker]
) -> None:
    broker = make_broker()
    broker.create("copy", "judge")
    client.create(topic, 3)
    numbers = range(MESSAGES)
    client.fill(topic, list(map(body_of, numbers)), list(map(key_of, numbers)))
    words = [
        "q-bridge", f"kafka://{kafka}/{topic}/router?session.timeout.ms=6000", "--to", f"nsq://{broker.address}/copy",
        "--max-in-flight", str(MAX_IN_FLIGHT), "-q",
    ]  # fmt: skip

    def finished() -> int:
        return client.committed(topic, "router")

    begun = time.monotonic()
    report = kill_again_and_again(
        lambda: shell.start(*words, "--rate", str(RATE)), lambda: broker.published("copy"), finished, OF_KAFKA
    )
    done = shell.run(*words, "--until-empty", timeout=600)
    assert done.status == 0, done.err
    assert finished() == MESSAGES
    print(f"\nKafka → {broker.kind}: {time.monotonic() - begun:.0f} s; {report}")
    judge(count_copies(numbers_in(broker, "copy", shell)), OF_KAFKA, f"Kafka → {broker.kind}")


def test_from_nsq_to_kafka(
    shell: Shell, kafka: str, client: KafkaClient, topic: str, make_broker: Callable[..., Broker]
) -> None:
    broker = make_broker()
    broker.create("events", "router")
    broker.fill("events", list(map(body_of, range(MESSAGES))))
    client.create(topic, 3)
    words = [
        "q-bridge", f"nsq://{broker.address}/events/router", "--to", f"kafka://{kafka}/{topic}", "-q",
        "--max-in-flight", str(MAX_IN_FLIGHT), "--msg-timeout", "2s", "--key", ". % 17",
    ]  # fmt: skip

    def finished() -> int:
        return MESSAGES - broker.depth("events", "router").held

    begun = time.monotonic()
    report = kill_again_and_again(
        lambda: shell.start(*words, "--rate", str(RATE)), lambda: client.end(topic), finished, MAX_IN_FLIGHT
    )
    done = shell.run(*words, "--until-empty", timeout=600)
    assert done.status == 0, done.err
    print(f"\n{broker.kind} → Kafka: {time.monotonic() - begun:.0f} s; {report}")
    found = (int(record.value() or b"") for some in client.records(topic) for record in some)
    judge(count_copies(found), MAX_IN_FLIGHT, f"{broker.kind} → Kafka")


def test_from_kafka_to_kafka(shell: Shell, kafka: str, client: KafkaClient, topic: str, tmp_path: Path) -> None:
    client.create(topic, 3)
    client.create(f"{topic}.copy", 3)
    numbers = range(MESSAGES)
    client.fill(topic, list(map(body_of, numbers)), list(map(key_of, numbers)))
    words = [
        "q-bridge", f"kafka://{kafka}/{topic}/router?session.timeout.ms=6000", "--to", f"{topic}.copy", "-q",
        "--max-in-flight", str(MAX_IN_FLIGHT),
    ]  # fmt: skip

    begun = time.monotonic()
    report = kill_again_and_again(
        lambda: shell.start(*words, "--rate", str(RATE)),
        lambda: client.end(f"{topic}.copy"),
        lambda: client.committed(topic, "router"),
        OF_KAFKA,
    )
    done = shell.run(*words, "--until-empty", timeout=600)
    assert done.status == 0, done.err
    print(f"\nKafka → Kafka: {time.monotonic() - begun:.0f} s; {report}")
    copies = bytearray(MESSAGES)
    newest = [-1] * KEYS  # of each key, the highest number so far
    last = [-1] * KEYS  # of each key, the number before
    steps_back = 0
    for some in client.records(f"{topic}.copy"):
        for record in some:
            number = int(record.value() or b"")
            key = number % KEYS
            assert record.key() == key_of(number)
            copies[number] += 1
            if number > newest[key]:
                assert number == newest[key] + KEYS or newest[key] < 0  # no message of the key came out of turn
                newest[key] = number
            if number <= last[key]:
                steps_back += 1
            last[key] = number
    print(f"Kafka → Kafka: {steps_back} steps back in {KEYS} keys")
    assert steps_back <= KILLS * KEYS  # one for each key at each kill: between two kills the order holds
    judge(copies, OF_KAFKA, "Kafka → Kafka")
