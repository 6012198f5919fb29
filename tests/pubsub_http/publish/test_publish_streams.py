"""A body without end: published as it comes, in bounded memory, and told how far it came when it breaks."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from conftest import MakeBroker
from harness.brokers import Broker
from harness.gateway import Bare, Gateway
from harness.waiting import wait_until

from tests.pubsub_http.conftest import MakeGateway

HEAD = "POST /mpub?topic=%s%s HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Feed:
    """A body that goes on when the test says so."""

    def __init__(self, *first: bytes) -> None:
        self.more = threading.Semaphore(len(first))
        self.pieces = list(first)

    def put(self, piece: bytes) -> None:
        self.pieces.append(piece)
        self.more.release()

    def __iter__(self) -> Iterator[bytes]:
        while True:
            self.more.acquire()
            piece = self.pieces.pop(0)
            if not piece:
                return
            yield piece


def test_messages_are_in_the_topic_while_the_body_goes_on(gateway: Gateway, broker: Broker, topic: str) -> None:
    client = Bare(gateway.port)
    client.say((HEAD % (topic, "")).encode() + chunk(b"one\ntw"))
    wait_until(lambda: broker.published(topic) == 1)
    client.say(chunk(b"o\nthree"))
    wait_until(lambda: broker.published(topic) == 2)
    client.say(chunk(b""))
    assert b"q-published: 3\r\n" in client.read_until(b"OK")
    client.close()
    assert broker.bodies(topic) == [b"one", b"two", b"three"]


def test_a_cut_message_is_not_published(gateway: Gateway, broker: Broker, topic: str) -> None:
    client = Bare(gateway.port)
    client.say((HEAD % (topic, "")).encode() + chunk(b"whole\ncut in the mi"))
    wait_until(lambda: broker.published(topic) == 1)
    client.reset()
    # what comes afterwards has come after it: the stream's end was seen
    assert gateway.post("/pub", b"after", topic=topic).status_code == 200
    assert broker.bodies(topic) == [b"whole", b"after"]


@pytest.mark.parametrize(
    ("form", "good", "bad", "status", "word"),
    [
        ("envelope", b'{"body":"a"}\n', b"{]\n", 400, "BAD_MESSAGE"),
        ("msgpack", b"\x81\xa4body\xc4\x01a", b"\x81\xa4body\x01", 400, "BAD_MESSAGE"),
        ("length32", b"\0\0\0\1a", b"\xff\0\0\0", 413, "MSG_TOO_BIG"),
        ("lines", b"a\n", b"x" * (1024 * 1024 + 1), 413, "MSG_TOO_BIG"),
        ("length32", b"\0\0\0\1a", b"\0\0\0\5ab", 400, "BAD_MESSAGE"),
    ],
)
def test_a_stream_that_breaks_says_how_far_it_came(
    gateway: Gateway, broker: Broker, topic: str, form: str, good: bytes, bad: bytes, status: int, word: str
) -> None:
    answer = gateway.post("/mpub", iter([good * 3, bad]), topic=topic, format=form)
    told = answer.json()
    assert (answer.status_code, told["message"], told["published"]) == (status, word, 3)
    assert broker.bodies(topic) == [b"a"] * 3


def test_who_sends_without_end_after_a_refusal_is_hung_up_on(gateway: Gateway, topic: str) -> None:
    client = Bare(gateway.port)
    client.say((HEAD % (topic, "&format=envelope")).encode() + chunk(b"{]\n"))
    answer = client.read_until(b"BAD_MESSAGE")
    assert b"\r\nconnection: close\r\n" in answer
    with pytest.raises(OSError, match=r"(?i)reset|pipe|abort"):
        client.say(chunk(b"x" * 65536) * 400)
    client.close()


def test_memory_is_bounded_whatever_comes(make_gateway: MakeGateway, make_broker: MakeBroker, topic: str) -> None:
    """150 MB through a gateway whose broker stands still for a while: what cannot go on is not taken in."""
    broker = make_broker("--mem-queue-size=1000")
    gateway = make_gateway(broker)
    assert gateway.post("/pub", b"warm", topic="warm").status_code == 200
    before = gateway.memory()
    broker.freeze()
    line = b"x" * 999 + b"\n"
    done: list[int] = []

    def feed() -> Iterator[bytes]:
        for _ in range(2000):
            yield line * 64

    thread = threading.Thread(target=lambda: done.append(gateway.post("/mpub", feed(), topic=topic).status_code))
    thread.start()
    grown = [gateway.memory() - before]
    wait_until(lambda: grown.append(gateway.memory() - before) or len(grown) > 100)
    broker.thaw()
    thread.join(60)
    assert done == [200]
    assert max(*grown, gateway.memory() - before) < 48 * 1024 * 1024
    assert broker.published(topic) == 128_000
