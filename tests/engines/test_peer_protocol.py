"""What speaks at an address: each protocol is recognized, and the advice fits what the user has written."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from harness.brokers import Broker
from harness.certificates import Certificates
from harness.ports import free_pair

from qtools.engines import peer_protocol
from qtools.engines.choice import BrokerFlags, ConnectionFlags, choose_broker, engine_of
from qtools.engines.kafka.client_errors import CLOSED, CLOSED_WITH_TLS, LOGIN_MISSING
from qtools.engines.kafka.clients import ErrorLog, _reason_of_no_answer
from qtools.engines.kafka.settings import KafkaSettings
from qtools.engines.peer_protocol import PeerProtocol, advice_on_answer, protocol_at
from qtools.errors import StartError
from tests.engines.reading import publishing

Answer = Callable[[bytes], bytes]


def kafka(question: bytes) -> bytes:
    """The begin of a broker's answer to a request for the versions of its API; it closes for all else."""
    return b"\0\0\1\0" + question[8:12] if question[4:6] == b"\0\x12" else b""


def web(question: bytes) -> bytes:
    return b"HTTP/1.1 404 Not Found\r\n\r\n" if question.startswith(b"GET ") else b""


@asynccontextmanager
async def listening(answer: Answer, tls: ssl.SSLContext | None = None, first: bytes = b"") -> AsyncIterator[str]:
    """The address of a server that answers once and closes. first: what it says before any question."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            writer.write(first)
            writer.write(answer(await reader.read(100)))
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


def server_tls(certificates: Certificates) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.server_cert, certificates.server_key)
    return context


@pytest.mark.parametrize("is_tls", [False, True])
@pytest.mark.parametrize(
    ("answer", "first", "name"),
    [
        (kafka, b"", "Kafka"),
        (web, b"", "HTTP"),
        (lambda _: b"", b'INFO {"server_id":"x"}\r\n', "NATS"),
        (lambda _: b"-ERR unknown command\r\n", b"", "Redis"),
        (lambda _: b"AMQP\0\0\x09\x01", b"", "AMQP"),
        (lambda _: b"\0\0\0\x12\0\0\0\1E_BAD_PROTOCOL", b"", "NSQ"),
        (lambda _: b"", b"SSH-2.0-OpenSSH_9.2p1\r\n", "SSH"),
        (lambda _: b"", b"220 mail.example ESMTP\r\n", ""),
        (lambda _: b"", b"", ""),
    ],
)
async def test_protocols(certificates: Certificates, answer: Answer, first: bytes, name: str, is_tls: bool) -> None:
    async with listening(answer, server_tls(certificates) if is_tls else None, first) as address:
        assert await protocol_at(address) == PeerProtocol(name, is_tls)


async def test_real_ports_of_a_broker(broker: Broker) -> None:
    assert await protocol_at(broker.address) == PeerProtocol("NSQ")
    assert await protocol_at(broker.http) == PeerProtocol("HTTP")


async def test_a_server_that_asks_for_a_certificate(certificates: Certificates) -> None:
    """In a thread, as asyncio closes before it has sent the reason."""
    context = server_tls(certificates)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(certificates.ca)

    def serve(server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = server.accept()
                with contextlib.suppress(ssl.SSLError), context.wrap_socket(client, server_side=True):
                    pass
                client.close()

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, args=(server,))
        thread.start()
        found = await protocol_at(f"127.0.0.1:{server.getsockname()[1]}")
        server.shutdown(socket.SHUT_RDWR)
    thread.join(5)
    assert found == PeerProtocol("", True, wants_certificate=True)


async def test_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer_protocol, "TIMEOUT", 0.1)
    assert await protocol_at(f"127.0.0.1:{free_pair()}") == PeerProtocol()
    assert await protocol_at("no host") == PeerProtocol()
    held: list[asyncio.StreamWriter] = []  # a server that says nothing
    server = await asyncio.start_server(lambda _, writer: held.append(writer), "127.0.0.1", 0)
    async with server:
        assert await protocol_at(f"127.0.0.1:{server.sockets[0].getsockname()[1]}") == PeerProtocol()
        for writer in held:
            writer.close()


@pytest.mark.parametrize(
    ("found", "expected", "is_tls", "advice"),
    [
        (PeerProtocol("Kafka"), "Kafka", False, ""),
        (PeerProtocol("Kafka", True), "Kafka", True, ""),
        (PeerProtocol("Kafka", True), "Kafka", False, "it speaks TLS: use kafkas:// instead of kafka://"),
        (PeerProtocol("", True), "Kafka", False, "it speaks TLS: use kafkas:// instead of kafka://"),
        (PeerProtocol("Kafka"), "Kafka", True, "it does not speak TLS: use kafka:// instead of kafkas://"),
        (PeerProtocol("NSQ"), "Kafka", True, "it speaks NSQ's protocol, and not Kafka's: use nsq://h:1"),
        (PeerProtocol("Kafka", True), "NSQ", False, "it speaks Kafka's protocol, and not NSQ's: use kafkas://h:1"),
        (PeerProtocol("NSQ"), "NSQ", True, ""),  # NSQ asks for TLS inside its protocol
        (PeerProtocol("", True), "NSQ", False,
         "it speaks TLS from the first byte, which NSQ does not: another service listens there"),
        (PeerProtocol("HTTP", True), "Kafka", False, "it answers HTTPS, and does not speak Kafka's protocol"),
        (PeerProtocol("SSH"), "Kafka", False, "it speaks SSH's protocol, and not Kafka's"),
        (PeerProtocol(), "Kafka", False, ""),
    ],
)  # fmt: skip
def test_advice(found: PeerProtocol, expected: str, is_tls: bool, advice: str) -> None:
    assert found.advice(expected, "h:1", is_tls=is_tls) == advice


INFO, PONG, ALERT = b'INFO {"server_id":"A"} \r\n', b"+PONG\r\n", b"\x15\x03\x01\x00\x02\x02\x16"


@pytest.mark.parametrize(
    ("first", "expected", "is_tls", "in_tls", "advice"),
    [
        (INFO, "Redis", False, None, "it speaks NATS's protocol, and not Redis's: use nats://h:1"),
        (INFO, "NATS", False, None, ""),
        (PONG, "NATS", False, None, "it speaks Redis's protocol, and not NATS's: use redis://h:1"),
        (PONG, "NATS", True, False, "it speaks Redis's protocol, and not NATS's: use redis://h:1"),
        (PONG, "AMQP", True, None, "it speaks Redis's protocol, and not AMQP's: use rediss://h:1"),
        (b"AMQP\x00\x00\x09\x01", "Redis", False, None, "it speaks AMQP's protocol, and not Redis's: use amqp://h:1"),
        (b"HTTP/1.1 400 Bad Request\r\n", "NATS", False, None, "it answers HTTP, and does not speak NATS's protocol"),
        (ALERT, "Redis", False, None, "it speaks TLS: use rediss:// instead of redis://"),
        (ALERT, "NATS", True, False, ""),
        (b"\xff\x00", "NATS", False, None, ""),
    ],
)
def test_advice_on_an_answer(first: bytes, expected: str, is_tls: bool, in_tls: bool | None, advice: str) -> None:
    assert advice_on_answer(first, expected, "h:1", is_tls=is_tls, in_tls=in_tls) == advice


@pytest.mark.parametrize(
    ("scheme", "expected", "first", "advice"),
    [
        ("nats", "NATS", PONG, "it speaks Redis's protocol, and not NATS's: use redis://{}"),
        ("amqp", "AMQP", PONG, "it speaks Redis's protocol, and not AMQP's: use redis://{}"),
        ("redis", "Redis", INFO, "it speaks NATS's protocol, and not Redis's: use nats://{}"),
        ("nsq", "NSQ", INFO, "it speaks NATS's protocol, and not NSQ's: use nats://{}"),
    ],
)
async def test_every_engine_says_it_in_the_same_words(scheme: str, expected: str, first: bytes, advice: str) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.read(100):
            writer.write(first)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        choice = choose_broker(BrokerFlags(broker=[f"{scheme}://{address}"]), environ={})
        with pytest.raises(StartError) as caught:
            async with publishing(engine_of("tests", choice, ConnectionFlags({}, {}), {})):
                pass
    assert str(caught.value) == f"{address}: " + advice.format(address)


RESET = "SSL handshake failed: SSL transport error: Connection reset by peer"
PLAIN_PORT = "it does not speak TLS: use kafka:// instead of kafkas://"


@pytest.mark.parametrize("last", [CLOSED_WITH_TLS, RESET, PLAIN_PORT, ""])
async def test_a_plain_port_of_kafka_is_told_whatever_error_came_last(last: str) -> None:
    async with listening(kafka) as address:
        errors = ErrorLog(KafkaSettings((address,), tls=True))
        errors.last = last
        assert await _reason_of_no_answer(errors) == PLAIN_PORT


@pytest.mark.parametrize(
    "last", [CLOSED, "disconnected while requesting ApiVersion", "receive failed: Connection reset"]
)
async def test_a_login_that_is_missing_is_told_whatever_error_came_last(last: str) -> None:
    """A listener with SASL answers the first request, and closes at the next one."""
    async with listening(kafka) as address:
        errors = ErrorLog(KafkaSettings((address,)))
        errors.last = last
        assert await _reason_of_no_answer(errors) == LOGIN_MISSING
        errors.last = "the host name is not known"
        assert await _reason_of_no_answer(errors) == errors.last


class LibraryError:
    """An error as librdkafka reports it."""

    def __init__(self, code: int, text: str) -> None:
        self._code, self._text = code, text

    def code(self) -> int:
        return self._code

    def str(self) -> str:
        return self._text


def test_a_refused_login_stays_the_reason() -> None:
    errors = ErrorLog(KafkaSettings(("h:1",), mechanism="PLAIN"))
    errors(LibraryError(-169, "sasl_plaintext://h:1/bootstrap: SASL authentication error: Authentication failed"))
    errors(LibraryError(-195, "h:1/bootstrap: Disconnected (after 1ms in state AUTH_REQ)"))
    errors(LibraryError(-187, "1/1 brokers are down"))
    assert (errors.last, errors.is_permanent) == ("SASL authentication error: Authentication failed", True)
    errors.clear()
    assert (errors.last, errors.is_permanent) == ("", False)
