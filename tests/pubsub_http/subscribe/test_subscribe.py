"""GET /sub: every form, every end, and what it does with what it does not send."""

from __future__ import annotations

import json
import struct
import time

import msgpack
import pytest
from conftest import MakeBroker
from harness.brokers import Broker
from harness.gateway import Bare, Gateway
from harness.waiting import wait_until

from tests.pubsub_http.conftest import MakeGateway


def test_envelopes_by_default(gateway: Gateway, broker: Broker, topic: str) -> None:
    broker.fill(topic, [b"a", b"\xff", "ü\n".encode()])
    with gateway.stream(topic, "me", count=3) as stream:
        assert stream.answer.headers["content-type"] == "application/x-ndjson"
        told = [stream.message() for _ in range(3)]
        assert stream.rest() == []
    assert [message.get("body", message.get("body_base64")) for message in told] == ["a", "/w==", "ü\n"]
    assert [(message["topic"], message["attempts"], len(message["id"])) for message in told] == [(topic, 1, 16)] * 3
    broker.wait_held(topic, "me", 0)


BODIES = [b"one", b"two"]


def of_raw(data: bytes) -> list[bytes]:
    return data.split(b"\n")[:-1]


def of_length32(data: bytes) -> list[bytes]:
    found = []
    while data:
        (size,) = struct.unpack_from(">I", data)
        found.append(data[4 : 4 + size])
        data = data[4 + size :]
    return found


def of_msgpack(data: bytes) -> list[bytes]:
    unpacker = msgpack.Unpacker()
    unpacker.feed(data)
    return [message["body"] for message in unpacker]


def of_sse(data: bytes) -> list[bytes]:
    hello, *events = data.split(b"\n\n")[:-1]
    assert hello == b"retry: 1000"
    found = []
    for event in events:
        ident, said = event.split(b"\n")
        told = json.loads(said.removeprefix(b"data: "))
        assert ident.rpartition(b":")[0] == b"id: " + told["id"].encode()  # behind it the name of the stream
        found.append(told["body"].encode())
    return found


def of_envelope(data: bytes) -> list[bytes]:
    return [json.loads(line)["body"].encode() for line in data.splitlines()]


FORMS = {"raw": of_raw, "length32": of_length32, "msgpack": of_msgpack, "sse": of_sse, "envelope": of_envelope}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_by_format(gateway: Gateway, broker: Broker, topic: str, form: str) -> None:
    broker.fill(topic, BODIES)
    answer = gateway.get("/sub", topic=topic, channel="me", count=2, format=form)
    assert FORMS[form](answer.content) == BODIES


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("*/*", "application/x-ndjson"),
        ("text/event-stream", "text/event-stream"),
        ("text/plain", "text/plain; charset=utf-8"),
        ("application/msgpack;q=0.5, application/vnd.qtools.length32", "application/vnd.qtools.length32"),
        ("text/html, application/xhtml+xml, application/xml;q=0.9, */*;q=0.8", "application/x-ndjson"),
    ],
)
def test_every_form_by_accept(gateway: Gateway, broker: Broker, topic: str, accept: str, kind: str) -> None:
    broker.fill(topic, [b"a"])
    params = {"topic": topic, "channel": "me", "count": 1}
    answer = gateway.client.get("/sub", params=params, headers={"accept": accept})
    assert (answer.status_code, answer.headers["content-type"]) == (200, kind)


def test_what_is_not_there_is_not_acceptable(gateway: Gateway, topic: str) -> None:
    answer = gateway.client.get("/sub", params={"topic": topic}, headers={"accept": "image/png"})
    assert (answer.status_code, answer.json()["message"]) == (406, "NOT_ACCEPTABLE")


@pytest.mark.parametrize(
    ("params", "word"),
    [
        ({}, "MISSING_ARG_TOPIC"),
        ({"topic": "a b"}, "INVALID_TOPIC"),
        ({"topic": "t", "channel": "a b"}, "INVALID_CHANNEL"),
        ({"topic": "t", "count": "0"}, "INVALID_ARG_COUNT"),
        ({"topic": "t", "ack": "maybe"}, "INVALID_ARG_ACK"),
        ({"topic": "t", "until_empty": "true"}, "MISSING_ARG_CHANNEL"),
        ({"topic": "t", "ack": "client", "format": "raw"}, "INVALID_ARG_FORMAT"),
        ({"topic": "t", "where": ".a ="}, "INVALID_ARG_WHERE"),
        ({"topic": "t", "where": 'test("(a+)+$")'}, "INVALID_ARG_WHERE"),
        ({"topic": "t", "where": "." * 4097}, "INVALID_ARG_WHERE"),
    ],
)
def test_what_cannot_be_is_refused(gateway: Gateway, params: dict[str, str], word: str) -> None:
    answer = gateway.get("/sub", **params)
    assert (answer.status_code, answer.json()["message"]) == (400, word)


