"""Every state that a connection can be in ends within its deadline, whatever the client does or leaves undone.

One gateway with short deadlines; a client for each state, all at the same time; measured is when the gateway has let go
of the client's socket, which the client itself cannot always see. A subscriber, by HTTP or as a WebSocket, may read and
answer pings as slowly as it likes while its machine acknowledges what it is sent: test_dead_client.py shows that one
whose machine does not is let go within three heartbeats.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import pytest
from harness.brokers import Broker
from harness.certificates import Certificates
from harness.gateway import Bare, Gateway
from harness.proxy import Proxy
from harness.shell import Shell

REQUEST, IDLE = 1.0, 1.5  # s, as the flags below
CLOSE, LINGER = 5.0, 2.0  # s: web/websocket.py, web/tracked_transport.py
SWEEP = 1.0  # s: how often the gateway looks
SLACK = 12.0  # s, for a machine that is busy: without a deadline a connection stays for ever

HOST = b"Host: localhost\r\n"
UPGRADE = (
    HOST + b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
PING = b"GET /ping HTTP/1.1\r\n" + HOST + b"\r\n"
MASKED_CLOSE = b"\x88\x82\0\0\0\0\x03\xe8"


@dataclass(frozen=True)
class State:
    """`enter` brings a client into the state; the gateway has to let go of it between `least` and `most` s after."""

    name: str
    enter: Callable[[Bare, str], None]
    most: float
    least: float = 0.0
    kind: str = "http"


def said(*pieces: bytes, until: bytes = b"", then: bytes = b"") -> Callable[[Bare, str], None]:
    def enter(client: Bare, topic: str) -> None:
        for piece in pieces:
            client.say(piece.replace(b"TOPIC", topic.encode()))
        if until:
            client.read_until(until)
        client.say(then)

    return enter


def answers_unread(client: Bare, topic: str) -> None:
    """Ask for more than the buffers hold."""
    client.say((b"GET /openapi.json HTTP/1.1\r\n" + HOST + b"\r\n") * 400)


def sends_on_after_refusal(client: Bare, topic: str) -> None:
    client.say(b"GARBAGE\r\n\r\n")

    def go_on() -> None:
        try:
            while True:
                client.say(b"x")
                time.sleep(0.1)
        except OSError:
            pass

    threading.Thread(target=go_on, daemon=True).start()


OPEN_SOCKET = b"GET /sub?topic=TOPIC&channel=me HTTP/1.1\r\n" + UPGRADE + b"\r\n"
STATES = [
    State("connected and silent", said(), REQUEST + LINGER, REQUEST),
    State("half a head", said(b"GET /ping HTTP/1.1\r\nHost:"), REQUEST + LINGER, REQUEST),
    State(
        "half a body of known length",
        said(b"POST /pub?topic=TOPIC HTTP/1.1\r\n" + HOST + b"Content-Length: 1000\r\n\r\nx"),
        REQUEST + 0.1 + LINGER, REQUEST,
    ),
    State(
        "half a body of unknown length",
        said(b"POST /mpub?topic=TOPIC HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx"),
        IDLE + LINGER, IDLE,
    ),
    State("idle after an answer", said(PING, until=b"OK"), IDLE + LINGER, IDLE),
    State("half a second head", said(PING + b"GET /pi", until=b"OK"), REQUEST + LINGER, REQUEST),
    State("answers that are not read", answers_unread, IDLE + LINGER, IDLE),
    State("refused and silent", said(b"GARBAGE\r\n\r\n"), LINGER),
    State("refused and sending on", sends_on_after_refusal, LINGER),
    State("refused as HTTP/1.0", said(b"GET /nothing HTTP/1.0\r\n\r\n"), LINGER),
    State("half a handshake", said(b"GET /sub?topic=TOPIC HTTP/1.1\r\n" + UPGRADE), REQUEST + LINGER, REQUEST),
    State(
        "a handshake with a body",
        said(b"GET /sub?topic=TOPIC HTTP/1.1\r\n" + UPGRADE + b"Content-Length: 9\r\n\r\n", until=b"HTTP/1.1 400 "),
        LINGER,
    ),
    State("a refused handshake", said(OPEN_SOCKET.replace(b"/sub", b"/s"), until=b"HTTP/1.1 404 "), LINGER),
    State("a WebSocket that closes and stays", said(OPEN_SOCKET, until=b"\r\n\r\n", then=MASKED_CLOSE), LINGER),
    State(
        "a WebSocket that does not answer Close",
        said(OPEN_SOCKET.replace(b"channel=me", b"channel=me&timeout=0.1"), until=b"\x88"),
        CLOSE + LINGER,
    ),
    State(
        "a handshake while no broker answers",
        said(OPEN_SOCKET.replace(b"channel=me", b"channel=late")),
        REQUEST + LINGER, REQUEST, "stalled",
    ),
    State(
        "a message published while no broker answers",
        said(b"POST /pub?topic=TOPIC HTTP/1.1\r\n" + HOST + b"Content-Length: 1\r\n\r\nx", until=b"HTTP/1.1 504 "),
        IDLE + LINGER, IDLE, "stalled",
    ),
    State("half a TLS handshake", said(b"\x16\x03\x01\x02\x00\x01"), REQUEST + LINGER, REQUEST, "https"),
    State("no TLS handshake", said(), REQUEST + LINGER, REQUEST, "https"),
    State("encrypted and silent", said(), REQUEST + LINGER, REQUEST, "encrypted"),
    State("encrypted, refused and silent", said(b"GARBAGE\r\n\r\n", until=b"HTTP/1.1 400 "), LINGER, 0.0, "encrypted"),
]  # fmt: skip


def is_open(server: int, client: int) -> bool:
    """Whether a process still has the server's end of the connection between these two ports."""
    ends = f":{server:04X}", f":{client:04X}"
    with open("/proc/net/tcp") as file:
        for line in file.readlines()[1:]:
            words = line.split()
            if words[1].endswith(ends[0]) and words[2].endswith(ends[1]):
                # ESTABLISHED without an inode: nobody has accepted it yet.
                return words[9] != "0" or words[3] == "01"
    return False


