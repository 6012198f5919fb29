"""Keys, headers and tombstones on a real Kafka: through envelopes and back, and in expressions."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness.brokers import Broker
from harness.shell import Shell

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

Kept = tuple[bytes | None, bytes | None, list[tuple[str, bytes | None]]]
MESSAGES: list[Kept] = [
    (b"k1", b"text", [("a", b"1"), ("a", b"2")]),
    (b"\xff\x00\xfe", b"\xff binary \x00", [("type", b"\xfe"), ("none", None)]),
    (b"deleted", None, [("type", b"gone")]),
    (None, b"", []),
    ("schlüssel".encode(), b'{"n":1}', [("type", b"json")]),
]


def produce(kafka: str, topic: str, messages: list[Kept]) -> None:
    from confluent_kafka import Producer
    from confluent_kafka.admin import AdminClient, NewTopic

    admin: Any = AdminClient({"bootstrap.servers": kafka})
    admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(30)
    producer: Any = Producer({"bootstrap.servers": kafka})
    for key, body, headers in messages:
        producer.produce(topic, body, key, 0, headers=headers)
    assert producer.flush(30) == 0


def consume(kafka: str, topic: str, count: int) -> list[Kept]:
    """The first messages of partition 0."""
    from confluent_kafka import Consumer, TopicPartition

    consumer: Any = Consumer({"bootstrap.servers": kafka, "group.id": "check", "enable.auto.commit": False})
    consumer.assign([TopicPartition(topic, 0, 0)])
    found = consumer.consume(count, timeout=30)
    consumer.close()
    return [(each.key(), each.value(), each.headers() or []) for each in found]


@pytest.fixture
def url(kafka: str) -> str:
    return f"kafka://{kafka}"


@pytest.mark.parametrize("form", ["envelope", "msgpack"])
def test_tail_and_pipe_keep_key_headers_and_body(
    shell: Shell, kafka: str, url: str, topic: str, form: str, tmp_path: Path
) -> None:
    produce(kafka, topic, MESSAGES)
    printed = shell.run("q-tail", f"{url}/{topic}/own", "--format", form, "--until-empty", "-q", timeout=60)
    assert printed.status == 0, printed.err
    path = tmp_path / "messages"
    path.write_bytes(printed.out)
    done = shell.run("q-pipe", f"{url}/{topic}.copy", path, "--format", form, "--create-topics", "partitions=1")
    assert done.status == 0, done.err
    assert consume(kafka, f"{topic}.copy", len(MESSAGES)) == MESSAGES


def test_expressions_see_key_headers_and_place(shell: Shell, kafka: str, url: str, topic: str) -> None:
    produce(kafka, topic, MESSAGES)
    select = "{key: $key, type: $headers.type, topic: $topic, at: [$partition, $offset], again: ($attempts > 1)}"
    done = shell.run("q-tail", f"{url}/{topic}/own", "--select", select, "--until-empty", "-q", timeout=60)
    assert [json.loads(line) for line in done.lines] == [
        {"key": key, "type": kind, "topic": topic, "at": [0, offset], "again": False}
        for offset, (key, kind) in enumerate(
            [("k1", None), ({"base64": "/wD+"}, {"base64": "/g=="}), ("deleted", "gone"), (None, None),
             ("schlüssel", "json")]
        )
    ]  # fmt: skip
    done = shell.run(
        "q-bridge", f"{url}/{topic}/router", "--to", f"{url}/{topic}.\\($headers.type)", "--until-empty",
        "--where", '$headers.type and $offset > 1', "--key", '"\\($key)/\\($offset)"',
        "--create-topics", "partitions=1",
    )  # fmt: skip
    assert done.status == 0, done.err
    assert consume(kafka, f"{topic}.gone", 1) == [(b"deleted/2", None, [("type", b"gone")])]
    assert consume(kafka, f"{topic}.json", 1) == [("schlüssel/4".encode(), b'{"n":1}', [("type", b"json")])]


def test_envelopes_of_kafka_to_nsq_lose_keys_with_one_warning(
    shell: Shell, kafka: str, url: str, topic: str, make_broker: Callable[..., Broker]
) -> None:
    produce(kafka, topic, MESSAGES)
    printed = shell.run("q-tail", f"{url}/{topic}/own", "--format", "envelope", "--until-empty", "-q", timeout=60)
    nsq = f"nsq://{make_broker().address}"
    done = shell.run("q-pipe", f"{nsq}/copy", "--format", "envelope", input=printed.out)
    assert done.status == 0
    assert done.err.count("NSQ has no keys and no headers: those of the envelopes are left out") == 1
    assert "2 empty messages skipped" in done.err
