"""One budget bounds what a process holds for all its clients: beyond it the slowest are ended, named and counted."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import httpx
import pytest
from harness.brokers import Broker
from harness.gateway import Bare, Gateway
from harness.metrics import scrape, where
from harness.proxy import Proxy
from harness.shell import NOT_MEASURED
from harness.waiting import wait_until

from tests.pubsub_http.conftest import MakeGateway

MakeProxy = Callable[[Broker], Proxy]

MB = 1_000_000
LIMIT = 40 * MB
BODY = b"x" * 5000
COUNT = 20_000  # 100 MB of bodies: more than the limit, in whatever way it is held

HANDSHAKE = (
    "GET /sub?topic={topic}{query} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


class Peak:
    """The most memory that a gateway has had, looked at often, and how long an honest request took at most."""

    def __init__(self, gateway: Gateway) -> None:
        self.base = gateway.memory()
        self.memory = 0
        self.latency = 0.0
        self._gateway = gateway
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        with httpx.Client(base_url=self._gateway.url, timeout=60, trust_env=False) as client:
            while not self._ended.wait(0.02):
                begun = time.monotonic()
                assert client.get("/ping").status_code == 200
                self.latency = max(self.latency, time.monotonic() - begun)
                self.memory = max(self.memory, self._gateway.memory() - self.base)


@pytest.fixture
def limited(make_gateway: MakeGateway, broker: Broker) -> Gateway:
    return make_gateway(broker, "--max-memory", f"{LIMIT // MB}MB", "--metrics-address", "0")


def metric(gateway: Gateway, name: str) -> float:
    return scrape(where(gateway.process))[f"qtools_pubsub_http_{name}"]


Subscribe = Callable[..., Bare]


@pytest.fixture
def subscribe() -> Iterator[Subscribe]:
    """Makes clients that subscribe, and then read nothing."""
    clients: list[Bare] = []

    def make(gateway: Gateway, topic: str, query: str, is_websocket: bool) -> Bare:
        client = Bare(gateway.port, receive_buffer=4096)
        clients.append(client)
        if is_websocket:
            client.say(HANDSHAKE.format(topic=topic, query=query).encode())
        else:
            client.get(f"/sub?topic={topic}{query}")
        head = client.read_until(b"\r\n\r\n")
        assert b" 200 " in head or b" 101 " in head, head
        return client

    yield make
    for client in clients:
        client.close()


class Honest(threading.Thread):
    """A subscriber that reads all the time. `arrived` are the numbers that the bodies begin with."""

    def __init__(self, gateway: Gateway, topic: str) -> None:
        super().__init__()
        self.arrived: list[int] = []
        self._url = f"{gateway.url}/sub?topic={topic}&channel=honest&format=raw&max_in_flight=100&count={COUNT}"
        self.start()

    def run(self) -> None:
        data = b""
        with httpx.stream("GET", self._url, timeout=60, trust_env=False) as answer:
            for chunk in answer.iter_bytes():
                *lines, data = (data + chunk).split(b"\n")
                self.arrived += [int(line[:8]) for line in lines]


@NOT_MEASURED
@pytest.mark.parametrize(
    ("query", "is_websocket"),
    [("", False), ("", True), ("&format=msgpack", True), ("&channel={n}", False), ("&channel={n}", True),
     ("&channel={n}&ack=client&max_in_flight=2500", False)],
)  # fmt: skip
def test_subscribers_that_do_not_read(
    limited: Gateway, broker: Broker, topic: str, query: str, is_websocket: bool, subscribe: Subscribe
) -> None:
    broker.create(topic)
    clients = [subscribe(limited, topic, query.format(n=f"c{n}"), is_websocket) for n in range(20)]
    honest = Honest(limited, topic)
    with Peak(limited) as peak:
        wait_until(lambda: metric(limited, "subscribers") == 21)
        broker.fill(topic, [b"%08d" % n + BODY for n in range(COUNT)])
        honest.join(60)
        wait_until(lambda: metric(limited, "memory_bytes") <= LIMIT)
    assert sorted(honest.arrived) == list(range(COUNT))
    assert peak.memory < 4 * LIMIT  # what was freed is not given back to the system at once
    assert peak.latency < 10.0  # on a busy machine; the loop is not held up for long
    # Those without a channel share what they have not read, and miss messages when it is too much.
    assert (metric(limited, "ended_for_memory_total") > 0) == ("channel" in query)
    names = [f"ended the slow subscriber 127.0.0.1:{client.socket.getsockname()[1]} of {topic}" for client in clients]
    assert sum(name in limited.process.err for name in names) == metric(limited, "ended_for_memory_total")
    if "channel" in query:
        for n in range(20):  # what an ended client has not taken is in its channel again
            assert broker.depth(topic, f"c{n}").held > COUNT - 2000


def test_readers_without_a_channel_that_hold_too_much_are_ended(
    make_gateway: MakeGateway, broker: Broker, topic: str, subscribe: Subscribe
) -> None:
    """What they share is given up when the last of them is ended; a reader that keeps pace misses nothing."""
    gateway = make_gateway(broker, "--max-memory", "20MB", "--metrics-address", "0")
    broker.create(topic)
    slow = [subscribe(gateway, topic, "", is_websocket) for is_websocket in (False, True)]
    with gateway.stream(topic) as stream:
        for number in range(100):
            broker.fill(topic, [b"%08d" % number + b"x" * 500_000])
            assert stream.message()["body"].startswith(f"{number:08}")
        wait_until(lambda: metric(gateway, "ended_for_memory_total") == 2)
        broker.fill(topic, [b"last"])
        assert stream.message()["body"] == "last"
        assert metric(gateway, "memory_bytes") < 20 * MB
    for client in slow:
        name = f"ended the slow subscriber 127.0.0.1:{client.socket.getsockname()[1]} of {topic}: "
        assert gateway.process.err.count(name) == 1


def test_publishes_that_wait_for_the_broker(
    make_gateway: MakeGateway, broker: Broker, topic: str, make_proxy: MakeProxy
) -> None:
    proxy: Proxy = make_proxy(broker)
    words = ["--max-memory", "30MB", "--metrics-address", "0", "--publish-timeout", "60s"]
    gateway = make_gateway(broker, *words, broker_flags=proxy.flags)
    assert gateway.post("/pub", b"first", topic=topic).status_code == 200
    proxy.stall()
    answers: list[int] = []

    def publish(size: int) -> None:
        with httpx.Client(base_url=gateway.url, timeout=60, trust_env=False) as client:
            answers.append(client.post("/mpub", params={"topic": topic}, content=b"x" * size + b"\n").status_code)

    with Peak(gateway) as peak:
        threads = [threading.Thread(target=publish, args=(900_000,)) for _ in range(60)]
        for thread in threads:
            thread.start()
            time.sleep(0.005)  # as clients come: the budget is looked at ten times a second
        wait_until(lambda: answers.count(503) > 20)
        assert gateway.post("/pub", b"y", topic=topic).json()["message"] == "OUT_OF_MEMORY"
        proxy.resume()
        for thread in threads:
            thread.join()
    assert set(answers) == {200, 503}
    assert peak.memory < 4 * 30 * MB
    wait_until(lambda: gateway.post("/pub", b"last", topic=topic).status_code == 200)
    assert broker.published(topic) == answers.count(200) + 2
    assert metric(gateway, "refused_for_memory_total") >= answers.count(503)


def masked(opcode: int, payload: bytes = b"", fin: bool = True) -> bytes:
    """A client's frame (RFC 6455, 5.2), masked with zeros."""
    return bytes([(0x80 if fin else 0) | opcode, 0x80 | len(payload)]) + b"\0\0\0\0" + payload


