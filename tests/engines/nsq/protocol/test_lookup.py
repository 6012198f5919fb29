"""What nsqlookupd answers, and what it cannot have answered; what a producer says to it."""

from __future__ import annotations

import pytest

from qtools.engines.nsq.protocol.lookup import (
    AnswerReader,
    Producer,
    decode_channels,
    decode_identity,
    decode_producers,
    decode_topics,
    identify,
    register,
    unregister,
)
from qtools.errors import ProtocolError

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


# ── what a producer says, and hears ──


def test_commands_are_what_nsqd_says() -> None:
    """Golden: what an nsqd 1.3.0 was heard to say."""
    said = identify(Producer("my.host", 14150, 14151), "vm", "1.3.0")
    assert said == (
        b'IDENTIFY\n\x00\x00\x00d{"broadcast_address":"my.host","hostname":"vm","http_port":14151,'
        b'"tcp_port":14150,"version":"1.3.0"}'
    )
    assert register("t") == b"REGISTER t\n"
    assert register("t", "e#ephemeral") == b"REGISTER t e#ephemeral\n"
    assert unregister("t") == b"UNREGISTER t\n"
    assert unregister("t", "c") == b"UNREGISTER t c\n"


ANSWERS = (
    b'\x00\x00\x00_{"broadcast_address":"vm","hostname":"vm","http_port":14161,"tcp_port":14160,"version":"1.3.0"}'
    b"\x00\x00\x00\x02OK\x00\x00\x00\x02OK\x00\x00\x00\x00"
)


@pytest.mark.parametrize("step", [1, 3, 50, 1000])
def test_answers_come_in_any_pieces(step: int) -> None:
    reader = AnswerReader()
    answers = [answer for at in range(0, len(ANSWERS), step) for answer in reader.feed(ANSWERS[at : at + step])]
    assert answers[1:] == [b"OK", b"OK", b""]
    assert decode_identity(answers[0]) == "vm:14161"
    assert reader.feed(b"\x00\x00\x00\x02O") == []


@pytest.mark.parametrize("step", [1, 2, 1000])
def test_an_http_server_is_recognized(step: int) -> None:
    reader, said = AnswerReader(), b"HTTP/1.1 400 Bad Request\r\n"
    with pytest.raises(ProtocolError) as caught:
        _ = [reader.feed(said[at : at + step]) for at in range(0, len(said), step)]
    assert caught.value.looks_like == "HTTP"


@pytest.mark.parametrize("said", [b"\xff\xff\xff\xff", b"\x00\x01\x00\x01", b"SSH-2.0-x", b"\x7f\xff\xff\xff"])
def test_what_is_no_answer_is_refused(said: bytes) -> None:
    with pytest.raises(ProtocolError, match="not nsqlookupd's protocol"):
        AnswerReader().feed(said)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"", "not nsqlookupd's protocol"),
        (b"\x00\x00\x00\x01E_BAD_PROTOCOL", "not nsqlookupd's protocol"),  # an nsqd
        (b'{"broadcast_address":"","http_port":1}', "not nsqlookupd's protocol"),
        (b'{"broadcast_address":"h","http_port":99999}', "not nsqlookupd's protocol"),
        (b"[" * 10_000, "not nsqlookupd's protocol"),
        (b"E_BAD_BODY IDENTIFY missing\x1b[2J fields", r"it refused: E_BAD_BODY IDENTIFY missing \[2J fields"),
    ],
)
def test_a_refusal_is_told_in_its_own_words(answer: bytes, told: str) -> None:
    with pytest.raises(ProtocolError, match=told):
        decode_identity(answer)


def test_where_it_answers_http() -> None:
    assert decode_identity(b"OK") == ""
    assert decode_identity(b'{"broadcast_address":"::1","http_port":4161}') == "[::1]:4161"


def test_channels_are_names() -> None:
    assert decode_channels(b'{"channels":["archive","tail#ephemeral"]}') == ["archive", "tail#ephemeral"]
    assert decode_channels(b'{"channels":null}') == []
    for body in (b'{"channels":[5]}', b'{"channels":["a b"]}', b'{"channels":"a"}', *BAD_JSON):
        with pytest.raises(ProtocolError):
            decode_channels(body)