def test_count_takes_no_more_than_that(gateway: Gateway, broker: Broker, topic: str) -> None:
    broker.fill(topic, [b"%d" % number for number in range(10)])
    with gateway.stream(topic, "me", count=4) as stream:
        stream.bodies(4)
        assert stream.rest() == []
    broker.wait_held(topic, "me", 6)


def test_where_finishes_what_does_not_pass(gateway: Gateway, broker: Broker, topic: str) -> None:
    broker.fill(topic, [b'{"n":%d}' % number for number in range(10)] + [b"no JSON", b'{"n":"text"}'])
    params = {"topic": topic, "channel": "me", "where": ".n >= 3 and .n < 6", "until_empty": "true", "format": "raw"}
    assert gateway.get("/sub", **params).content == b'{"n":3}\n{"n":4}\n{"n":5}\n'
    broker.wait_held(topic, "me", 0)


def test_where_reads_every_digit_of_an_integer(gateway: Gateway, broker: Broker, topic: str) -> None:
    bodies = [b'{"n":%d}' % number for number in (2**64, 2**64 + 1, 2**64 + 2, -(2**63) - 1)]
    broker.fill(topic, bodies)
    params = {"topic": topic, "channel": "me", "where": f".n == {2**64 + 1}", "until_empty": "true", "format": "raw"}
    assert gateway.get("/sub", **params).content == bodies[1] + b"\n"


def test_where_and_count_give_back_what_is_beyond(gateway: Gateway, broker: Broker, topic: str) -> None:
    broker.fill(topic, [b'{"n":%d}' % number for number in range(10)])
    answer = gateway.get("/sub", topic=topic, channel="me", where=".n % 2 == 1", count=2, format="raw")
    assert answer.content == b'{"n":1}\n{"n":3}\n'
    broker.wait_held(topic, "me", 6)  # 0 to 3 are done with
    assert sorted(broker.bodies(topic, "me")) == [b'{"n":%d}' % number for number in range(4, 10)]


@pytest.mark.parametrize("count", [30, 120])
def test_where_and_count_give_back_what_is_beyond_in_a_batch_that_is_sent_in_parts(
    gateway: Gateway, broker: Broker, topic: str, count: int
) -> None:
    bodies = [b'{"n":%d,"pad":"%s"}' % (number, b"x" * 8000) for number in range(200)]  # 32 make a part
    broker.fill(topic, bodies)
    params = {"topic": topic, "channel": "me", "where": ".n >= 0", "count": count, "max_in_flight": 200}
    assert gateway.get("/sub", format="raw", **params).content == b"".join(body + b"\n" for body in bodies[:count])
    broker.wait_held(topic, "me", 200 - count)
    assert sorted(broker.bodies(topic, "me")) == sorted(bodies[count:])


def test_timeout_ends_a_stream_in_order(gateway: Gateway, broker: Broker, topic: str) -> None:
    broker.create(topic, "me")
    begun = time.monotonic()
    assert gateway.get("/sub", topic=topic, channel="me", timeout=0.3).content == b""
    assert 0.3 <= time.monotonic() - begun < 5


def test_until_empty(gateway: Gateway, broker: Broker, topic: str) -> None:
    broker.fill(topic, [b"%d" % number for number in range(5000)])
    answer = gateway.get("/sub", topic=topic, channel="me", until_empty="true", format="raw")
    assert sorted(answer.content.split()) == sorted(b"%d" % number for number in range(5000))
    broker.wait_held(topic, "me", 0)


def test_max_in_flight_is_the_ready_count(gateway: Gateway, broker: Broker, topic: str) -> None:
    broker.fill(topic, [b"%d" % number for number in range(50)])
    with gateway.stream(topic, "me", max_in_flight=7, ack="client") as stream:
        stream.bodies(7)
        assert broker.depth(topic, "me").in_flight == 7


def test_without_a_channel_what_comes_from_now_on(gateway: Gateway, broker: Broker, topic: str) -> None:
    broker.create(topic, "other")
    broker.fill(topic, [b"before"])
    with gateway.stream(topic) as stream:
        broker.fill(topic, [b"after"])
        assert stream.bodies(1) == ["after"]
    assert sorted(broker.bodies(topic, "other")) == [b"after", b"before"]
    wait_until(lambda: broker.channels(topic) == ["other"])  # the temporary one is gone with its reader


