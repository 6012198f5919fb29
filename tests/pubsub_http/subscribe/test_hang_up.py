"""ack=auto and subscribers that hang up at any moment: what was not sent to them is not finished.

The slow tests make 100,000 hang-ups together, over all four ways to subscribe.
"""

from __future__ import annotations

import pytest
from harness.brokers import Broker
from harness.gateway import Bare
from harness.waiting import wait_until

from tests.conftest import MakeBroker
from tests.pubsub_http.conftest import MakeGateway
from tests.pubsub_http.hang_ups import KINDS, HangUps, Result

WORKERS = [pytest.param((), id="alone"), pytest.param(("--workers", "2"), id="workers")]


def check(result: Result, count: int) -> None:
    print(result)
    assert result.lost == []
    assert sum(result.hang_ups.values()) >= count
    assert set(result.hang_ups) == set(KINDS)
    assert result.received > count // 4  # else nothing was at stake


@pytest.mark.parametrize("flags", WORKERS)
def test_some_hundred_hang_ups(make_gateway: MakeGateway, broker: Broker, topic: str, flags: tuple[str, ...]) -> None:
    gateway = make_gateway(broker, *flags)
    check(HangUps(gateway.port, broker, topic, 400, 1).run(), 400)


def test_hang_ups_while_the_broker_restarts(make_gateway: MakeGateway, make_broker: MakeBroker, topic: str) -> None:
    broker = make_broker()
    gateway = make_gateway(broker)
    check(HangUps(gateway.port, broker, topic, 400, 1, restarts=2).run(), 400)


def test_a_stream_with_a_request_behind_it_ends_with_its_client(
    make_gateway: MakeGateway, broker: Broker, topic: str
) -> None:
    gateway = make_gateway(broker, "--heartbeat", "1s")
    broker.create(topic, "me")
    client = Bare(gateway.port)
    client.get(f"/sub?topic={topic}&channel=me")
    client.read_until(b"\r\n\r\n")
    client.get("/ping")
    broker.wait_clients(topic, "me")
    client.close()
    wait_until(lambda: broker.depth(topic, "me").clients == 0)
    broker.fill(topic, [b"for somebody else"])
    assert broker.bodies(topic, "me") == [b"for somebody else"]


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("restarts", [0, 20], ids=["steady", "restarts"])
@pytest.mark.parametrize("flags", WORKERS)
def test_twenty_five_thousand_hang_ups(
    make_gateway: MakeGateway, make_broker: MakeBroker, topic: str, flags: tuple[str, ...], restarts: int
) -> None:
    broker = make_broker()
    gateway = make_gateway(broker, *flags)
    check(HangUps(gateway.port, broker, topic, 25_000, 7, restarts=restarts).run(), 25_000)
