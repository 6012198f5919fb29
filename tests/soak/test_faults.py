"""A test that cannot find a loss is worth nothing: faults that are made here are found, each by its name and number."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness.brokers import NSQD, Q_BROKER, Broker
from harness.proxy import Proxy
from harness.shell import Shell
from harness.waiting import wait_until

from qtools.soak.bodies import MAGIC
from tests.soak.mover import Fault, FaultyMover, Numbered
from tests.soak.runs import result_of, start_soak, url_of

Move = Callable[[str, str, Fault], FaultyMover]
COUNT = 3000


@pytest.fixture(scope="module")
def broker_kind() -> str:
    """What is found does not depend on the broker."""
    return Q_BROKER


@pytest.fixture(scope="module")
def broker(broker_kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    made = Broker(broker_kind, tmp_path_factory.mktemp("broker"))
    made.start()
    yield made
    made.close()


@pytest.fixture
def nsqd(tmp_path: Path) -> Iterator[Broker]:
    """One that has a million messages in memory before it writes to its disk."""
    made = Broker(NSQD, tmp_path / "nsqd", ["--mem-queue-size=1000000"])
    made.start()
    yield made
    made.close()


@pytest.fixture
def move(broker: Broker) -> Iterator[Move]:
    made: list[FaultyMover] = []

    def make(topic: str, to: str, fault: Fault) -> FaultyMover:
        made.append(FaultyMover(broker, topic, to, fault))
        return made[-1]

    yield make
    for each in made:
        each.close()


def all_of(messages: list[Numbered]) -> list[bytes]:
    return [body for _, body in messages]


def without_some(messages: list[Numbered]) -> list[bytes]:
    return [body for number, body in messages if number % 1000 != 7]


def some_twice(messages: list[Numbered]) -> list[bytes]:
    return [body for number, body in messages for _ in range(1 + (number % 1000 == 7))]


def some_changed(messages: list[Numbered]) -> list[bytes]:
    return [body[:-9] + b"\0" + body[-8:] if number % 1000 == 7 else body for number, body in messages]


def never_sent(messages: list[Numbered]) -> list[bytes]:
    """A number that is far above all, with its right checksum: only one who knows the format can make it."""
    from zlib import crc32

    made = []
    for number, body in messages:
        made.append(body)
        if number % 1000 == 7:
            other = body[:12] + (1 << 40).to_bytes(8, "big") + body[20:-4]
            made.append(other + crc32(other).to_bytes(4, "little"))
    return made


@pytest.mark.parametrize(
    ("fault", "counts", "words"),
    [
        (all_of, {}, []),
        (without_some, {"lost": 3}, ["3 messages lost"]),
        (some_twice, {"doubled": 3}, []),
        (some_changed, {"lost": 3, "corrupted": 3}, ["3 messages lost", "3 messages corrupted"]),
        (never_sent, {"never_sent": 3}, ["3 messages delivered and never sent"]),
    ],
)
def test_what_a_mover_does_wrong_is_found(
    shell: Shell, broker: Broker, topic: str, move: Move, fault: Fault, counts: dict[str, int], words: list[str]
) -> None:
    to = f"{topic}-to"
    move(topic, to, fault)
    done = start_soak(
        shell, url_of(broker, topic), "--to", url_of(broker, f"{to}/soak"), "--count", str(COUNT), "--settle", "1s"
    ).wait()
    result = result_of(done)
    found = {name: result[name] for name in ("lost", "doubled", "corrupted", "never_sent", "unconfirmed", "foreign")}
    assert found == dict.fromkeys(found, 0) | counts
    assert (result["sent"], result["confirmed"], result["faults"]) == (COUNT, COUNT, words)
    assert [run["first"] for run in result["lost_runs"]] == ([7, 1007, 2007] if "lost" in counts else [])
    assert done.status == (1 if words else 0)


@pytest.mark.parametrize(
    ("fault", "flag", "name"), [(some_twice, "--no-duplicates", "doubled"), (None, "--ordered", "out_of_order")]
)
def test_what_is_an_error_only_if_it_was_asked_for(
    shell: Shell, broker: Broker, topic: str, move: Move, fault: Fault | None, flag: str, name: str
) -> None:
    to = f"{topic}-to"
    held: list[bytes] = []  # the message 7, until the one of the same key after it has passed

    def late(messages: list[Numbered]) -> list[bytes]:
        passed = []
        for number, body in messages:
            if number == 7:
                held.append(body)
            else:
                passed.append(body)
            if number == 8:
                passed += held
        return passed

    move(topic, to, fault or late)
    words = ["--to", url_of(broker, f"{to}/soak"), "--count", str(COUNT), "--settle", "1s", "--keys", "1", flag]
    done = start_soak(shell, url_of(broker, topic), *words).wait()
    result = result_of(done)
    assert done.status == 1
    assert result[name] >= 1
    assert result["lost"] == 0


def test_bytes_that_change_on_the_way_are_found(
    shell: Shell, make_broker: Callable[..., Broker], make_proxy: Callable[[Broker], Proxy]
) -> None:
    """In a topic of the test's own, a message whose first bytes were changed is known to be corrupted too."""
    broker = make_broker()
    proxy = make_proxy(broker)
    seen = 0

    def tamper(data: bytes) -> bytes:
        nonlocal seen
        parts = data.split(MAGIC)
        joined = parts[0]
        for part in parts[1:]:
            seen += 1
            joined += (b"QSX1" if seen == 500 else MAGIC) + part
        return joined

    proxy.tamper = tamper
    words = ["--nsqd-http-address", broker.http, "--count", "2000", "--settle", "1s", "--nsqd", proxy.address]
    done = start_soak(shell, *words).wait()
    result = result_of(done)
    assert done.status == 1
    assert (result["corrupted"], result["lost"], result["read"]) == (1, 1, 1999)
    assert "was not removed from" in done.err
    assert len(broker.stats()) == 1


@pytest.mark.nsqd
def test_a_broker_that_keeps_messages_in_memory_and_is_killed(shell: Shell, nsqd: Broker, topic: str) -> None:
    broker = nsqd
    # The reader takes one message at a time, so that many wait in the broker.
    soak = start_soak(
        shell, url_of(broker, topic), "--duration", "60s", "--rate", "20000", "--max-in-flight", "1", "--settle", "1s"
    )
    wait_until(lambda: broker.published(topic) > 20_000, what="messages in the broker")
    broker.kill()
    soak.wait_err("trying again")
    broker.start()
    wait_until(lambda: broker.published(topic) > 1000, what="messages in the broker that was started again")
    soak.signal(15)
    done = soak.wait()
    result = result_of(done)
    assert done.status == 1
    assert result["lost"] > 1000
    assert result["lost_runs"][0]["sent_at"] <= result["lost_runs"][-1]["sent_at"]
    assert result["confirmed"] == result["read"] - result["unconfirmed_delivered"] + result["lost"]
