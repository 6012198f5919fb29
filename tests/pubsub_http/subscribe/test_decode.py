"""--decode of a gateway: streams show JSON, `where` reads it; raw, length32 and /message have the original bytes."""

from __future__ import annotations

import json
import struct
from io import BytesIO

import msgpack
import pytest
from harness.brokers import Broker
from harness.gateway import Gateway
from harness.registry import Answer, Registry
from harness.shell import Shell

from tests.pubsub_http.conftest import MakeGateway
from tests.pubsub_http.subscribe.test_websocket import opened, told

EVENT = {
    "type": "record",
    "name": "x.Event",
    "fields": [{"name": "id", "type": "long"}, {"name": "type", "type": "string"}],
}


def event(number: int, kind: bytes, schema: int = 1) -> bytes:
    assert number < 64
    return b"\0" + struct.pack(">I", schema) + bytes([number * 2, len(kind) * 2]) + kind


def shown(number: int, kind: str) -> str:
    return f'{{"id":{number},"type":"{kind}"}}'


EVENTS = [event(n, b"buy" if n % 3 else b"view") for n in range(30)]
JSON = [shown(n, "buy" if n % 3 else "view") for n in range(30)]
BUYS = [each for each in JSON if "buy" in each]
BROKEN = b"no magic byte"


@pytest.fixture
def decoding(make_gateway: MakeGateway, broker: Broker, registry: Registry) -> Gateway:
    registry.add(EVENT)
    return make_gateway(broker, "--decode", "avro", "--schema-registry", registry.url)


def test_streams_with_fields_show_json(decoding: Gateway, broker: Broker, topic: str) -> None:
    broker.create(topic, "a", "b", "c")
    broker.fill(topic, [*EVENTS, BROKEN])
    whole = {"until_empty": "true", "ack": "auto"}
    with decoding.stream(topic, "a", **whole) as stream:
        assert sorted(json.loads(line)["body"] for line in stream.rest()) == sorted([*JSON, BROKEN.decode()])
    with decoding.stream(topic, "b", format="sse", **whole) as stream:
        lines = [line[6:] for line in stream.rest() if line.startswith("data: ")]
        assert sorted(json.loads(line)["body"] for line in lines) == sorted([*JSON, BROKEN.decode()])
    answer = decoding.get("/sub", topic=topic, channel="c", format="msgpack", until_empty="true")
    assert sorted(each["body"] for each in msgpack.Unpacker(BytesIO(answer.content))) == sorted(
        [*(each.encode() for each in JSON), BROKEN]
    )
    for channel in "abc":
        broker.wait_held(topic, channel, 0)


def test_raw_and_length32_and_one_message_are_as_they_were(decoding: Gateway, broker: Broker, topic: str) -> None:
    broker.create(topic, "a", "b", "c")
    broker.fill(topic, EVENTS)
    answer = decoding.get(
        "/sub", topic=topic, channel="a", format="length32", until_empty="true", where='.type == "buy"'
    )
    buys = [each for each in EVENTS if b"buy" in each]
    assert len(answer.content) == sum(4 + len(each) for each in buys)
    assert all(struct.pack(">I", len(each)) + each in answer.content for each in buys)
    assert decoding.get("/message", topic=topic, channel="b", wait="5").content in EVENTS
    with opened(decoding, topic, channel="c", format="raw", count=5) as socket:
        assert all(socket.recv(10) in EVENTS for _ in range(5))


def test_where_reads_what_is_decoded_and_clients_acknowledge(decoding: Gateway, broker: Broker, topic: str) -> None:
    broker.fill(topic, [*EVENTS, BROKEN])
    with opened(decoding, topic, channel="me", ack="client", where='.type == "buy"', max_in_flight=100) as socket:
        messages = [told(socket) for _ in BUYS]
        assert sorted(each["body"] for each in messages) == sorted(BUYS)
        socket.send(json.dumps({"finish": [each["id"] for each in messages]}))
        assert told(socket) == {"finish": 20, "unknown": []}
    broker.wait_held(topic, "me", 0)


def test_subscribers_without_a_channel(decoding: Gateway, broker: Broker, topic: str) -> None:
    broker.create(topic)
    with (
        decoding.stream(topic, count="30") as all_of_them,
        decoding.stream(topic, count="20", where='.type == "buy"') as buys,
        opened(decoding, topic, format="raw", count=30) as raw,
    ):
        broker.fill(topic, EVENTS)
        assert sorted(all_of_them.bodies(30)) == sorted(JSON)
        assert sorted(buys.bodies(20)) == sorted(BUYS)
        assert sorted(raw.recv(10) for _ in range(30)) == sorted(EVENTS)


def test_a_registry_that_is_away_stops_a_stream_which_gives_its_messages_back(
    decoding: Gateway, broker: Broker, topic: str, registry: Registry
) -> None:
    away = True
    registry.behaviour = lambda path: Answer(503) if away and "ids" in path else None
    broker.fill(topic, EVENTS)
    with decoding.stream(topic, "me", timeout="1") as stream:
        assert stream.rest() == []  # it ended in order, though the registry was away
    assert broker.wait_held(topic, "me", 30).depth == 30
    with decoding.stream(topic, "me", until_empty="true") as stream:
        away = False
        assert sorted(json.loads(line)["body"] for line in stream.rest()) == sorted(JSON)


def test_a_client_that_takes_one_message_a_request(decoding: Gateway, broker: Broker, topic: str) -> None:
    broker.fill(topic, EVENTS[:6])
    found = []
    for _ in range(6):
        with opened(decoding, topic, channel="me", ack="client", count=1) as socket:
            message = told(socket)
            found.append(message["body"])
            socket.send(json.dumps({"finish": [message["id"]]}))
            assert told(socket)["finish"] == 1
    assert sorted(found) == sorted(JSON[:6])
    broker.wait_held(topic, "me", 0)


def test_a_registry_that_cannot_be_reached_is_found_at_the_start(shell: Shell, broker: Broker) -> None:
    words = ["--decode", "avro", "--schema-registry", "http://127.0.0.1:1", "--http-address", "127.0.0.1:0"]
    done = shell.run("q-pubsub-http", *words, *broker.flags)
    assert done.status == 3
    assert "http://127.0.0.1:1: nothing listens there" in done.err


def test_keys_need_an_engine_that_has_them(shell: Shell, broker: Broker) -> None:
    words = ["--decode-key", "avro", "--schema-registry", "http://127.0.0.1:1", "--http-address", "127.0.0.1:0"]
    done = shell.run("q-pubsub-http", *words, *broker.flags)
    assert done.status == 2
    assert "--decode-key: NSQ has no keys and no headers" in done.err
