"""How requests and answers are framed: transfer codings, HTTP/1.0, and handshakes of WebSockets that are none."""

from __future__ import annotations

import json

import pytest
from harness.brokers import Broker
from harness.gateway import Bare, Gateway

from tests.pubsub_http.conftest import MakeGateway
from tests.pubsub_http.test_hostile import said, status_of

HOST = b"Host: localhost\r\n"
CHUNKED = b"1\r\na\r\n0\r\n\r\n"
UPGRADE = (
    HOST + b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"Transfer-Encoding: gzip\r\n", 501),
        (b"Transfer-Encoding: gzip, chunked\r\n", 501),
        (b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", 501),
        (b"Transfer-Encoding: identity\r\n", 501),
        (b"Transfer-Encoding: xchunked\r\n", 501),
        (b"Transfer-Encoding: chunked, chunked\r\n", 400),
        (b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n", 400),
        (b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", 400),
    ],
)
def test_a_body_that_may_be_read_in_two_ways_is_not_read(
    gateway: Gateway, broker: Broker, topic: str, head: bytes, status: int, version: bytes
) -> None:
    asked = b"POST /pub?topic=%b HTTP/%b\r\n" % (topic.encode(), version) + HOST + head + b"\r\n" + CHUNKED
    assert status_of(said(gateway.port, asked)) == status
    assert broker.topic(topic) is None


def test_a_broker_of_ours_refuses_other_codings_as_nsqd_does(broker: Broker, topic: str) -> None:
    port = int(broker.http.rpartition(":")[2])
    asked = b"POST /pub?topic=%b HTTP/1.1\r\n" % topic.encode() + HOST + b"Transfer-Encoding: gzip\r\n\r\n" + CHUNKED
    assert status_of(said(port, asked)) == 501


def test_chunked_is_chunked_in_any_case(gateway: Gateway, broker: Broker, topic: str) -> None:
    client = Bare(gateway.port)
    client.say(
        b"POST /pub?topic=%b HTTP/1.1\r\n" % topic.encode() + HOST + b"Transfer-Encoding: Chunked\r\n\r\n" + CHUNKED
    )
    assert status_of(client.read_until(b"OK")) in (200,)
    client.close()
    assert broker.bodies(topic) == [b"a"]


def test_no_chunks_for_http_1_0(gateway: Gateway, broker: Broker, topic: str) -> None:
    broker.fill(topic, [b"a", b"b"])
    asked = b"GET /sub?topic=%b&channel=me&format=raw&count=2 HTTP/1.0\r\n\r\n" % topic.encode()
    head, _, body = said(gateway.port, asked).partition(b"\r\n\r\n")
    assert status_of(head) == 200
    assert b"transfer-encoding" not in head.lower()
    assert body == b"a\nb\n"
    broker.wait_held(topic, "me", 0)


@pytest.mark.parametrize("path", ["/ping", "/openapi.json", "/", "/nothing"])
def test_an_answer_of_known_length_is_the_same_for_http_1_0(gateway: Gateway, path: str) -> None:
    head, _, body = said(gateway.port, f"GET {path} HTTP/1.0\r\n\r\n".encode()).partition(b"\r\n\r\n")
    length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length: "))
    assert int(length.partition(b": ")[2]) == len(body) > 0


def test_http_1_0_is_not_told_to_continue(gateway: Gateway, topic: str) -> None:
    asked = b"POST /pub?topic=%b HTTP/1.0\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\nx" % topic.encode()
    assert status_of(said(gateway.port, asked)) == 200


@pytest.mark.parametrize(
    ("extra", "status"),
    [
        (b"Content-Length: 5\r\n\r\n", 400),
        (b"Content-Length: 5\r\n\r\nhello", 400),
        (b"Transfer-Encoding: chunked\r\n\r\n", 400),
        (b"Transfer-Encoding: gzip\r\n\r\n", 501),
        (b"Sec-WebSocket-Protocol: %b\r\n\r\n" % (b"x" * 9000), 431),
        (b"Sec-WebSocket-Protocol: x\r\n" * 200 + b"\r\n", 431),
        (b"Cookie: %b\r\n\r\n" % (b"x" * 70_000), 431),
        (b"\r\n\x81\x80\0\0\0\0", 400),  # a frame before the handshake was answered
    ],
)
def test_a_handshake_that_cannot_be_accepted_is_answered_at_once(
    make_gateway: MakeGateway, broker: Broker, topic: str, extra: bytes, status: int
) -> None:
    """More of them than there may be connections, one after the other: each is over before the next comes."""
    gateway = make_gateway(broker, "--max-connections", "2", "--request-timeout", "60s")
    for _ in range(4):
        asked = b"GET /sub?topic=%b&channel=me HTTP/1.1\r\n" % topic.encode() + UPGRADE + extra
        assert status_of(said(gateway.port, asked)) == status


@pytest.mark.parametrize(
    "extra",
    [
        b"Content-Length: 0\r\n",
        b"Cookie: %b\r\n" % (b"x" * 40_000),
        b"Cookie: %b\r\n" % (b"x" * 9000),
        b"".join(b"X-%d: y\r\n" % number for number in range(200)),
    ],
)
def test_a_handshake_may_have_the_head_that_any_request_may(
    gateway: Gateway, broker: Broker, topic: str, extra: bytes
) -> None:
    broker.fill(topic, [b"hello"])
    client = Bare(gateway.port)
    where = b"where=." + b"%20" * 3000
    client.say(b"GET /sub?topic=%b&channel=me&format=raw&%b HTTP/1.1\r\n" % (topic.encode(), b"count=1"))
    client.say(UPGRADE + extra + b"\r\n")
    assert status_of(client.read_until(b"\x82\x05hello")) == 101
    client.close()
    client = Bare(gateway.port)
    client.say(b"GET /sub?topic=%b&channel=me&%b HTTP/1.1\r\n" % (topic.encode(), where) + UPGRADE + extra + b"\r\n")
    assert status_of(client.read_until(b"\r\n\r\n")) == 101
    client.close()


def test_a_handshake_behind_a_request_does_not_mix_with_its_answer(gateway: Gateway, topic: str) -> None:
    handshake = b"GET /sub?topic=%b&channel=me HTTP/1.1\r\n" % topic.encode() + UPGRADE + b"\r\n"
    answer = said(gateway.port, b"GET /ping HTTP/1.1\r\n" + HOST + b"\r\n" + handshake)
    assert status_of(answer) == 200
    assert answer.endswith(b"\r\n\r\nOK")  # and nothing else


def test_an_upgrade_from_http_1_0_is_ignored(gateway: Gateway) -> None:
    answer = said(gateway.port, b"GET /topics HTTP/1.0\r\n" + UPGRADE + b"\r\n")
    assert status_of(answer) == 200
    assert isinstance(json.loads(answer.partition(b"\r\n\r\n")[2])["topics"], list)


# What Go's net/http, and so nsqd, answers 400 to (RFC 9112, 3.2): the head's Host lines, and the status.
HOSTS = [
    (b"1.1", b"", 400),
    (b"1.0", b"", 200),
    (b"1.1", b"Host: localhost\r\nHost: localhost\r\n", 400),
    (b"1.0", b"Host: localhost\r\nHost: localhost\r\n", 400),
    (b"1.1", b"Host: local host\r\n", 400),
    (b"1.1", b"Host: localhost/x\r\n", 400),
    (b"1.1", b"Host: me@localhost\r\n", 400),
    (b"1.1", b"Host: localhost:80\r\n", 200),
]


@pytest.mark.parametrize(("version", "hosts", "status"), HOSTS)
@pytest.mark.parametrize("server", ["gateway", "broker"])
def test_a_request_names_one_host(
    gateway: Gateway, broker: Broker, broker_kind: str, server: str, version: bytes, hosts: bytes, status: int
) -> None:
    if server == "broker" and broker_kind == "nsqd":
        pytest.skip("what nsqd answers is not judged here")
    port = gateway.port if server == "gateway" else int(broker.http.rpartition(":")[2])
    for head in (b"GET /ping HTTP/%b\r\n", b"POST /ping HTTP/%b\r\nContent-Length: 0\r\n"):
        answer = said(port, head % version + hosts + b"Connection: close\r\n\r\n")
        assert status_of(answer) == status or (head.startswith(b"POST") and status == 200)


def test_a_handshake_names_one_host(gateway: Gateway) -> None:
    asked = b"GET /ws?topic=t HTTP/1.1\r\n" + UPGRADE + b"\r\n"
    assert status_of(said(gateway.port, asked.replace(HOST, HOST + HOST))) == 400
    assert status_of(said(gateway.port, asked.replace(HOST, b""))) == 400
    refused = said(gateway.port, asked.replace(HOST, b"Host: evil.example\r\n"))
    assert (status_of(refused), b"HOST_NOT_ALLOWED" in refused) == (403, True)


@pytest.mark.parametrize("server", ["gateway", "broker"])
@pytest.mark.parametrize(("lines", "taken"), [(10, True), (140, False)])
def test_trailers_are_bounded(
    gateway: Gateway, broker: Broker, broker_kind: str, topic: str, server: str, lines: int, taken: bool
) -> None:
    """q-broker's limit is the gateway's."""
    if server == "broker" and broker_kind == "nsqd":
        pytest.skip("what nsqd answers is not judged here")
    port = gateway.port if server == "gateway" else int(broker.http.rpartition(":")[2])
    trailers = b"".join(b"X-%d: %b\r\n" % (number, b"y" * 900) for number in range(lines))
    asked = b"POST /pub?topic=%b HTTP/1.1\r\n" % topic.encode() + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
    client = Bare(port)
    client.say(asked + CHUNKED[:-2] + trailers + b"\r\n")
    status = status_of(client.read_until(b"\r\n\r\n"))
    client.close()
    assert status == 200 if taken else status in (431, 500)
    assert bool(broker.topic(topic)) == taken


def test_trailers_are_no_headers(make_gateway: MakeGateway, broker: Broker, topic: str) -> None:
    """The answer to a request does not depend on what follows its body."""
    gateway = make_gateway(broker)
    trailers = b"Idempotency-Key: one\r\nOrigin: https://elsewhere.example\r\n"
    asked = b"POST /pub?topic=%b HTTP/1.1\r\n" % topic.encode() + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
    for _ in range(2):
        client = Bare(gateway.port)
        client.say(asked + CHUNKED[:-2] + trailers + b"\r\n")
        assert status_of(client.read_until(b"OK")) == 200
        client.close()
    assert broker.bodies(topic) == [b"a", b"a"]
