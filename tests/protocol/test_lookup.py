"""What nsqlookupd answers over HTTP, and what it cannot have answered."""

from __future__ import annotations

import pytest

from qtools.errors import ProtocolError
from qtools.protocol.lookup import Producer, decode_producers, decode_topics

PRODUCER = (
    b'{"remote_address":"127.0.0.1:39616","hostname":"h","broadcast_address":"nsq-1.example",'
    b'"tcp_port":4150,"http_port":4151,"version":"1.3.0"}'
)


def test_producers_are_where_they_say_they_are() -> None:
    body = b'{"channels":["archive"],"producers":[' + PRODUCER + b"," + PRODUCER.replace(b"nsq-1", b"nsq-2") + b"]}"
    assert decode_producers(body) == [Producer("nsq-1.example", 4150, 4151), Producer("nsq-2.example", 4150, 4151)]


def test_an_old_nsqlookupd_wraps_its_answer() -> None:
    body = b'{"status_code":200,"status_txt":"OK","data":{"channels":[],"producers":[' + PRODUCER + b"]}}"
    assert decode_producers(body) == [Producer("nsq-1.example", 4150, 4151)]
    assert decode_topics(b'{"data":{"topics":["t"]}}') == ["t"]


@pytest.mark.parametrize("body", [b"{}", b'{"producers":null}', b'{"producers":[]}'])
def test_nobody_yet_is_an_answer(body: bytes) -> None:
    assert decode_producers(body) == []


def test_topics_are_names() -> None:
    assert decode_topics(b'{"topics":["events","e#ephemeral"]}') == ["events", "e#ephemeral"]
    assert decode_topics(b'{"topics":null}') == []


BAD_JSON = [b"", b"<html>", b"\xff\xfe", b"[" * 100_000, b'{"producers":' * 100_000, b"9" * 5000]
BAD_SHAPE = [b"[]", b"5", b"null", b'"OK"', b'{"data":5,"producers":5}']
PRODUCERS = [
    b"5",
    b"true",
    b'"text"',
    b'{"a":1}',
    b"[5]",
    b"[null]",
    b"[[]]",
    b"[{}]",
    b'[{"broadcast_address":"h","tcp_port":4150}]',
    PRODUCER.join([b"[", b"]"]).replace(b"4150", b"1e999"),
    PRODUCER.join([b"[", b"]"]).replace(b"4150", b"Infinity"),
    PRODUCER.join([b"[", b"]"]).replace(b"4150", b"NaN"),
    PRODUCER.join([b"[", b"]"]).replace(b"4150", b"-1"),
    PRODUCER.join([b"[", b"]"]).replace(b"4150", b"65536"),
    PRODUCER.join([b"[", b"]"]).replace(b"4151", b"true"),
    PRODUCER.join([b"[", b"]"]).replace(b"4151", b"[]"),
    PRODUCER.join([b"[", b"]"]).replace(b'"nsq-1.example"', b"null"),
    PRODUCER.join([b"[", b"]"]).replace(b'"nsq-1.example"', b'""'),
    PRODUCER.join([b"[", b"]"]).replace(b'"nsq-1.example"', b'"\\u001b[2Jnsq"'),
]


@pytest.mark.parametrize("body", [*BAD_JSON, *BAD_SHAPE, *(b'{"producers":' + told + b"}" for told in PRODUCERS)])
def test_what_lists_no_producers_is_a_breach_of_protocol(body: bytes) -> None:
    if body == b'{"data":5,"producers":5}':
        body = b'{"data":5,"producers":[5]}'
    with pytest.raises(ProtocolError):
        decode_producers(body)


@pytest.mark.parametrize(
    "body",
    [
        *BAD_JSON,
        b"[]",
        *(b'{"topics":' + told + b"}" for told in (b"5", b'"t"', b"[5]", b"[null]", b'["a b"]', b'["\xc3\xa9"]')),
    ],
)
def test_what_lists_no_topics_is_a_breach_of_protocol(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_topics(body)
