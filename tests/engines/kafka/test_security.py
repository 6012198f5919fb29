"""TLS, client certificates and SASL with a real Kafka."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.certificates import Certificates
from harness.kafka import KafkaNode, why_not
from harness.kafka_security import PASSWORD, USER, add_scram_users, make_secured_node
from harness.shell import Shell

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def node(certificates: Certificates, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaNode]:
    """A server that listens with TLS (client certificates asked for), and behind it with SASL over TLS."""
    if reason := why_not():
        pytest.skip(reason)
    made = make_secured_node(tmp_path_factory.mktemp("kafka"), certificates)
    made.start()
    add_scram_users(made)
    yield made
    made.kill()


def round_trip(shell: Shell, words: list[str], environ: dict[str, str] | None = None) -> None:
    url, *flags = words
    topic = f"t{abs(hash(tuple(words)))}"
    done = shell.run(
        "q-pipe", topic, "-b", url, *flags, "--create-topics", "default", input=b"a\nb\n", environ=environ, timeout=60
    )
    assert done.status == 0, done.err
    done = shell.run("q-tail", f"{url}/{topic}/own", *flags, "-n", "2", "-q", environ=environ, timeout=60)
    assert (done.status, done.lines) == (0, [b"a", b"b"]), done.err


def test_tls_with_a_client_certificate(shell: Shell, node: KafkaNode, certificates: Certificates) -> None:
    url = f"kafkas://127.0.0.1:{node.tls_port}"
    own = ["--tls-cert", str(certificates.client_cert), "--tls-key", str(certificates.client_key)]
    round_trip(shell, [url, "--tls-ca", str(certificates.ca), *own])
    round_trip(shell, [url, "--tls-insecure-skip-verify", *own])


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["--tls-ca", "{stranger}"], "certificate verify failed"),
        ([], "certificate verify failed"),
        (["--tls-ca", "{ca}"], "it asks for a client certificate: give --tls-cert and --tls-key"),
        (
            ["--tls-ca", "{ca}", "--tls-cert", "{strange}.pem", "--tls-key", "{strange}.key"],
            "it does not accept the client certificate {strange}.pem",
        ),
        (["--tls-ca", "/nowhere/ca.pem"], "/nowhere/ca.pem"),
    ],
)
def test_tls_is_verified(
    shell: Shell, node: KafkaNode, certificates: Certificates, flags: list[str], text: str
) -> None:
    strange = str(certificates.strange_cert).removesuffix(".pem")
    places = {"stranger": certificates.stranger_ca, "ca": certificates.ca, "strange": strange}
    words = [word.format(**places) for word in flags]
    done = shell.run("q-tail", f"kafkas://127.0.0.1:{node.tls_port}/a/b", *words, timeout=60)
    assert done.status in (2, 3), done.err
    assert text.format(**places) in done.err
    assert "Traceback" not in done.err


def test_a_key_with_a_passphrase(shell: Shell, node: KafkaNode, certificates: Certificates, tmp_path: Path) -> None:
    encrypted_key = certificates.encrypted_client_key(tmp_path / "client.key", "open sesame")
    url = f"kafkas://127.0.0.1:{node.tls_port}"
    own = ["--tls-ca", str(certificates.ca), "--tls-cert", str(certificates.client_cert)]
    own += ["--tls-key", str(encrypted_key)]
    round_trip(shell, [url, *own], {"QTOOLS_TLS_KEY_PASSWORD": "open sesame"})
    (tmp_path / "passphrase").write_text("open sesame\n")
    round_trip(shell, [url, *own, "--engine-option", f"tls_key_password_file={tmp_path}/passphrase"])


def test_a_login_where_there_is_none_and_none_where_there_is_one(
    shell: Shell, node: KafkaNode, certificates: Certificates
) -> None:
    environ = {"QTOOLS_KAFKA_USER": USER, "QTOOLS_KAFKA_PASSWORD": PASSWORD}
    secure = f"kafkas://127.0.0.1:{node.sasl_port}/a/b"
    flags = ["--tls-ca", str(certificates.ca)]
    for words, login, text in (
        ([f"kafka://127.0.0.1:{node.port}/a/b"], environ, "it asks for no user and no password (SASL): leave them out"),
        ([secure, *flags], {}, "it asks for a user and a password (SASL): give QTOOLS_KAFKA_USER"),
        ([f"kafka://127.0.0.1:{node.sasl_port}/a/b"], environ, "it speaks TLS: use kafkas:// instead of kafka://"),
        ([f"kafka://127.0.0.1:{node.tls_port}/a/b"], {}, "it speaks TLS: use kafkas:// instead of kafka://"),
    ):
        done = shell.run("q-tail", *words, environ=login, timeout=60)
        assert done.status == 3
        assert len(done.err_lines) == 1
        assert text in done.err


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_sasl(shell: Shell, node: KafkaNode, certificates: Certificates, mechanism: str) -> None:
    url = f"kafkas://127.0.0.1:{node.sasl_port}"
    flags = ["--tls-ca", str(certificates.ca), "--engine-option", f"sasl_mechanism={mechanism}"]
    environ = {"QTOOLS_KAFKA_USER": USER, "QTOOLS_KAFKA_PASSWORD": PASSWORD}
    round_trip(shell, [url, *flags], environ)
    done = shell.run("q-tail", f"{url}/a/b", *flags, environ=environ | {"QTOOLS_KAFKA_PASSWORD": "wrong"}, timeout=60)
    assert done.status == 3, done.err
    assert "uthentication failed" in done.err
    assert "wrong" not in done.err


def test_a_profile_with_a_password_file(shell: Shell, node: KafkaNode, certificates: Certificates) -> None:
    directory = shell.home / ".config" / "qtools"
    directory.mkdir(parents=True)
    (directory / "secret").write_text(PASSWORD + "\n")
    (directory / "config.toml").write_text(
        f'[broker.prod]\nurl = "kafkas://127.0.0.1:{node.sasl_port}"\nuser = "{USER}"\npassword_file = "secret"\n'
        f'sasl_mechanism = "SCRAM-SHA-512"\ntls_ca = "{certificates.ca}"\n'
    )
    done = shell.run("q-pipe", "own", "-b", "prod", "--create-topics", "default", input=b"a\n", timeout=60)
    assert done.status == 0, done.err


def test_tokens_come_from_a_command(tmp_path: Path) -> None:
    from qtools.engines.kafka.clients import oauth_token
    from qtools.engines.kafka.settings import KafkaSettings

    file = tmp_path / "token"
    file.write_text("abc\n")
    assert oauth_token(KafkaSettings(("a:1",), token_file=str(file)))[0] == "abc"
    assert oauth_token(KafkaSettings(("a:1",), token_command="printf 'x.%s' y"))[0] == "x.y"