def _accepts(client: Bare, data: bytes) -> bool:
    """Whether the other side takes all of `data`, and does not hang up."""
    try:
        client.say(data)
    except (ConnectionResetError, BrokenPipeError):
        return False
    return True


def test_a_flood_of_pings_is_ended_and_holds_up_nobody(
    limited: Gateway, broker: Broker, topic: str, subscribe: Subscribe
) -> None:
    broker.create(topic)
    client = subscribe(limited, topic, "", True)
    flood = masked(9, b"p" * 100) * 100_000
    with Peak(limited) as peak:
        assert not _accepts(client, flood + flood)
    assert peak.memory < 20 * MB
    assert peak.latency < 3.0
    assert "it sent too many control frames or fragments" in limited.process.err


def test_a_message_in_too_many_fragments_ends_its_client(
    limited: Gateway, broker: Broker, topic: str, subscribe: Subscribe
) -> None:
    broker.create(topic)
    client = subscribe(limited, topic, "&channel=c&ack=client", True)
    client.say(masked(1, b"{", fin=False) + masked(0, fin=False) * 900 + masked(0, b'"touch":[]}'))
    assert b'"touch":0' in client.read_until(b"}")
    client.say(masked(1, b"{", fin=False) + masked(0, fin=False) * 2000)
    assert b"\x88\x02\x03\xf1" in client.read_all()  # Close 1009


def test_pings_are_answered_in_between(limited: Gateway, broker: Broker, topic: str, subscribe: Subscribe) -> None:
    broker.create(topic)
    client = subscribe(limited, topic, "", True)
    for n in range(50):
        client.say(masked(9, b"%d" % n))
        assert client.read_until(b"%d" % n) == b"\x8a%c%d" % (len(str(n)), n)
