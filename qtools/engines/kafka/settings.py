"""How to connect to Kafka. In: hosts, TLS, SASL, properties. Out: librdkafka's configuration."""

from __future__ import annotations

from typing import Any, NamedTuple

from qtools import __version__

PREFETCHED_KBYTES = 16_384  # that librdkafka fetches ahead, for each reader


class KafkaSettings(NamedTuple):
    """hosts: "HOST:PORT" each. properties: of librdkafka, as the user gave them. mechanism: of SASL; "" for none.

    token_command, token_file: print or hold the token of OAUTHBEARER.
    """

    hosts: tuple[str, ...]
    program: str = "qtools"
    client_id: str = ""
    tls: bool = False
    tls_ca: str = ""
    tls_cert: str = ""
    tls_key: str = ""
    tls_key_password: str = ""
    tls_insecure: bool = False
    mechanism: str = ""
    user: str = ""
    password: str = ""
    token_command: str = ""
    token_file: str = ""
    properties: tuple[tuple[str, str], ...] = ()

    def __repr__(self) -> str:
        return f"KafkaSettings({', '.join(self.hosts)})"  # without secrets

    def __str__(self) -> str:
        return ",".join(self.hosts)

    def configuration(self) -> dict[str, Any]:
        """What all clients have in common, as confluent-kafka takes it."""
        made: dict[str, Any] = {
            "bootstrap.servers": ",".join(self.hosts),
            "client.id": self.client_id or f"{self.program}/{__version__}",
            "security.protocol": ("SASL_" if self.mechanism else "") + ("SSL" if self.tls else "PLAINTEXT"),
            "socket.keepalive.enable": True,
            "socket.nagle.disable": True,
            "reconnect.backoff.max.ms": 5000,
            "log.connection.close": False,
        }
        if self.tls_ca:
            made["ssl.ca.location"] = self.tls_ca
        if self.tls_cert:
            made["ssl.certificate.location"] = self.tls_cert
            made["ssl.key.location"] = self.tls_key or self.tls_cert
            if self.tls_key_password:
                made["ssl.key.password"] = self.tls_key_password
        if self.tls_insecure:
            made["enable.ssl.certificate.verification"] = False
            made["ssl.endpoint.identification.algorithm"] = "none"
        if self.mechanism:
            made["sasl.mechanism"] = self.mechanism
            if self.mechanism != "OAUTHBEARER":
                made["sasl.username"], made["sasl.password"] = self.user, self.password
        made.update(self.properties)
        return made


def reader_properties(settings: KafkaSettings, group: str) -> dict[str, Any]:
    """librdkafka's properties of a consumer in `group`; some may be given with --engine-option."""
    defaults = {
        "auto.offset.reset": "earliest",
        "fetch.queue.backoff.ms": 5,  # the default, 1000, stalls a fast reader
        "queued.max.messages.kbytes": PREFETCHED_KBYTES,
        "session.timeout.ms": 10_000,  # until the partitions of a member that was killed are read by another
        "max.poll.interval.ms": 300_000,
        "topic.metadata.refresh.interval.ms": 30_000,  # until a new partition is read, or a deleted topic noticed
    }
    given = dict(settings.properties)
    return {key: value for key, value in defaults.items() if key not in given} | {
        "group.id": group,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "enable.partition.eof": True,
        "partition.assignment.strategy": "cooperative-sticky",
    }
