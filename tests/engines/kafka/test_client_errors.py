"""librdkafka's reasons in plain sentences."""

from __future__ import annotations

import pytest

from qtools.engines.kafka.client_errors import plain


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("127.0.0.1:1/bootstrap: Connect to ipv4#127.0.0.1:1 failed: Connection refused (after 0ms in state CONNECT,"
         " 1 identical error(s) suppressed)", "connection refused"),
        ("ssl://h:9092/bootstrap: SSL handshake failed: Disconnected: connecting to a PLAINTEXT broker listener?"
         " (after 3ms in state SSL_HANDSHAKE)", "it does not speak TLS: use kafka:// instead of kafkas://"),
        ("h:80/bootstrap: Receive failed: Invalid response size 1213486160 (0..100000000)",
         "what listens there does not speak Kafka's protocol; it may be an HTTP port"),
        ("GroupCoordinator: Disconnected", "groupCoordinator: Disconnected"),
    ],
)  # fmt: skip
def test_a_reason_is_plain(text: str, sentence: str) -> None:
    assert plain(text) == sentence
