"""What strangers do to a port: the right status, bounded memory, and the next one is still answered."""

from __future__ import annotations

import contextlib
import random
import time

import httpx
import pytest
from harness.brokers import Broker
from harness.gateway import Bare, Gateway
from harness.waiting import wait_until

from tests.pubsub_http.conftest import MakeGateway

MIB = 1024 * 1024


def status_of(answer: bytes) -> int:
    assert answer.startswith(b"HTTP/1.1 "), answer[:100]
    return int(answer[9:12])


def said(port: int, data: bytes) -> bytes:
    """What is answered to `data`, until the other side hangs up."""
    client = Bare(port)
    with contextlib.suppress(ConnectionResetError, BrokenPipeError):  # it had enough
        client.say(data)
    answer = client.read_all()
    client.close()
    return answer


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GARBAGE\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 64, 400),  # TLS on a port without
        (b"GET /ping HTTP/1.1\r\nHost: localhost\r\n" + b"X-Long: " + b"x" * 200_000 + b"\r\n\r\n", 431),
        (b"GET /ping HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 100_000, 431),
        (b"GET /" + b"x" * 200_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 431),
        (b"POST /pub?topic=t HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST /pub?topic=t HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400),
        (b"POST /pub?topic=t HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
    ],
)
def test_what_is_no_request(gateway: Gateway, data: bytes, status: int) -> None:
    assert status_of(said(gateway.port, data)) == status
    assert gateway.get("/ping").text == "OK"


@pytest.mark.parametrize(
    "target",
    [
        "/../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/..%2f..%2fetc%2fpasswd",
        "//etc/passwd",
        "/page/../pubsub_http/api/asgi_app.py",
        "/%00",
    ],
)
def test_no_path_leads_out(gateway: Gateway, target: str) -> None:
    client = Bare(gateway.port)
    client.get(target, "Connection: close")
    assert status_of(client.read_all()) in (400, 404)
    client.close()


@pytest.mark.parametrize("method", ["DELETE", "PATCH", "PUT", "TRACE", "PROPFIND"])
def test_wrong_methods(gateway: Gateway, method: str) -> None:
    for path in ("/pub", "/sub", "/topics", "/"):
        answer = gateway.client.request(method, path)
        assert (answer.status_code, answer.json()["message"]) == (405, "METHOD_NOT_ALLOWED")
        assert answer.headers["allow"]


def test_no_get_changes_anything(gateway: Gateway, broker: Broker, topic: str) -> None:
    for path in ("/pub", "/mpub", "/finish", "/requeue", "/touch"):
        assert gateway.get(path, topic=topic).status_code == 405
    assert broker.topic(topic) is None


def garbage(gateway: Gateway, count: int) -> None:
    """Connections that say nonsense, and requests that begin well and go on badly."""
    draw = random.Random(11)
    starts = [
        b"", b"GET ", b"GET / HTTP/1.1\r\n", b"POST /mpub?topic=t HTTP/1.1\r\nHost: localhost\r\n",
        b"POST /pub?topic=t HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET /sub?topic=t HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n",
    ]  # fmt: skip
    assert gateway.post("/pub", b"warm", topic="warm").status_code == 200
    before = gateway.memory()
    for number in range(count):
        client = Bare(gateway.port)
        client.say(draw.choice(starts) + draw.randbytes(draw.randint(0, 300)))
        if number % 2:
            client.reset()
        else:
            client.close()
        if number % 1000 == 0:
            assert gateway.get("/ping").text == "OK"
    assert gateway.get("/ping").text == "OK"
    assert gateway.memory() - before < 20 * MIB
    assert "internal error" not in gateway.process.err


def test_garbage(make_gateway: MakeGateway, broker: Broker) -> None:
    garbage(make_gateway(broker), 500)


@pytest.mark.slow
def test_ten_thousand_requests_of_garbage(make_gateway: MakeGateway, broker: Broker) -> None:
    garbage(make_gateway(broker), 10_000)


def test_slow_ones_are_hung_up_on(make_gateway: MakeGateway, broker: Broker) -> None:
    """A head, and a body of known length, that come byte by byte; somebody who says nothing at all."""
    gateway = make_gateway(broker, "--request-timeout", "1s")
    head, body, silent = Bare(gateway.port), Bare(gateway.port), Bare(gateway.port)
    head.say(b"GET /")
    body.say(b"POST /pub?topic=t HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n")
    begun = time.monotonic()
    while time.monotonic() - begun < 10 and not (head.peek() and body.peek()):
        for client in (head, body):
            if not client.peek():
                client.say(b"x")
        time.sleep(0.1)
    assert status_of(head.read_all()) == status_of(body.read_all()) == 408
    assert silent.read_all()[:12] in (b"HTTP/1.1 408", b"")
    for client in (head, body, silent):
        client.close()
    assert gateway.get("/ping").text == "OK"


def test_an_idle_connection_is_closed_and_a_subscriber_is_not(
    make_gateway: MakeGateway, broker: Broker, topic: str
) -> None:
    gateway = make_gateway(broker, "--idle-timeout", "500ms", "--request-timeout", "500ms")
    broker.create(topic, "me")
    subscriber = Bare(gateway.port)
    subscriber.get(f"/sub?topic={topic}&channel=me&format=raw")
    subscriber.read_until(b"\r\n\r\n")
    idle = Bare(gateway.port)
    idle.get("/ping")
    assert idle.read_all().endswith(b"OK")  # and then it was closed
    endless = Bare(gateway.port)
    endless.say(
        b"POST /mpub?topic=%b HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n" % topic.encode()
    )
    assert status_of(endless.read_all()) == 408
    broker.fill(topic, [b"still there"])
    subscriber.read_until(b"still there\n")
    for client in (subscriber, idle, endless):
        client.close()


def test_more_connections_than_allowed(make_gateway: MakeGateway, broker: Broker) -> None:
    gateway = make_gateway(broker, "--max-connections", "3")
    clients = [Bare(gateway.port) for _ in range(3)]
    for client in clients:
        client.get("/ping")
        client.read_until(b"OK")
    answer = said(gateway.port, b"")
    assert status_of(answer) == 503
    assert b"\r\nretry-after: 1\r\n" in answer
    clients[0].close()
    wait_until(lambda: gateway.get("/ping").status_code == 200)
    for client in clients:
        client.close()


def test_a_body_that_is_too_long_is_refused_before_it_came(gateway: Gateway, topic: str) -> None:
    client = Bare(gateway.port)
    client.say(
        b"POST /pub?topic=%b HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\nx" % topic.encode()
    )
    assert status_of(client.read_until(b"MSG_TOO_BIG")) == 413
    client.close()


def test_a_body_of_unknown_length_is_refused_as_soon_as_it_is_too_long(gateway: Gateway, topic: str) -> None:
    client = Bare(gateway.port)
    head = f"POST /pub?topic={topic} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    client.say(head.encode() + b"110000\r\n" + b"x" * 0x110000 + b"\r\n")  # and no end
    assert status_of(client.read_until(b"MSG_TOO_BIG")) == 413
    client.close()


def test_bodies_that_are_refused_leave_nothing_behind(make_gateway: MakeGateway, broker: Broker, topic: str) -> None:
    gateway = make_gateway(broker)

    def refuse(count: int) -> None:
        for _ in range(count):
            with contextlib.suppress(httpx.HTTPError):  # it hangs up before all was sent
                answer = gateway.post("/pub", iter([b"x" * MIB, b"x" * MIB]), topic=topic)
                assert answer.json()["message"] == "MSG_TOO_BIG"

    refuse(5)
    before = gateway.memory()
    refuse(60)
    assert gateway.memory() - before < 30 * MIB
