"""What a store answers becomes one line that says what to do; asked over a real socket, by the library that we use."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from harness.certificates import Certificates

from qtools.errors import StoreError
from qtools.to_file.stores.opening import open_store


@contextmanager
def answering(status: int, body: bytes, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """A server that answers everything so; its endpoint."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _answer

        def log_message(self, *args: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"{'https' if tls else 'http'}://localhost:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def error(code: str, message: str = "") -> bytes:
    return f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "hidden", "AWS_REGION": "x"}.items():
        monkeypatch.setenv(name, value)
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "AWS_PROFILE", "AWS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("status", "body", "told", "permanent"),
    [
        (503, error("SlowDown", "Please reduce"), "the store answers 503 SlowDown: Please reduce", False),
        (500, error("InternalError", "Again"), "the store answers 500 InternalError: Again", False),
        (500, b"", "the store answers 500 Internal Server Error", False),
        (429, b"later", "the store answers 429 Too Many Requests", False),
        (501, error("NotImplemented", "No such header"), "the store answers 501 NotImplemented: No such header", True),
        (400, error("BadDigest", "Not the same"), "the store answers 400 BadDigest: Not the same", True),
        (400, error("ExpiredToken"), "the credentials have expired (ExpiredToken): renew them", True),
        (
            400, error("AuthorizationHeaderMalformed"),
            "the bucket is in another region (AuthorizationHeaderMalformed): set AWS_REGION to it", True,
        ),
        (
            403, error("RequestTimeTooSkewed"),
            "the store refuses our clock (RequestTimeTooSkewed): set this machine's time right", True,
        ),
        (
            403, error("AccessDenied"),
            "PUT is denied (AccessDenied): the credentials are wrong, or lack the permission s3:PutObject", True,
        ),
        (403, b"no" * 5000, "PUT is denied (403): the credentials are wrong, or lack the permission", True),
        (400, error("Odd", "a\x1b[31mred\nline" + "x" * 5000), "the store answers 400 Odd", True),
    ],
)  # fmt: skip
async def test_an_answer_is_one_line(status: int, body: bytes, told: str, permanent: bool) -> None:
    with answering(status, body) as endpoint:
        store = open_store("s3://bucket/prefix", endpoint=endpoint, patience=0.05)
        with pytest.raises(StoreError) as caught:
            await store.put_new("a", b"x")
    said = str(caught.value)
    assert said.startswith(f"s3://bucket/prefix/a: {told}")
    assert said.isprintable()
    assert len(said) < 500
    assert "hidden" not in said
    assert caught.value.permanent == permanent


async def test_what_answers_is_no_store() -> None:
    with answering(200, b"<html>hello</html>") as endpoint:
        store = open_store("s3://bucket", endpoint=endpoint, patience=0.05)
        with pytest.raises(StoreError) as caught:
            await store.put_new("a", b"x")
    assert str(caught.value).startswith("s3://bucket/a: ")
    assert str(caught.value).isprintable()


async def test_a_certificate_is_verified(certificates: Certificates, monkeypatch: pytest.MonkeyPatch) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.server_cert, certificates.server_key)
    with answering(403, error("AccessDenied"), context) as endpoint:
        store = open_store("s3://bucket", endpoint=endpoint, patience=0.05)
        with pytest.raises(StoreError, match=r"certificate of localhost:\d+ is not trusted: name its CA in AWS_CA_BUN"):
            await store.check()
        monkeypatch.setenv("AWS_CA_BUNDLE", str(certificates.ca))
        store = open_store("s3://bucket", endpoint=endpoint, patience=0.05)
        with pytest.raises(StoreError, match="GET is denied"):
            await store.check()


async def test_a_denial_is_tried_again_with_newer_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    renewed = "the store denied the credentials: read again"
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    keys = tmp_path / "keys"
    keys.write_text("[default]\naws_access_key_id = one\naws_secret_access_key = first\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(keys))
    # HEAD has no body that could tell of an expired token.
    for status, body in ((400, error("ExpiredToken")), (403, b""), (401, b""), (403, error("InvalidAccessKeyId"))):
        with answering(status, body) as endpoint:
            store = open_store("s3://bucket/prefix", endpoint=endpoint, patience=0.05)
            caplog.clear()
            for call in (lambda: store.put_new("a", b"x"), lambda: store.head("a"), store.check):  # noqa: B023
                with pytest.raises(StoreError):
                    await call()  # type: ignore[operator]
            assert renewed not in caplog.text
            keys.write_text(keys.read_text() + "aws_session_token = newer\n")
            with pytest.raises(StoreError):
                await store.head("a")
            assert caplog.text.count(renewed) == 1
            keys.write_text("[default]\naws_access_key_id = one\naws_secret_access_key = first\n")
