"""POST /pub and /mpub: what is answered 200 is in the topic; what is not is said in nsqd's words."""

from __future__ import annotations

import json
import struct

import msgpack
import pytest
from harness.brokers import Broker
from harness.gateway import Gateway

MIB = 1024 * 1024


def test_a_message(gateway: Gateway, broker: Broker, topic: str) -> None:
    answer = gateway.post("/pub", b"\x00any\nbytes\xff", topic=topic)
    assert (answer.status_code, answer.text, answer.headers["q-published"]) == (200, "OK", "1")
    assert broker.bodies(topic) == [b"\x00any\nbytes\xff"]


def test_a_deferred_message_is_held_back_by_the_broker(gateway: Gateway, broker: Broker, topic: str) -> None:
    broker.create(topic, "me")
    assert gateway.post("/pub", b"later", topic=topic, defer=60_000).status_code == 200
    assert broker.depth(topic, "me").deferred == 1


def enveloped(*bodies: bytes) -> bytes:
    return b"".join(json.dumps({"id": "x", "body": body.decode()}).encode() + b"\n" for body in bodies)


def lengths(*bodies: bytes) -> bytes:
    return b"".join(struct.pack(">I", len(body)) + body for body in bodies)


FORMS = [
    ("text/plain", b"a\n\nb\nc", [b"a", b"b", b"c"]),
    ("application/x-www-form-urlencoded", b"a\r\nb\n", [b"a\r", b"b"]),  # what curl says of --data-binary
    ("application/x-ndjson", b'{"a":1}\n{"b":2}\n', [b'{"a":1}', b'{"b":2}']),
    ("application/vnd.qtools.length32", lengths(b"a\n", b"b"), [b"a\n", b"b"]),
    ("application/msgpack", msgpack.packb({"body": b"a\0"}) + msgpack.packb({"body": b"b"}), [b"a\0", b"b"]),
    ("application/vnd.qtools.envelope", enveloped(b"a\n", b"b") + b'{"body_base64":"/w=="}', [b"a\n", b"b", b"\xff"]),
]


@pytest.mark.parametrize(("kind", "body", "expected"), FORMS)
def test_many_messages_by_content_type(
    gateway: Gateway, broker: Broker, topic: str, kind: str, body: bytes, expected: list[bytes]
) -> None:
    answer = gateway.post("/mpub", body, {"content-type": kind}, topic=topic)
    assert (answer.status_code, answer.headers["q-published"]) == (200, str(len(expected)))
    assert broker.bodies(topic) == expected


@pytest.mark.parametrize(("kind", "body", "expected"), FORMS)
def test_a_stream_of_them_cut_anywhere(
    gateway: Gateway, broker: Broker, topic: str, kind: str, body: bytes, expected: list[bytes]
) -> None:
    pieces = iter([body[place : place + 1] for place in range(len(body))])
    answer = gateway.post("/mpub", pieces, {"content-type": kind}, topic=topic)
    assert (answer.status_code, answer.headers["q-published"]) == (200, str(len(expected)))
    assert broker.bodies(topic) == expected


def test_format_in_the_query_goes_before_content_type(gateway: Gateway, broker: Broker, topic: str) -> None:
    answer = gateway.post("/mpub", lengths(b"a\nb"), {"content-type": "text/plain"}, topic=topic, format="length32")
    assert answer.status_code == 200
    assert broker.bodies(topic) == [b"a\nb"]


# What is refused, and that nsqd refuses it in the same words.
REFUSED = [
    ("POST", "/pub", b"x"),
    ("POST", "/pub?topic=no%20name", b"x"),
    ("POST", "/pub?topic=" + "n" * 65, b"x"),
    ("POST", "/pub?topic={topic}", b""),
    ("POST", "/pub?topic={topic}", b"x" * (MIB + 1)),
    ("POST", "/pub?topic={topic}&defer=soon", b"x"),
    ("POST", "/pub?topic={topic}&defer=-1", b"x"),
    ("POST", "/pub?topic={topic}&defer=3600001", b"x"),
    ("POST", "/mpub", b"x"),
    ("POST", "/mpub?topic=no%20name", b"x"),
    ("POST", "/mpub?topic={topic}", b"good\n" + b"x" * (MIB + 1)),
    ("POST", "/mpub?topic={topic}&binary=true", b"\0\0"),
    ("POST", "/mpub?topic={topic}&binary=true", b"\0\0\0\1\0\0\0\2x"),
    ("POST", "/mpub?topic={topic}&binary=true", b"\0\0\0\1\0\0\0\0"),
    ("GET", "/pub?topic={topic}", b""),
    ("PUT", "/mpub?topic={topic}", b"x"),
    ("GET", "/nothing", b""),
    ("POST", "/pub?topic=%zz", b"x"),
]


