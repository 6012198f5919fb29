"""GET /message: one at a time, for scripts."""

from __future__ import annotations

import time

from harness.brokers import Broker
from harness.gateway import Bare, Gateway


def test_one_with_what_is_known_of_it(gateway: Gateway, broker: Broker, topic: str) -> None:
    broker.fill(topic, [b"one\xff", b"two"])
    answer = gateway.get("/message", topic=topic, channel="me")
    assert (answer.status_code, answer.content, answer.headers["q-attempts"]) == (200, b"one\xff", "1")
    assert abs(int(answer.headers["q-timestamp"]) / 1e9 - time.time()) < 60
    assert len(answer.headers["q-message-id"]) == 16
    broker.wait_held(topic, "me", 1)


def test_none(gateway: Gateway, broker: Broker, topic: str) -> None:
    broker.create(topic, "me")
    answer = gateway.get("/message", topic=topic, channel="me")
    assert (answer.status_code, answer.content) == (204, b"")


def test_wait_for_one(gateway: Gateway, broker: Broker, topic: str) -> None:
    broker.create(topic, "me")
    client = Bare(gateway.port)
    client.get(f"/message?topic={topic}&channel=me&wait=20")
    broker.wait_clients(topic, "me")
    broker.fill(topic, [b"now"])
    assert client.read_until(b"\r\n\r\nnow").startswith(b"HTTP/1.1 200 OK\r\n")
    broker.wait_held(topic, "me", 0)
    client.close()


def test_who_goes_while_waiting_takes_nothing(gateway: Gateway, broker: Broker, topic: str) -> None:
    broker.create(topic, "me")
    client = Bare(gateway.port)
    client.get(f"/message?topic={topic}&channel=me&wait=20")
    broker.wait_clients(topic, "me")
    client.reset()
    broker.wait_clients(topic, "me", 0)
    broker.fill(topic, [b"a"])
    assert broker.bodies(topic, "me") == [b"a"]


def test_a_client_that_closes_after_it_has_read_has_taken_it(gateway: Gateway, broker: Broker, topic: str) -> None:
    """curl, and HTTP/1.0 clients, hang up at once."""
    broker.fill(topic, [b"a", b"b"])
    for body in (b"a", b"b"):
        client = Bare(gateway.port)
        client.get(f"/message?topic={topic}&channel=me", "Connection: close")
        assert client.read_all().endswith(body)
        client.close()
    broker.wait_held(topic, "me", 0)


def test_a_channel_is_needed(gateway: Gateway, topic: str) -> None:
    answer = gateway.get("/message", topic=topic)
    assert (answer.status_code, answer.json()["message"]) == (400, "MISSING_ARG_CHANNEL")
    assert answer.json()["detail"].startswith("the parameter channel is missing: ")
