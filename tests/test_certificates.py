"""A certificate and its key, from files: what works, and why the rest does not; nothing asks at the terminal."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from harness.brokers import Broker
from harness.certificates import Certificates
from harness.shell import Shell

from qtools.sockets import KeyEncrypted, load_certificate

PASSPHRASE = "open sesame ä"
ENCRYPTED = "is encrypted, and there is no passphrase"


@pytest.fixture
def encrypted(certificates: Certificates, tmp_path: Path) -> Path:
    return certificates.encrypted_client_key(tmp_path / "encrypted.key", PASSPHRASE)


def load(certificate: Path, key: Path, passphrase: str = "") -> str:
    """Why it cannot be used; "" if it can."""
    try:
        load_certificate(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), str(certificate), str(key), passphrase)
    except KeyEncrypted as error:
        return f"encrypted: {error.strerror}"
    except OSError as error:
        return error.strerror
    return ""


def test_keys(certificates: Certificates, encrypted: Path, tmp_path: Path) -> None:
    cert, key = certificates.client_cert, certificates.client_key
    assert load(cert, key) == ""
    assert load(cert, encrypted, PASSPHRASE) == ""
    assert load(cert, encrypted) == f"encrypted: {encrypted} {ENCRYPTED}"
    assert load(cert, encrypted, "wrong") == f"the passphrase of {encrypted} is wrong"
    assert load(certificates.server_cert, encrypted, PASSPHRASE) == "the key is not that of the certificate"
    assert load(cert, certificates.server_key) == "the key is not that of the certificate"
    assert load(cert, cert) == "they are not a certificate and its key in PEM"
    assert load(cert, tmp_path / "none") == "No such file or directory"


@pytest.mark.parametrize("url", ["nsqs://{address}", "kafkas://{address}"])
def test_a_client_names_the_key_and_what_to_do(
    shell: Shell, broker: Broker, certificates: Certificates, encrypted: Path, tmp_path: Path, url: str
) -> None:
    words = ["q-tail", f"{url.format(address=broker.address)}/a/b", "--tls-cert", str(certificates.client_cert)]
    words += ["--tls-key", str(encrypted)]
    start = f"q-tail: cannot use the client certificate {certificates.client_cert} and {encrypted}: "
    done = shell.run(*words)
    assert done.status == 3
    assert done.err == (
        f"{start}{encrypted} {ENCRYPTED}: give its passphrase as QTOOLS_TLS_KEY_PASSWORD, or in a file, with"
        " tls_key_password_file\n"
    )
    (tmp_path / "wrong").write_text("wrong\n")
    done = shell.run(*words, "--engine-option", f"tls_key_password_file={tmp_path}/wrong")
    assert (done.status, done.err) == (3, f"{start}the passphrase of {encrypted} is wrong\n")
    done = shell.run(
        *words, environ={"QTOOLS_TLS_KEY_PASSWORD": PASSPHRASE}
    )  # it gets further, and the port has no TLS
    assert "certificate" not in done.err.replace("start it with a TLS certificate", "")
    assert PASSPHRASE not in done.err


def test_servers_do_not_ask_at_the_terminal(
    shell: Shell, certificates: Certificates, encrypted: Path, tmp_path: Path
) -> None:
    cert = certificates.client_cert
    done = shell.run("q-broker", "--data-path", tmp_path, "--tls-cert", cert, "--tls-key", encrypted, timeout=20)
    assert done.status == 3
    assert f"--tls-cert {cert} cannot be used: {encrypted} {ENCRYPTED}" in done.err
    done = shell.run("q-pubsub-http", "--https-cert", cert, "--https-key", encrypted, timeout=20)
    assert done.status == 3
    assert f"cannot use the certificate {cert}: {encrypted} {ENCRYPTED}" in done.err
