"""How to connect: what the file of a certificate must be, and that no secret is shown."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
import trustme

from qtools import __version__
from qtools.engines.nsq.settings import Settings
from qtools.errors import StartError


def test_a_secret_is_shown_to_nobody() -> None:
    assert "s3cret" not in repr(Settings(secret=b"s3cret"))
    assert "s3cret" not in str(Settings(secret=b"s3cret"))
    assert "s3cret" not in repr(Settings(secret=b"s3cret").identify_request())


def test_what_is_asked_for_is_what_was_set() -> None:
    request = Settings(
        program="q-tail", client_id="me", msg_timeout=5000, heartbeat_interval=1000, snappy=True
    ).identify_request()
    assert (request.client_id, request.user_agent) == ("me", f"q-tail/{__version__}")
    assert (request.msg_timeout, request.heartbeat_interval) == (5000, 1000)
    assert (request.snappy, request.deflate, request.tls_v1) == (True, False, False)
    assert "." not in Settings().identify_request().client_id


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    room = tmp_path_factory.mktemp("certificates")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(room / "ca.pem")
    leaf = authority.issue_cert("localhost")
    leaf.private_key_and_cert_chain_pem.write_to_path(room / "both.pem")
    leaf.private_key_pem.write_to_path(room / "key.pem")
    leaf.cert_chain_pems[0].write_to_path(room / "cert.pem")
    authority.issue_cert("other").private_key_pem.write_to_path(room / "other.pem")
    (room / "nonsense.pem").write_text("nonsense")
    return room


def test_without_tls_there_is_no_context() -> None:
    assert Settings().tls_context() is None


def test_a_certificate_is_verified_unless_told_otherwise(certificates: Path) -> None:
    context = Settings(tls=True).tls_context()
    assert context is not None
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    context = Settings(tls=True, tls_insecure=True, tls_ca=f"{certificates}/ca.pem").tls_context()
    assert context is not None
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_NONE, False)


def test_a_ca_is_trusted_instead_of_the_system_s(certificates: Path) -> None:
    settings = Settings(tls=True, tls_ca=f"{certificates}/ca.pem")
    context = settings.tls_context()
    assert context is not None
    assert context.cert_store_stats()["x509_ca"] == 1
    assert settings.tls_context() is context


@pytest.mark.parametrize("files", [("both.pem", ""), ("cert.pem", "key.pem")])
def test_a_client_certificate_has_its_key_with_it_or_beside_it(certificates: Path, files: tuple[str, str]) -> None:
    cert, key = (f"{certificates}/{name}" if name else "" for name in files)
    assert Settings(tls=True, tls_cert=cert, tls_key=key).tls_context() is not None


@pytest.mark.parametrize(
    ("ca", "cert", "key", "told"),
    [
        ("none.pem", "", "", "cannot use the CA file {}/none.pem: No such file"),
        ("nonsense.pem", "", "", "cannot use the CA file {}/nonsense.pem: "),
        ("key.pem", "", "", "cannot use the CA file {}/key.pem: "),
        ("", "none.pem", "", "cannot use the client certificate {}/none.pem: No such file"),
        ("", "cert.pem", "", "cannot use the client certificate {}/cert.pem: "),
        ("", "nonsense.pem", "key.pem", "cannot use the client certificate {0}/nonsense.pem and {0}/key.pem: "),
        ("", "cert.pem", "other.pem", "cannot use the client certificate {0}/cert.pem and {0}/other.pem: "),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_the_reason(
    certificates: Path, ca: str, cert: str, key: str, told: str
) -> None:
    ca, cert, key = (f"{certificates}/{name}" if name else "" for name in (ca, cert, key))
    with pytest.raises(StartError) as caught:
        Settings(tls=True, tls_ca=ca, tls_cert=cert, tls_key=key).tls_context()
    assert str(caught.value).startswith(told.format(certificates))
    assert not str(caught.value).endswith((": ", "None"))
