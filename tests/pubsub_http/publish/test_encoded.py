"""Compressed request bodies: what was meant is published, or the request is refused; never the compressed bytes."""

from __future__ import annotations

import gzip
import sys
import zlib
from importlib import import_module

import pytest
from harness.brokers import Broker
from harness.gateway import Gateway

from tests.pubsub_http.conftest import MakeGateway

MIB = 1024 * 1024
zstd = import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")
ENCODERS = {"gzip": gzip.compress, "x-gzip": gzip.compress, "deflate": zlib.compress, "zstd": zstd.compress}
LINES = [b"%d" % number for number in range(300)]
EACH = pytest.mark.parametrize("coding", ENCODERS)


@EACH
def test_a_message(gateway: Gateway, broker: Broker, topic: str, coding: str) -> None:
    answer = gateway.post("/pub", ENCODERS[coding](b"hello"), {"content-encoding": coding}, topic=topic)
    assert (answer.status_code, answer.text) == (200, "OK")
    assert broker.bodies(topic) == [b"hello"]


@EACH
@pytest.mark.parametrize("chunked", [False, True])
def test_many_messages(gateway: Gateway, broker: Broker, topic: str, coding: str, chunked: bool) -> None:
    body = ENCODERS[coding](b"\n".join(LINES))
    answer = gateway.post(
        "/mpub", iter([body[:50], body[50:]]) if chunked else body, {"content-encoding": coding}, topic=topic
    )
    assert (answer.status_code, answer.headers.get("q-published")) == (200, "300")
    assert broker.bodies(topic) == LINES


def test_the_ids_of_messages(gateway: Gateway, broker: Broker, topic: str) -> None:
    broker.fill(topic, [b"a"])
    with gateway.stream(topic, "me", ack="client") as stream:
        ids = gzip.compress(stream.message()["id"].encode())
        answer = gateway.post("/finish", ids, {"content-encoding": "gzip"}, session=stream.session)
        assert answer.json() == {"finished": 1, "unknown": []}


def test_a_key_and_a_coding(make_gateway: MakeGateway, broker: Broker, topic: str) -> None:
    """Also where the request belongs to another worker, which decodes it."""
    gateway = make_gateway(broker, "--workers", "2")
    for number in range(6):
        headers = {"content-encoding": "gzip", "idempotency-key": f"k{number}"}
        for level in (1, 9):  # the same body, however it was packed
            answer = gateway.post("/pub", gzip.compress(b"once", level), headers, topic=topic)
            assert (answer.status_code, "idempotent-replayed" in answer.headers) == (200, level == 9)
    assert broker.bodies(topic) == [b"once"] * 6


@pytest.mark.parametrize("coding", ["br", "compress", "gzip, gzip", "aws-chunked"])
@pytest.mark.parametrize("path", ["/pub", "/mpub"])
def test_other_codings_are_refused(gateway: Gateway, broker: Broker, topic: str, coding: str, path: str) -> None:
    answer = gateway.post(path, b"hello", {"content-encoding": coding}, topic=topic)
    assert (answer.status_code, answer.json()["message"]) == (415, "UNSUPPORTED_CONTENT_ENCODING")
    assert answer.headers["accept-encoding"] == "gzip, deflate, zstd"
    assert broker.topic(topic) is None


@pytest.mark.parametrize("path", ["/pub", "/mpub"])
def test_a_body_that_is_not_what_it_says(gateway: Gateway, broker: Broker, topic: str, path: str) -> None:
    for body in (b"hello", gzip.compress(b"hello")[:-4], gzip.compress(b"hello") + b"x", b""):
        answer = gateway.post(path, body, {"content-encoding": "gzip"}, topic=topic)
        if body or path == "/pub":
            assert answer.status_code == 400
    assert broker.topic(topic) is None or broker.topic(topic)["message_count"] == 0  # type: ignore[index]


@EACH
def test_a_bomb_is_refused_in_bounded_memory(
    make_gateway: MakeGateway, broker: Broker, topic: str, coding: str
) -> None:
    gateway = make_gateway(broker)
    assert gateway.post("/pub", b"warm", topic="warm").status_code == 200
    bomb = ENCODERS[coding](b"\0" * (256 * MIB))
    before = gateway.memory()
    for path, word in (("/pub", "MSG_TOO_BIG"), ("/mpub", "BODY_TOO_BIG")):
        for _ in range(20):
            answer = gateway.post(path, bomb, {"content-encoding": coding}, topic=topic)
            assert (answer.status_code, answer.json()["message"]) == (413, word)
    assert gateway.memory() - before < 40 * MIB
    assert broker.topic(topic) is None


def test_a_broker_takes_bodies_as_they_are(broker: Broker, topic: str) -> None:
    """nsqd knows no content codings, and its clients may rely on that."""
    import httpx

    body = gzip.compress(b"hello")
    answer = httpx.post(
        f"http://{broker.http}/pub", params={"topic": topic}, content=body, headers={"content-encoding": "gzip"}
    )
    assert answer.status_code == 200
    assert broker.bodies(topic) == [body]
