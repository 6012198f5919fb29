"""q-pubsub-http before a real Kafka: keys, headers, empty messages and tombstones, in and out; counts for the page."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from harness.shell import Shell
from harness.waiting import wait_until

from tests.engines.kafka.test_envelopes import MESSAGES, Kept, consume, produce

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def client(shell: Shell, kafka: str, topic: str) -> Iterator[httpx.Client]:
    """A client of a gateway before Kafka. The topic with `.copy` behind its name exists: a gateway looks only once a
    second for topics that were created later."""
    produce(kafka, f"{topic}.copy", [])
    running = shell.start("q-pubsub-http", "--http-address", "127.0.0.1:0", "--broker", f"kafka://{kafka}")
    wait_until(lambda: "serving http" in running.err or not running.is_running, what=lambda: running.err)
    found = re.search(r"serving (http://\S+)", running.err)
    assert found, running.err
    with httpx.Client(base_url=found[1], timeout=60, trust_env=False) as made:
        yield made
    running.reap()


@pytest.mark.parametrize("as_it_comes", [False, True])
@pytest.mark.parametrize("form", ["envelope", "msgpack"])
def test_sub_and_mpub_keep_key_headers_and_body(
    client: httpx.Client, kafka: str, topic: str, form: str, as_it_comes: bool
) -> None:
    produce(kafka, topic, MESSAGES)
    query = {"topic": topic, "channel": f"{topic}.own", "format": form, "until_empty": "true"}
    written = client.get("/sub", params=query).content
    body: Any = (written[place : place + 7] for place in range(0, len(written), 7)) if as_it_comes else written
    answer = client.post("/mpub", params={"topic": f"{topic}.copy", "format": form}, content=body)
    assert (answer.status_code, answer.headers["q-published"]) == (200, str(len(MESSAGES)))
    assert consume(kafka, f"{topic}.copy", len(MESSAGES)) == MESSAGES


def test_pub_sets_key_and_headers_and_takes_empty_messages(client: httpx.Client, kafka: str, topic: str) -> None:
    expected: list[Kept] = [
        (None, b"plain", []),
        (None, b"", []),
        ("ключ".encode(), b"keyed", [("a", b"1"), ("a", b"x:y")]),
        (b"\xff", b"binary", []),
        (b"gone", None, [("why", b"")]),
    ]
    for query, body in (
        ("", b"plain"),
        ("", b""),
        ("&key=%D0%BA%D0%BB%D1%8E%D1%87&header=a:1&header=a:x:y", b"keyed"),
        ("&key_base64=_w==", b"binary"),
        ("&key=gone&tombstone=true&header=why:", b""),
    ):
        answer = client.post(f"/pub?topic={topic}.copy{query}", content=body)
        assert answer.status_code == 200, answer.text
    assert consume(kafka, f"{topic}.copy", len(expected)) == expected


def test_message_gives_what_a_message_has(client: httpx.Client, kafka: str, topic: str) -> None:
    messages: list[Kept] = [(b"k1", b"", [("a", b"1"), ("a", None)]), (b"\xff", None, [])]
    produce(kafka, topic, messages)
    found = []
    for _ in messages:
        answer = client.get("/message", params={"topic": topic, "channel": f"{topic}.own", "wait": 30})
        assert (answer.status_code, answer.content) == (200, b"")
        names = ("q-key", "q-key-base64", "q-headers", "q-tombstone", "q-partition", "q-offset")
        found.append({name: answer.headers[name] for name in names if name in answer.headers})
    assert found == [
        {"q-key": "k1", "q-headers": '{"a":["1",null]}', "q-partition": "0", "q-offset": "0"},
        {"q-key-base64": "/w==", "q-tombstone": "true", "q-partition": "0", "q-offset": "1"},
    ]


def test_a_topic_has_messages_and_each_group_a_lag(client: httpx.Client, kafka: str, topic: str) -> None:
    produce(kafka, topic, [(None, b"%d" % number, []) for number in range(181)])
    groups = {f"{topic}.one": 181, f"{topic}.two": 81}
    for group, count in groups.items():
        query: dict[str, Any] = {"topic": topic, "channel": group, "format": "raw", "count": count}
        assert client.get("/sub", params=query | {"max_in_flight": 10}).text.count("\n") == count

    def row() -> dict[str, Any]:
        told = client.get("/topics").json()
        assert {"keys_and_headers", "retention", "empty_messages"} <= set(told["engine"]["capabilities"])
        return next(each for each in told["topics"] if each["topic"] == topic)

    def lags() -> dict[str, int]:
        return {each["channel"]: each["depth"] for each in row()["channels"]}

    wait_until(lambda: lags() == {f"{topic}.one": 0, f"{topic}.two": 100}, what=lambda: str(row()))
    assert row()["depth"] == 181
