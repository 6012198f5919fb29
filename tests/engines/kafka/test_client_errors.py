"""librdkafka's reasons in plain sentences."""

from __future__ import annotations

import asyncio

import pytest

from qtools.engines.kafka.client_errors import plain
from qtools.engines.kafka.engine import KafkaEngine
from qtools.engines.kafka.settings import KafkaSettings
from qtools.errors import StartError


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("127.0.0.1:1/bootstrap: Connect to ipv4#127.0.0.1:1 failed: Connection refused (after 0ms in state CONNECT,"
         " 1 identical error(s) suppressed)", "connection refused"),
        ("ssl://h:9092/bootstrap: SSL handshake failed: Disconnected: connecting to a PLAINTEXT broker listener?"
         " (after 3ms in state SSL_HANDSHAKE)", "it does not speak TLS: use kafka:// instead of kafkas://"),
        ("h:80/bootstrap: Receive failed: Invalid response size 1213486160 (0..100000000)",
         "what listens there does not speak Kafka's protocol; it may be an HTTP port"),
        ("ssl://h:9092/bootstrap: Send failed: error:80000020:system library::Broken pipe:"
         " tls_retry_write_records failure (after 1ms in state APIVERSION_QUERY)",
         "it closed the connection at once: it may want a user and a password, or does not speak Kafka's protocol"),
        ("GroupCoordinator: Disconnected", "groupCoordinator: Disconnected"),
    ],
)  # fmt: skip
def test_a_reason_is_plain(text: str, sentence: str) -> None:
    assert plain(text) == sentence


async def test_a_peer_that_closes_each_connection_at_once() -> None:
    """As a listener for TLS does; librdkafka reports no error then."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    try:
        with pytest.raises(StartError, match=f"^{host}:{port}: it closed the connection at once: it may want TLS"):
            await KafkaEngine(KafkaSettings((f"{host}:{port}",))).identity()
    finally:
        server.close()
        await server.wait_closed()
