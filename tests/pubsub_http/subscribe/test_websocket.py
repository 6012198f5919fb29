"""/sub as a WebSocket, by a real client: messages as frames, acknowledgements the other way."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlencode

import pytest
from harness.brokers import Broker
from harness.gateway import Bare, Gateway
from harness.waiting import pass_time, wait_until
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.pubsub_http.conftest import MakeGateway
from tests.pubsub_http.hang_ups import UPGRADE


@contextmanager
def opened(gateway: Gateway, topic: str, *, path: str = "/sub", **params: Any) -> Iterator[ClientConnection]:
    options = params.pop("options", {})
    url = f"{gateway.url.replace('http', 'ws')}{path}?{urlencode({'topic': topic, **params})}"
    with connect(url, compression=None, proxy=None, **options) as socket:
        yield socket


def told(socket: ClientConnection) -> dict[str, Any]:
    message: dict[str, Any] = json.loads(socket.recv(10))
    return message


def test_a_text_frame_for_each_message(gateway: Gateway, broker: Broker, topic: str) -> None:
    broker.fill(topic, [b"a", b"b\n"])
    with opened(gateway, topic, channel="me", count=2) as socket:
        assert [told(socket)["body"], told(socket)["body"]] == ["a", "b\n"]
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(10)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1000
    broker.wait_held(topic, "me", 0)


def test_raw_is_binary(gateway: Gateway, broker: Broker, topic: str) -> None:
    broker.fill(topic, [b"\x00\xff", b"text"])
    with opened(gateway, topic, channel="me", format="raw") as socket:
        assert [socket.recv(10), socket.recv(10)] == [b"\x00\xff", b"text"]


def test_acknowledgements_over_the_same_socket(gateway: Gateway, broker: Broker, topic: str) -> None:
    broker.fill(topic, [b"%d" % number for number in range(4)])
    with opened(gateway, topic, channel="me", ack="client") as socket:
        ids = {(message := told(socket))["body"]: message["id"] for _ in range(4)}
        socket.send(json.dumps({"finish": [ids["0"], "unknown"]}))
        assert told(socket) == {"finish": 1, "unknown": ["unknown"]}
        socket.send(json.dumps({"touch": [ids["1"]]}))
        assert told(socket) == {"touch": 1, "unknown": []}
        socket.send(json.dumps({"requeue": [ids["2"]], "delay": 60_000}))
        assert told(socket) == {"requeue": 1, "unknown": []}
        wait_until(lambda: broker.depth(topic, "me").deferred == 1)
    broker.wait_held(topic, "me", 3)  # one is finished, the others went back with the socket


@pytest.mark.parametrize("said", ["{", "[]", '{"finish":"id"}', '{"finish":[1]}', '{"requeue":[],"delay":-1}', "{}"])
def test_what_cannot_be_understood_is_said(gateway: Gateway, broker: Broker, topic: str, said: str) -> None:
    broker.create(topic, "me")
    with opened(gateway, topic, channel="me", ack="client") as socket:
        socket.send(said)
        assert list(told(socket)) == ["error"]
        broker.fill(topic, [b"still here"])
        assert told(socket)["body"] == "still here"


def test_with_auto_there_is_nothing_to_say(gateway: Gateway, broker: Broker, topic: str) -> None:
    broker.create(topic, "me")
    with opened(gateway, topic, channel="me") as socket:
        socket.send('{"finish":[]}')
        assert "ack=client" in told(socket)["error"]


def test_a_count_with_acknowledgements_waits_for_them(gateway: Gateway, broker: Broker, topic: str) -> None:
    broker.fill(topic, [b"a", b"b"])
    with opened(gateway, topic, channel="me", ack="client", count=1) as socket:
        socket.send(json.dumps({"finish": [told(socket)["id"]]}))
        assert told(socket)["finish"] == 1
        with pytest.raises(ConnectionClosed):
            socket.recv(10)
    broker.wait_held(topic, "me", 1)


@pytest.mark.parametrize(
    ("params", "status", "word"),
    [
        ({"topic": "a b"}, 400, "INVALID_TOPIC"),
        ({"format": "sse"}, 400, "INVALID_ARG_FORMAT"),
        ({"path": "/nothing"}, 404, "NOT_FOUND"),
        ({"options": {"origin": "http://evil.example"}}, 403, "ORIGIN_NOT_ALLOWED"),
        ({"options": {"additional_headers": {"Host": "evil.example"}}}, 400, "INVALID_REQUEST"),  # a second Host
    ],
)
def test_a_refused_handshake_says_why(
    gateway: Gateway, topic: str, params: dict[str, Any], status: int, word: str
) -> None:
    with pytest.raises(InvalidStatus) as refused, opened(gateway, **{"topic": topic, **params}):
        pass
    assert refused.value.response.status_code == status
    assert json.loads(refused.value.response.body or b"")["message"] == word


def test_a_frame_that_is_too_large_closes(gateway: Gateway, broker: Broker, topic: str) -> None:
    broker.fill(topic, [b"a"])
    with opened(gateway, topic, channel="me", ack="client") as socket:
        told(socket)
        socket.send("x" * (1 << 17))
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(10)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1009
    broker.wait_held(topic, "me", 1)


def test_a_slow_client_is_not_cut(make_gateway: MakeGateway, broker: Broker, topic: str) -> None:
    """It does not read, and so answers no ping, for several heartbeats; then it gets everything."""
    gateway = make_gateway(broker, "--heartbeat", "1s")
    bodies = [b"%06d" % number + b"x" * 2000 for number in range(2000)]
    broker.create(topic, "me")
    broker.fill(topic, bodies)
    client = Bare(gateway.port, receive_buffer=4096)
    client.say(f"GET /sub?topic={topic}&channel=me&format=raw HTTP/1.1\r\nHost: localhost\r\n{UPGRADE}\r\n".encode())
    data = bytearray(client.read_until(b"000000"))
    pass_time(4.5)
    while len(data) < len(bodies) * 2006 or data.count(b"x" * 2000) < len(bodies):
        chunk = client.socket.recv(1 << 20)
        assert chunk, "the gateway has closed the connection"
        data += chunk
    assert sorted(re.findall(rb"\d{6}x{2000}", data)) == bodies
    client.close()


def test_an_idle_client_is_pinged(make_gateway: MakeGateway, broker: Broker, topic: str) -> None:
    gateway = make_gateway(broker, "--heartbeat", "1s")
    client = Bare(gateway.port)
    broker.create(topic, "me")
    client.say(f"GET /sub?topic={topic}&channel=me HTTP/1.1\r\nHost: localhost\r\n{UPGRADE}\r\n".encode())
    head, _, data = client.read_until(b"\r\n\r\n").partition(b"\r\n\r\n")
    assert b" 101 " in head
    while len(data) < 6:
        data += client.socket.recv(100)
    assert data[:2] == b"\x89\x04"  # RFC 6455, 5.5.2
    client.close()


@pytest.mark.parametrize("frame", [b"\x81\x81\0\0\0\0\xff", b"\xff\x80\0\0\0\0"], ids=["no text", "no frame"])
def test_a_broken_frame_in_mid_stream_ends_it_without_a_traceback(
    make_gateway: MakeGateway, broker: Broker, topic: str, frame: bytes
) -> None:
    gateway = make_gateway(broker)
    broker.create(topic, "me")
    for _ in range(10):
        client = Bare(gateway.port)
        client.say(f"GET /sub?topic={topic}&channel=me HTTP/1.1\r\nHost: localhost\r\n{UPGRADE}\r\n".encode())
        client.read_until(b"\r\n\r\n")
        broker.fill(topic, [b"%d" % number for number in range(20)])
        client.say(frame)
        client.read_all()
        client.close()
    wait_until(lambda: broker.depth(topic, "me").clients == 0)
    assert "Traceback" not in gateway.process.err
    assert "internal error" not in gateway.process.err