def test_a_temporary_channel_takes_no_backlog(gateway: Gateway, broker: Broker, topic: str) -> None:
    broker.fill(topic, [b"precious"])
    answer = gateway.get("/sub", topic=topic)
    assert (answer.status_code, answer.json()["message"]) == (409, "TOPIC_HAS_NO_CHANNEL")
    assert broker.bodies(topic) == [b"precious"]


def test_readers_without_a_channel_share_one_and_each_gets_all(gateway: Gateway, broker: Broker, topic: str) -> None:
    broker.create(topic, "other")
    with gateway.stream(topic) as one, gateway.stream(topic, format="raw") as two, gateway.stream(topic) as three:
        with gateway.stream(topic, where=".n == 2") as four:
            assert len(broker.channels(topic)) == 2
            broker.fill(topic, [b'{"n":1}', b'{"n":2}'])
            assert one.bodies(2) == three.bodies(2) == ['{"n":1}', '{"n":2}']
            assert [two.line(), two.line()] == ['{"n":1}', '{"n":2}']
            assert four.bodies(1) == ['{"n":2}']
        broker.fill(topic, [b"more"])
        assert one.bodies(1) == ["more"]
    wait_until(lambda: broker.channels(topic) == ["other"])


def test_a_reader_that_stands_still_stops_nobody_else(make_gateway: MakeGateway, broker: Broker, topic: str) -> None:
    gateway = make_gateway(broker, "--backlog", "2000")
    broker.create(topic, "other")
    stalled = Bare(gateway.port, receive_buffer=4096)
    stalled.get(f"/sub?topic={topic}&format=raw")
    stalled.read_until(b"\r\n\r\n")
    with gateway.stream(topic, format="raw") as stream:
        for _ in range(40):
            broker.fill(topic, [b"x" * 1000] * 1000)
            for _ in range(1000):
                stream.line()
    wait_until(lambda: "a reader of" in gateway.process.err, what=lambda: gateway.process.err)
    stalled.close()


def test_the_broker_restarts_and_streams_go_on(make_gateway: MakeGateway, make_broker: MakeBroker, topic: str) -> None:
    broker = make_broker()
    gateway = make_gateway(broker)
    broker.create(topic, "me")
    with gateway.stream(topic, "me") as named, gateway.stream(topic) as unnamed:
        assert gateway.post("/pub", b"before", topic=topic).status_code == 200
        assert named.bodies(1) == unnamed.bodies(1) == ["before"]
        broker.wait_held(topic, "me", 0)
        broker.stop()
        broker.start()
        wait_until(lambda: broker.depth(topic, "me").clients == 1 and len(broker.channels(topic)) == 2)
        assert gateway.post("/pub", b"after", topic=topic).status_code == 200
        assert named.bodies(1) == unnamed.bodies(1) == ["after"]


def test_a_broker_that_is_away_is_503(make_gateway: MakeGateway, make_broker: MakeBroker, topic: str) -> None:
    broker = make_broker()
    gateway = make_gateway(broker, "--publish-timeout", "300ms")
    broker.kill()
    for answer in (
        gateway.get("/sub", topic=topic, channel="me"),
        gateway.post("/pub", b"x", topic=topic),
        gateway.get("/message", topic=topic, channel="me"),
        gateway.get("/topics"),
    ):
        assert (answer.status_code, answer.json()["message"]) == (503, "BROKER_UNAVAILABLE")
        assert answer.headers["retry-after"] == "1"
    broker.start()
    wait_until(lambda: gateway.post("/pub", b"x", topic=topic).status_code == 200)


def test_a_heartbeat_is_a_comment_of_an_event_stream_and_in_no_other_data(
    make_gateway: MakeGateway, broker: Broker, topic: str
) -> None:
    gateway = make_gateway(broker, "--heartbeat", "1s")
    broker.create(topic, "me", "you")
    with gateway.stream(topic, "me", format="sse") as events, gateway.stream(topic, "you") as envelopes:
        assert events.beginning(":", 2) == ["", ""]
        broker.fill(topic, [b"a"])
        assert envelopes.bodies(1) == ["a"]  # and nothing came before it
        assert len(events.beginning("data: ", 1)) == 1


def nested(depth: int, inside: str) -> str:
    return "[" * depth + inside + "]" * depth


def test_where_compares_values_of_any_depth(gateway: Gateway, broker: Broker, topic: str) -> None:
    same, other = nested(1000, "1"), nested(1000, "2")
    broker.fill(
        topic, [f'{{"a":{same},"b":{same}}}'.encode(), f'{{"a":{same},"b":{other}}}'.encode(), b'{"a":1,"b":1}']
    )
    answer = gateway.get("/sub", topic=topic, channel="me", format="raw", where=".a == .b", until_empty=1)
    assert answer.text.splitlines() == [f'{{"a":{same},"b":{same}}}', '{"a":1,"b":1}']
