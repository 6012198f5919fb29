"""What the server says in headers, ack subjects, answers to publishes, INFO and -ERR."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qtools.engines.jetstream.protocol.ack_subject import Delivered, parse_ack_subject, redelivered
from qtools.engines.jetstream.protocol.headers import Status, parse_headers, status_of
from qtools.engines.jetstream.protocol.pub_acks import PubRefusal, read_pub_acks
from qtools.engines.jetstream.protocol.server_info import explain_error, parse_info
from qtools.engines.jetstream.protocol.server_reader import ControlLine, NatsMessages, ServerReader
from qtools.errors import AuthError, BrokerError, ProtocolError, SizeError
from tests.engines.jetstream.protocol.recordings import NEW, OLD

V1 = b"$JS.ACK.EV.own.2.1.3.1795969502145430871.7"
V2 = b"$JS.ACK.hub.ABCDEF.EV.own.2.1.3.1795969502145430871.7"
TOLD = Delivered("EV", "own", 2, 1, 3, 1795969502145430871, 7)


def messages(data: bytes) -> NatsMessages:
    (event,) = ServerReader().receive(data)
    assert isinstance(event, NatsMessages)
    return event


# ── ack subjects ──


@pytest.mark.parametrize("subject", [V1, V2, V2 + b".xyz"])
def test_what_an_ack_subject_tells(subject: bytes) -> None:
    assert parse_ack_subject(subject) == TOLD


@pytest.mark.parametrize(
    "subject", [b"", b"a.b", V1[:-2], V1 + b".1", V1.replace(b".2.", b".x."), V1.replace(b"$JS", b"JS"), V2 + b".a.b.c"]
)
def test_what_is_no_ack_subject(subject: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse_ack_subject(subject)


def test_redelivered_messages_are_counted() -> None:
    for prefix in (b"$JS.ACK.EV.own.", b"$JS.ACK._.ABC.EV.own."):
        first = [b"%b1.%d.1.17.0" % (prefix, number) for number in range(50)]
        again = [b"%b%d.1.1.17.0" % (prefix, times) for times in (2, 10, 11, 100)]
        assert redelivered(first) == 0
        assert redelivered([*first, *again, *first]) == 4
        assert redelivered([*again, *first]) == 4
    assert redelivered([]) == 0


# ── headers and status lines ──


def test_status_lines() -> None:
    assert status_of(b"NATS/1.0 503\r\n\r\n") == Status(503)
    over = status_of(b"NATS/1.0 408 Request Timeout\r\nNats-Pending-Messages: 10\r\nNats-Pending-Bytes: 0\r\n\r\n")
    assert (over.code, over.text, over.pending) == (408, "Request Timeout", 10)
    gone = status_of(b"NATS/1.0 409 Consumer Deleted\r\n\r\n")
    assert (gone.code, gone.text, gone.pending) == (409, "Consumer Deleted", None)
    assert status_of(b"NATS/1.0\r\nA: 1\r\n\r\n").code == 0
    assert status_of(b"NATS/1.0 408 x\r\nNats-Pending-Messages: -1\r\n\r\n").pending is None


@pytest.mark.parametrize("block", [b"", b"HTTP/1.1 200 OK\r\n\r\n", b"NATS/1.0 4\r\n", b"NATS/1.0 abc\r\n", b"\xff"])
def test_what_is_no_header_block(block: bytes) -> None:
    with pytest.raises(ProtocolError):
        status_of(block)


def test_headers_keep_their_order_and_their_bytes() -> None:
    block = b"NATS/1.0\r\nb: 1\r\na:2\r\nb:  \xff x \r\nnonsense\r\n: 3\r\nc:\r\n\r\n"
    assert parse_headers(block) == [("b", b"1"), ("a", b"2"), ("b", b"\xff x"), ("c", b"")]


# ── answers to publishes ──

INBOX = b"_INBOX.q."


@pytest.mark.parametrize("recorded", [NEW, OLD], ids=["new", "old"])
def test_answers_of_real_servers(recorded: dict[str, bytes]) -> None:
    acks = read_pub_acks(messages(recorded["pub_ack_1"] + recorded["hpub_1"]), INBOX)
    assert (acks.numbers, acks.refused, acks.duplicates) == ([1, 2], {}, 0)
    acks = read_pub_acks(messages(recorded["hpub_2"]), INBOX)
    assert (acks.numbers, acks.refused, acks.duplicates) == ([3], {}, 1)
    acks = read_pub_acks(messages(recorded["limit_1"] + recorded["limit_2"] + recorded["limit_3"]), INBOX)
    assert acks.numbers == [5, 6, 7]
    assert acks.refused == {
        6: PubRefusal(503, 10077, "maximum messages exceeded"),
        7: PubRefusal(400, 10054, "message size exceeds maximum allowed"),
    }


def test_no_stream_has_the_subject() -> None:
    block = b"NATS/1.0 503\r\n\r\n"
    acks = read_pub_acks(messages(b"HMSG _INBOX.q.12 1 %d %d\r\n%b\r\n" % (len(block), len(block), block)), INBOX)
    assert acks.refused == {12: PubRefusal(503, 0, "")}


@pytest.mark.parametrize("body", [b"", b"+OK", b"{}", b"[1]", b'{"stream":', b"\xff", b"[" * 5000])
def test_an_answer_of_another_program_is_no_confirmation(body: bytes) -> None:
    data = b"MSG _INBOX.q.1 1 %d\r\n%b\r\n" % (len(body), body)
    assert read_pub_acks(messages(data), INBOX).refused == {
        1: PubRefusal(0, 0, "what answered is no stream of JetStream")
    }


def test_an_answer_to_another_subject() -> None:
    with pytest.raises(ProtocolError):
        read_pub_acks(messages(b"MSG _INBOX.q.x 1 0\r\n\r\n"), INBOX)


@given(st.lists(st.binary(max_size=60), min_size=1, max_size=5))
def test_any_answer_is_confirmed_or_refused(bodies: list[bytes]) -> None:
    data = b"".join(b"MSG _INBOX.q.%d 1 %d\r\n%b\r\n" % (n, len(body), body) for n, body in enumerate(bodies))
    acks = read_pub_acks(messages(data), INBOX)
    assert acks.numbers == list(range(len(bodies)))
    assert set(acks.refused) == set(acks.numbers)


# ── INFO and -ERR ──


def info(data: bytes) -> bytes:
    (event,) = ServerReader().receive(data)
    assert isinstance(event, ControlLine)
    return event.argument


@pytest.mark.parametrize(("recorded", "version"), [(NEW, "2.15.1"), (OLD, "2.9.10")])
def test_info_of_real_servers(recorded: dict[str, bytes], version: str) -> None:
    found = parse_info(info(recorded["info_1"]))
    assert (found.version, found.max_payload, found.jetstream, found.headers) == (version, 1048576, True, True)
    assert (found.auth_required, found.tls_required, found.nonce, found.connect_urls) == (False, False, "", ())
    assert len(found.server_id) == 56


def test_info_with_wrong_types_is_taken_as_if_they_were_missing() -> None:
    found = parse_info(b'{"server_id":"A","max_payload":true,"nonce":1,"connect_urls":[1,"b:1"],"tls_required":"yes"}')
    assert (found.max_payload, found.nonce, found.connect_urls, found.tls_required) == (1048576, "", ("b:1",), False)


@pytest.mark.parametrize("argument", [b"", b"x", b"[]", b"{}", b'{"server_id":1}', b"\xff", b"[" * 5000])
def test_what_is_no_info(argument: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse_info(argument)


@pytest.mark.parametrize(
    ("text", "kind", "ends", "subject"),
    [
        (b"Authorization Violation", AuthError, True, ""),
        (b"User Authentication Expired", AuthError, True, ""),
        (b"Authentication Timeout", AuthError, True, ""),
        (b'Permissions Violation for Publish to "a.b"', AuthError, False, "a.b"),
        (b'Permissions Violation for Subscription to "a.>"', AuthError, False, "a.>"),
        (b"Maximum Payload Violation", SizeError, True, ""),
        (b"Secure Connection - TLS Required", BrokerError, True, ""),
        (b"Stale Connection", BrokerError, True, ""),
        (b"\xff\x00", BrokerError, True, ""),
    ],
)
def test_what_an_error_means(text: bytes, kind: type[Exception], ends: bool, subject: str) -> None:
    found = explain_error(text)
    assert (type(found.error), found.ends_connection, found.subject) == (kind, ends, subject)
    assert str(found.error).isprintable()