@pytest.mark.parametrize(("method", "target", "body"), REFUSED)
def test_refusals_are_nsqds(
    gateway: Gateway, broker: Broker, topic: str, method: str, target: str, body: bytes
) -> None:
    target = target.format(topic=topic)
    answer = gateway.client.request(method, gateway.url + target, content=body)
    status, told = broker.ask(method, target, body)
    if status in (301, 404):  # nsqd's router knows no such path, and redirects one with dots
        assert (answer.status_code, answer.json()["message"]) == (404, "NOT_FOUND")
    else:
        assert (answer.status_code, answer.json()["message"]) == (status, json.loads(told)["message"])
    assert answer.headers["x-nsq-content-type"] == "nsq; version=1.0"
    assert broker.published(topic) == 0


def test_nothing_of_a_whole_body_with_a_bad_message_is_published(gateway: Gateway, broker: Broker, topic: str) -> None:
    answer = gateway.post("/mpub", enveloped(b"good") + b"{]\n", topic=topic, format="envelope")
    assert (answer.status_code, answer.json()["message"]) == (400, "BAD_MESSAGE")
    assert "line 2" in answer.json()["detail"]
    assert broker.published(topic) == 0


def test_a_misspelt_parameter_is_refused(gateway: Gateway, topic: str) -> None:
    answer = gateway.post("/pub", b"x", topic=topic, defr=5)
    assert (answer.status_code, answer.json()["message"]) == (400, "UNKNOWN_ARG")
    assert "topic, defer" in answer.json()["detail"]


def test_a_message_over_the_brokers_own_limit(make_gateway, make_broker, topic: str) -> None:  # type: ignore[no-untyped-def]
    broker = make_broker("--max-msg-size=1000")
    gateway = make_gateway(broker)
    answer = gateway.post("/pub", b"x" * 1001, topic=topic)
    assert (answer.status_code, answer.json()["message"]) == (413, "MSG_TOO_BIG")
    answer = gateway.post("/mpub", b"a\n" + b"x" * 1001 + b"\nb\n", topic=topic)
    assert (answer.status_code, answer.json()["message"], answer.json()["published"]) == (413, "MSG_TOO_BIG", 2)
    assert sorted(broker.bodies(topic)) == [b"a", b"b"]


@pytest.mark.parametrize(
    ("line", "what"), [(b'{"body":null}', "message 2 has no body"), (b'{"body":""}', "message 2 is empty")]
)
def test_an_envelope_without_a_body_is_refused(
    gateway: Gateway, broker: Broker, topic: str, line: bytes, what: str
) -> None:
    answer = gateway.post("/mpub", enveloped(b"good") + line, topic=topic, format="envelope")
    assert (answer.status_code, answer.json()["message"]) == (400, "MSG_EMPTY")
    assert answer.json()["detail"].startswith(what)
    assert broker.published(topic) == 0


def test_keys_of_envelopes_are_left_out_with_a_warning(gateway: Gateway, broker: Broker, topic: str) -> None:
    answer = gateway.post("/mpub", b'{"body":"a","key":"k"}', topic=topic, format="envelope")
    assert (answer.status_code, broker.bodies(topic)) == (200, [b"a"])
    assert answer.headers["q-warning"] == "NSQ has no keys and no headers: those of the envelopes are left out"
    refused = gateway.post("/pub", b"x", topic=topic, key="k")
    assert (refused.status_code, refused.json()["message"]) == (501, "NOT_SUPPORTED")