class Gateways:
    """Three with the same deadlines: one for HTTP, one for HTTPS, one behind which no broker answers."""

    def __init__(self, shell: Shell, broker: Broker, certificates: Certificates) -> None:
        flags = ["--request-timeout", f"{REQUEST}s", "--idle-timeout", f"{IDLE}s", "--heartbeat", "1s"]
        cert, key = str(certificates.server_cert), str(certificates.server_key)
        self.proxy = Proxy(int(broker.address.rpartition(":")[2]))
        self.plain = Gateway(shell, broker, *flags)
        self.https = Gateway(shell, broker, *flags, "--https-cert", cert, "--https-key", key)
        self.stalled = Gateway(shell, broker, *flags, "--publish-timeout", "1s", broker_flags=self.proxy.flags)
        self.proxy.stall()

    def port(self, kind: str) -> int:
        return {"http": self.plain, "stalled": self.stalled}.get(kind, self.https).port

    def close(self) -> None:
        for gateway in (self.plain, self.https, self.stalled):
            gateway.close()
        self.proxy.close()


def seconds_of(gateways: Gateways, state: State, topic: str) -> float:
    """How long the gateway holds a client in `state`."""
    begun = time.monotonic()
    client = Bare(gateways.port(state.kind))
    port = client.socket.getsockname()[1]
    if state.kind == "encrypted":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        client.socket = context.wrap_socket(client.socket)
    state.enter(client, topic)
    while is_open(gateways.port(state.kind), port) and time.monotonic() < begun + 30:
        time.sleep(0.05)
    client.close()
    return time.monotonic() - begun


@pytest.fixture(scope="module")
def held(broker: Broker, certificates: Certificates) -> Iterator[dict[str, Future[float]]]:
    """How long the gateway held a client in each state."""
    if not hasattr(socket, "TCP_INFO"):
        pytest.skip("what a process holds is read from Linux' /proc/net/tcp")
    shell = Shell()
    gateways = Gateways(shell, broker, certificates)
    broker.create("deadlines", "me", "late")
    with ThreadPoolExecutor(len(STATES)) as pool:
        yield {state.name: pool.submit(seconds_of, gateways, state, "deadlines") for state in STATES}
    gateways.close()
    shell.close()


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.name)
def test_every_state_ends_within_its_deadline(held: dict[str, Future[float]], state: State) -> None:
    seconds = held[state.name].result()
    assert state.least <= seconds <= state.most + SWEEP + SLACK
