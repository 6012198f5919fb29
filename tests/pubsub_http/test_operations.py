"""What is counted adds up, over all workers, and is told where it was asked for."""

from __future__ import annotations

import re

import httpx
import pytest
from conftest import MakeBroker
from harness.brokers import Broker
from harness.gateway import Gateway
from harness.waiting import wait_until
from prometheus_client.parser import text_string_to_metric_families

from qtools.pubsub_http.metrics import COUNTED
from tests.pubsub_http.conftest import MakeGateway


def where(gateway: Gateway) -> str:
    found = re.search(r"metrics at (http://\S+)/metrics", gateway.process.err)
    assert found is not None, gateway.process.err
    return found[1]


def scrape(gateway: Gateway) -> dict[str, float]:
    told = httpx.get(f"{where(gateway)}/metrics", timeout=10).text
    return {
        sample.name.removeprefix("qtools_pubsub_http_"): sample.value
        for family in text_string_to_metric_families(told)
        for sample in family.samples
        if sample.name.startswith("qtools_pubsub_http_")
    }


@pytest.mark.parametrize("workers", [1, 3])
def test_everything_is_counted_once(make_gateway: MakeGateway, broker: Broker, topic: str, workers: int) -> None:
    gateway = make_gateway(broker, "--workers", str(workers), "--metrics-address", "127.0.0.1:0")
    for _ in range(2):
        gateway.post("/mpub", b"a\nb\nc\n", {"idempotency-key": "k"}, topic=topic)
    gateway.post("/pub", b'{"n":1}', topic=topic)
    gateway.post("/pub", b"", topic=topic)
    assert (
        gateway.get("/sub", topic=topic, channel="me", where=".n == 1", count=1, format="raw").content == b'{"n":1}\n'
    )
    wait_until(lambda: broker.depth(topic, "me").held == 0)
    expected = {
        "published_total": 4, "published_bytes_total": 10, "repeated_total": 1, "requests_refused_total": 1,
        "delivered_total": 1, "delivered_bytes_total": 8, "filtered_total": 3, "finished_total": 1, "subscribers": 0,
        "brokers": workers, "requests_failed_total": 0,
    }  # fmt: skip
    found = wait_until(
        lambda: told if expected.items() <= (told := scrape(gateway)).items() else None,
        what=lambda: scrape(gateway),
    )
    assert set(found) == {name for name, _, _ in COUNTED}
    with gateway.stream(topic, "me", ack="client"), gateway.stream(topic):
        wait_until(lambda: (told := scrape(gateway))["subscribers"] == 2 and told["sessions"] == 1)
        assert scrape(gateway)["shared_topics"] == 1


def test_ready_while_a_broker_is_connected(make_gateway: MakeGateway, make_broker: MakeBroker) -> None:
    broker = make_broker()
    gateway = make_gateway(broker, "--metrics-address", "127.0.0.1:0")
    wait_until(lambda: httpx.get(f"{where(gateway)}/readyz").status_code == 200)
    broker.kill()
    wait_until(lambda: httpx.get(f"{where(gateway)}/readyz").status_code == 503)
    assert "no nsqd is connected" in httpx.get(f"{where(gateway)}/readyz").text
    assert httpx.get(f"{where(gateway)}/healthz").status_code == 200


def test_where_without_an_answer_is_said_and_counted(make_gateway: MakeGateway, broker: Broker, topic: str) -> None:
    gateway = make_gateway(broker, "--metrics-address", "127.0.0.1:0")
    deep = b"[" * 2000 + b"]" * 2000
    broker.fill(topic, [b'{"a":[]}', b"no JSON", b'{"a":5}', b'{"a":1}', deep])
    answer = gateway.get("/sub", topic=topic, channel="me", format="raw", where="(.a + 1) > 3", until_empty=1)
    assert answer.text == '{"a":5}\n'
    gateway.process.wait_err("array ([]) and number (1) cannot be added")
    assert gateway.process.err.count("has no answer for message") == 1
    told = scrape(gateway)
    assert (told["where_failed_total"], told["filtered_total"]) == (3, 4)
