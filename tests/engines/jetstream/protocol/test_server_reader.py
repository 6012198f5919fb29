"""Bytes of a server become events: those of real servers, whole and byte by byte, half ones, and garbage."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import strategies as st

from qtools.engines.jetstream.protocol.server_reader import LONGEST_LINE, ConfirmedPublishes, NatsMessages, ServerReader
from qtools.errors import ProtocolError
from tests.engines.jetstream.protocol.reading import bytewise, rows_of
from tests.engines.jetstream.protocol.recordings import NEW, OLD
from tests.engines.nsq.protocol.garbage import check_fit_to_show, explore, spoilt

HEARTBEAT = b"NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: 2\r\nNats-Last-Stream: 2\r\n\r\n"
NO_MESSAGES = b"NATS/1.0 404 No Messages\r\n\r\n"
MESSAGE_ID = b"NATS/1.0\r\nNats-Msg-Id: m1\r\n\r\n"
OVER = b"NATS/1.0 408 Request Timeout\r\nNats-Pending-Messages: %d\r\nNats-Pending-Bytes: 0\r\n\r\n"


def two(first: bytes, second: bytes) -> list[tuple[object, ...]]:
    return [
        ("MSG", b"1", b"ev.a", b"$JS.ACK.EV.own." + first, b"", b"hello"),
        ("MSG", b"1", b"ev.a", b"$JS.ACK.EV.own." + second, MESSAGE_ID, b"hi"),
    ]


def status(name: bytes, block: bytes) -> tuple[object, ...]:
    return ("MSG", b"1", b"_INBOX.q." + name, b"", block, b"")


def answer(name: bytes, body: bytes) -> tuple[object, ...]:
    return ("MSG", b"1", b"_INBOX.q." + name, b"", b"", body)


BY_HAND = {
    "new": (NEW, {
        "no_responders_1": [status(b"a", b"NATS/1.0 503\r\nNats-Subject: nobody\r\n\r\n")],
        "pub_ack_1": [answer(b"1", b'{"stream":"EV","seq":1}')],
        "hpub_2": [answer(b"3", b'{"stream":"EV","seq":2,"duplicate": true}')],
        "next_1": [
            *two(b"1.1.1.1795969502145430871.1", b"1.2.2.1795969502446177995.0"), status(b"n1", NO_MESSAGES),
        ],
        "next_2": [status(b"n2", NO_MESSAGES)],
        "next_3": [*[status(b"n3", HEARTBEAT)] * 3, status(b"n3", OVER % 10)],
        "next_4": two(b"2.1.3.1795969502145430871.0", b"2.2.4.1795969502446177995.0"),
        "error_1": [(b"-ERR", b"Unknown Protocol Operation")],
    }),
    "old": (OLD, {
        "no_responders_1": [status(b"a", b"NATS/1.0 503\r\n\r\n")],
        "pub_ack_1": [answer(b"1", b'{"stream":"EV", "seq":1}')],
        "hpub_2": [answer(b"3", b'{"stream":"EV", "seq":2,"duplicate": true}')],
        "next_1": [*two(b"1.1.1.1795969516396607060.1", b"1.2.2.1795969516697443647.0"), status(b"n1", OVER % 8)],
        "next_2": [status(b"n2", NO_MESSAGES)],
        "next_3": [*[status(b"n3", HEARTBEAT)] * 3, status(b"n3", OVER % 10)],
        "next_4": two(b"2.1.3.1795969516396607060.0", b"2.2.4.1795969516697443647.0"),
        "error_1": [(b"-ERR", b"Unknown Protocol Operation")],
    }),
}  # fmt: skip
CASES = [(server, name) for server, (_, cases) in BY_HAND.items() for name in cases]
ALL = b"".join(NEW.values()) + b"PING\r\nPONG\r\n+OK\r\n" + b"".join(OLD.values())


@pytest.mark.parametrize(("server", "name"), CASES)
def test_what_a_real_server_sent(server: str, name: str) -> None:
    recorded, by_hand = BY_HAND[server]
    assert rows_of([recorded[name]]) == by_hand[name]
    assert rows_of(bytewise(recorded[name])) == by_hand[name]


def test_everything_in_chunks_of_every_size() -> None:
    whole = rows_of([ALL])
    assert len(whole) > 30
    assert (b"PING", b"") in whole
    for size in (*range(1, 60), 1000):
        assert rows_of(ALL[start : start + size] for start in range(0, len(ALL), size)) == whole


def test_half_a_message_waits_for_the_rest() -> None:
    whole = rows_of([ALL])
    for cut in range(0, len(ALL), 7):
        before = rows_of([ALL[:cut]])
        assert whole[: len(before)] == before
        assert rows_of([ALL[:cut], b"", ALL[cut:]]) == whole


def test_messages_of_a_subscription_are_one_event() -> None:
    messages = b"".join(b"MSG a 7 $JS.ACK.%d 1\r\n%d\r\n" % (number, number) for number in range(9))
    events = ServerReader().receive(messages + b"MSG b 8 0\r\n\r\n" + messages + b"PING\r\n" + messages)
    assert [len(event) if isinstance(event, NatsMessages) else event[0] for event in events] == [9, 1, 9, b"PING", 9]


def test_headers_in_the_middle_of_messages_without() -> None:
    plain, block = b"MSG a 1 r 1\r\nx\r\n", b"NATS/1.0\r\nA: 1\r\n\r\n"
    headed = b"HMSG a 1 r %d %d\r\n%by\r\n" % (len(block), len(block) + 1, block)
    (event,) = ServerReader().receive(plain + headed + plain)
    assert isinstance(event, NatsMessages)
    assert (event.headers, event.bodies) == ([b"", block, b""], [b"x", b"y", b"x"])


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n", b"GARBAGE", b"\r\n", b"MSG a 1\r\n", b"MSG a 1 -5\r\n", b"MSG a 1 +5\r\n",
        b"MSG a 1 1_0\r\n", b"MSG a b c d 5\r\n", b"MSG a 1 9999999999\r\n", b"MSG a 1 999999999\r\n",
        b"MSG a 1 1\r\nxyz", b"HMSG a 1 5\r\n", b"HMSG a 1 9 5\r\n", b"HMSG a 1 5 999999999\r\n", b"HMSG a 1 x 5\r\n",
        b"HMSG a 1 1 1\r\nxyz", b"PING now\r\n", b"ping\r\n", b"-NO\r\n", b"\x00\x00\x00\x06\x00\x00\x00\x00OK",
        b"AMQP\x00\x00\x09\x01", b"MSG " + b"a" * LONGEST_LINE, b"INFO " + b"a" * 1024 * 1024,
    ],
)  # fmt: skip
def test_what_is_not_nats_is_refused(data: bytes) -> None:
    for chunks in ([data], bytewise(data[:200])):
        with pytest.raises(ProtocolError) as caught:
            rows_of([*chunks, data[200:]])
        check_fit_to_show(caught.value)


def test_http_is_named() -> None:
    with pytest.raises(ProtocolError) as caught:
        rows_of([b"HTTP/1.1 400 Bad Request\r\n"])
    assert caught.value.looks_like == "HTTP"


def test_a_size_that_is_only_announced_takes_no_memory() -> None:
    reader = ServerReader()
    tracemalloc.start()
    try:
        reader.receive(b"MSG a 1 60000000\r\n")
        for _ in range(100):
            reader.receive(b"x" * 1000)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


@explore(60, data=spoilt(st.sampled_from([*NEW.values(), *OLD.values(), ALL])), places=st.lists(st.integers(1, 900)))
def test_garbage_is_parsed_or_refused(data: bytes, places: list[int]) -> None:
    """And the chunks make no difference to what is parsed."""

    def run(chunks: list[bytes]) -> object:
        try:
            return rows_of(chunks)
        except ProtocolError as error:
            check_fit_to_show(error)
            return "refused"

    cuts = [0, *sorted(place for place in places if place < len(data)), len(data)]
    whole = run([data])
    pieces = run([data[start:stop] for start, stop in pairwise(cuts)])
    assert whole == pieces


# ── answers to publishes ──

ANSWERS = b"".join(recorded[name] for recorded in (NEW, OLD) for name in ("pub_ack_1", "hpub_1", "hpub_2", "limit_2"))


def confirmed_and_others(chunks: list[bytes]) -> tuple[list[int], list[bytes]]:
    reader = ServerReader()
    reader.expect_confirmations(b"_INBOX.q.", b"1")
    numbers: list[int] = []
    others: list[bytes] = []
    for chunk in chunks:
        for event in reader.receive(chunk):
            if isinstance(event, ConfirmedPublishes):
                numbers += event.numbers
            elif isinstance(event, NatsMessages):
                others += event.bodies
    return numbers, others


def test_plain_answers_to_publishes_are_numbers() -> None:
    numbers, others = confirmed_and_others([ANSWERS * 3])
    assert numbers == [1, 2] * 6
    assert [b"duplicate" in body or b"error" in body for body in others] == [True] * 12


def test_half_an_answer_is_a_message_or_a_number_and_never_both() -> None:
    """However the chunks are cut."""
    for size in (1, 2, 3, 7, 20, 33, 100):
        data = ANSWERS * 4
        numbers, others = confirmed_and_others([data[start : start + size] for start in range(0, len(data), size)])
        assert len(numbers) + len(others) == 4 * 8
        assert sum(b"error" in body for body in others) == 8


@pytest.mark.parametrize(
    "data",
    [
        b'MSG _INBOX.q.1 2 23\r\n{"stream":"EV","seq":1}\r\n', b'MSG _INBOX.z.1 1 23\r\n{"stream":"EV","seq":1}\r\n',
        b'MSG _INBOX.q.1 1 26\r\n{"stream":"E\\"V","seq":1}\r\n'.replace(b"26", b"25"), b"MSG _INBOX.q.1 1 2\r\n{}\r\n",
        b'MSG _INBOX.q.1 1 36\r\n{"stream":"EV","seq":1,"domain":"hub"}\r\n'.replace(b"36", b"38"),
    ],
)  # fmt: skip
def test_other_answers_stay_messages(data: bytes) -> None:
    numbers, others = confirmed_and_others([data])
    assert (numbers, len(others)) == ([], 1)
