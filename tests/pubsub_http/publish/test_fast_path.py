"""The plainest /pub is answered on the fast path with the answers that the application gives."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import MakeBroker
from harness.brokers import Broker

from tests.pubsub_http.api.test_access import GOOD, OTHER, SECRET, bearer, token_file
from tests.pubsub_http.conftest import MakeGateway

EVIL = "https://evil.example"


def both_ways(topic: str) -> tuple[str, str]:
    """Of one topic: the second is written so that it goes the long way."""
    return f"/pub?topic={topic}", f"/pub?topic=%{ord(topic[0]):02x}{topic[1:]}"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (bearer(SECRET), 200),
        ({}, 401),
        (bearer("wrong-token-altogether"), 401),
        (bearer(OTHER), 403),
        (bearer(SECRET) | {"origin": EVIL}, 403),
        (bearer(SECRET) | {"origin": "https://good.example"}, 200),
        (bearer(SECRET) | {"sec-fetch-site": "cross-site"}, 403),
    ],
)
def test_who_may_and_who_may_not(
    make_gateway: MakeGateway, broker: Broker, tmp_path: Path, topic: str, headers: dict[str, str], status: int
) -> None:
    flags = ("--token-file", token_file(tmp_path, GOOD), "--allow-origin", "https://good.example")
    gateway = make_gateway(broker, *flags)
    answers = [gateway.client.post(path, content=b"x", headers=headers) for path in both_ways(f"orders.{topic}")]
    assert [answer.status_code for answer in answers] == [status, status]
    told = [{name: value for name, value in answer.headers.items() if name != "date"} for answer in answers]
    assert told[0] == told[1]
    assert answers[0].content == answers[1].content
    numbers = gateway.client.get("/topics", headers=bearer(SECRET))
    assert numbers.status_code == 200
    if status == 200:
        assert broker.bodies(f"orders.{topic}") == [b"x", b"x"]


def test_hosts(make_gateway: MakeGateway, broker: Broker, topic: str) -> None:
    gateway = make_gateway(broker)
    for path in both_ways(topic):
        answer = gateway.client.post(path, content=b"x", headers={"host": "evil.example"})
        assert (answer.status_code, answer.json()["message"]) == (403, "HOST_NOT_ALLOWED")


def test_rates(make_gateway: MakeGateway, broker: Broker, topic: str) -> None:
    for path in both_ways(topic):
        gateway = make_gateway(broker, "--rate", "3")
        answers = [gateway.client.post(path, content=b"x") for _ in range(8)]
        refused = [answer for answer in answers if answer.status_code == 429]
        assert 3 <= len(refused) < 8
        assert refused[0].json()["message"] == "TOO_MANY_REQUESTS"
        assert refused[0].headers["retry-after"] == "1"


def test_a_broker_that_is_away(make_gateway: MakeGateway, make_broker: MakeBroker, topic: str) -> None:
    broker = make_broker()
    gateway = make_gateway(broker, "--publish-timeout", "500ms")
    broker.stop()
    for path in both_ways(topic):
        answer = gateway.client.post(path, content=b"x")
        assert (answer.status_code, answer.json()["message"]) == (503, "BROKER_UNAVAILABLE")
        assert answer.headers["retry-after"] == "1"


def test_what_is_too_large_or_empty(make_gateway: MakeGateway, broker: Broker, topic: str) -> None:
    gateway = make_gateway(broker, "--max-msg-size", "100")
    for body, status, word in ((b"x" * 101, 413, "MSG_TOO_BIG"), (b"", 400, "MSG_EMPTY")):
        for path in both_ways(topic):
            answer = gateway.client.post(path, content=body)
            assert (answer.status_code, answer.json()["message"]) == (status, word)
