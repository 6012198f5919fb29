"""A Kafka that listens with TLS and with SASL. In: certificates. Out: a node, which is not started yet."""

from __future__ import annotations

import subprocess
from pathlib import Path

from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)  # fmt: skip

from harness.certificates import Certificates
from harness.kafka import KafkaNode, make_cluster

USER, PASSWORD = "archivist", "not-a-secret-but-long-enough"


def make_secured_node(room: Path, certificates: Certificates) -> KafkaNode:
    """A node of its own cluster, which listens with TLS and with SASL; it is not started yet."""
    (made,) = make_cluster(room)
    secure(made, certificates)
    return made


def secure(node: KafkaNode, certificates: Certificates) -> None:
    """Let it listen with TLS, where it asks for client certificates, and with SASL over TLS; before the start."""
    keys = node.room / "server.pem"
    key = load_pem_private_key(certificates.server_key.read_bytes(), None)
    text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())  # the only format that Kafka reads
    keys.write_bytes(text + certificates.server_cert.read_bytes())
    tls, sasl, inner = node.tls_port, node.sasl_port, node.port
    plain = f'plain.PlainLoginModule required username="{USER}" password="{PASSWORD}" user_{USER}="{PASSWORD}";'
    path, prefix = node.room / "server.properties", "listener.name.sasl_ssl"
    login = "sasl.jaas.config=org.apache.kafka.common.security"
    lines = [line for line in path.read_text().splitlines() if "listeners=" not in line]
    lines += [
        f"listeners=PLAINTEXT://127.0.0.1:{inner},CONTROLLER://127.0.0.1:{inner + 1},"
        f"SSL://127.0.0.1:{tls},SASL_SSL://127.0.0.1:{sasl}",
        f"advertised.listeners=PLAINTEXT://127.0.0.1:{inner},SSL://127.0.0.1:{tls},SASL_SSL://127.0.0.1:{sasl}",
        "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SSL:SSL,SASL_SSL:SASL_SSL",
        "ssl.keystore.type=PEM", f"ssl.keystore.location={keys}",
        "ssl.truststore.type=PEM", f"ssl.truststore.location={certificates.ca}",
        "listener.name.ssl.ssl.client.auth=required",
        "sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
        f"{prefix}.plain.{login}.{plain}",
        f"{prefix}.scram-sha-512.{login}.scram.ScramLoginModule required;",
        f"{prefix}.scram-sha-256.{login}.scram.ScramLoginModule required;",
    ]  # fmt: skip
    path.write_text("\n".join(lines) + "\n")


def add_scram_users(node: KafkaNode) -> None:
    """Let USER log in with SCRAM too."""
    for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512"):
        add = f"{mechanism}=[password={PASSWORD}]"
        words = ["kafka.admin.ConfigCommand", "--bootstrap-server", node.address, "--alter", "--add-config", add]
        done = subprocess.run(
            [*node.java(), *words, "--entity-type", "users", "--entity-name", USER],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr + done.stdout
