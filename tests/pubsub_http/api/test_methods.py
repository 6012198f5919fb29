"""HEAD, OPTIONS and wrong methods, as health checks and browsers ask; and numbers, however they are written."""

from __future__ import annotations

import time

import pytest
from harness.brokers import Broker
from harness.gateway import Gateway

from qtools.pubsub_http.api.routes import ROUTES
from tests.pubsub_http.test_hostile import said, status_of

SAFE = ["/ping", "/topics", "/openapi.json", "/", "/page.js", "/page.css"]
TAKING = ["/sub", "/message"]
POSTED = ["/pub", "/mpub", "/finish", "/requeue", "/touch"]


def test_every_address_is_one_of_these() -> None:
    assert {route.path for route in ROUTES} <= {*SAFE, *TAKING, *POSTED}


@pytest.mark.parametrize("path", SAFE)
def test_head_is_get_without_its_body(gateway: Gateway, path: str) -> None:
    got, head = gateway.get(path), gateway.client.head(path)
    assert (head.status_code, head.content) == (got.status_code, b"") == (200, b"")
    # The figures in /topics may have changed in between.
    different = {"date", "content-length"} if path == "/topics" else {"date"}
    assert {name: value for name, value in head.headers.items() if name not in different} == {
        name: value for name, value in got.headers.items() if name not in different
    }
    assert int(head.headers["content-length"]) > 0


@pytest.mark.parametrize("path", SAFE)
def test_a_refused_head_has_no_body_either(gateway: Gateway, path: str) -> None:
    answer = said(gateway.port, f"HEAD {path} HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n".encode())
    assert status_of(answer) == 403
    assert answer.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("path", TAKING)
def test_no_head_where_a_get_takes_messages(gateway: Gateway, broker: Broker, topic: str, path: str) -> None:
    broker.fill(topic, [b"a"])
    answer = gateway.client.head(path, params={"topic": topic, "channel": "me"})
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, OPTIONS")
    assert "me" not in broker.channels(topic)


@pytest.mark.parametrize(
    ("paths", "allowed"), [(SAFE, "GET, HEAD, OPTIONS"), (TAKING, "GET, OPTIONS"), (POSTED, "POST, OPTIONS")]
)
def test_options_tells_what_may_be_asked(gateway: Gateway, paths: list[str], allowed: str) -> None:
    for path in paths:
        for answer in (gateway.client.options(path), gateway.client.put(path)):
            assert answer.headers["allow"] == allowed
            assert answer.status_code == (204 if answer.request.method == "OPTIONS" else 405)


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_options_of_the_server(gateway: Gateway, version: str) -> None:
    host = "" if version == "1.0" else "Host: localhost\r\n"
    answer = said(gateway.port, f"OPTIONS * HTTP/{version}\r\n{host}Connection: close\r\n\r\n".encode())
    assert status_of(answer) == 204


def test_the_health_check_of_haproxy(gateway: Gateway) -> None:
    """`option httpchk` alone asks so: anything from 200 to 399 is well."""
    assert 200 <= status_of(said(gateway.port, b"OPTIONS / HTTP/1.0\r\n\r\n")) < 400


def test_the_methods_of_an_address_that_is_not_there(gateway: Gateway) -> None:
    for method in ("GET", "HEAD", "OPTIONS", "PUT"):
        assert gateway.client.request(method, "/nothing").status_code == 404


@pytest.mark.parametrize(
    "wait", ["0.30000000000000004", "1e-3", ".5", "0.", "+.25", "2E-1", "0e0", "00.1", "-0", "0." + "0" * 300 + "1"]
)
def test_a_number_of_seconds(gateway: Gateway, topic: str, wait: str) -> None:
    begun = time.monotonic()
    assert gateway.get("/message", topic=topic, channel="me", wait=wait).status_code == 204
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize(
    "wait", ["", ".", "1e", "e1", "nan", "inf", "1_0", "0x1", "1,5", "-1", "-1e-9", "1e99999", "3601", "١", "1" * 500]
)
def test_what_is_no_number_of_seconds(gateway: Gateway, topic: str, wait: str) -> None:
    answer = gateway.get("/message", topic=topic, channel="me", wait=wait)
    assert (answer.status_code, answer.json()["message"]) == (400, "INVALID_ARG_WAIT")
    assert answer.json()["detail"] == "wait is a number of seconds from 0 to 3600"


@pytest.mark.parametrize(("defer", "status"), [("0", 200), ("0.0", 200), ("1e0", 200), ("007", 200), ("+1", 200)])
def test_a_whole_number(gateway: Gateway, topic: str, defer: str, status: int) -> None:
    assert gateway.post("/pub", b"x", topic=topic, defer=defer).status_code == status


@pytest.mark.parametrize("defer", ["1.5", "1e-1", "3600001", "1e99999", "-1", "0x1", "", "1e999999999"])
def test_what_is_no_whole_number(gateway: Gateway, topic: str, defer: str) -> None:
    answer = gateway.post("/pub", b"x", topic=topic, defer=defer)
    assert (answer.status_code, answer.json()["message"]) == (400, "INVALID_DEFER")


@pytest.mark.parametrize("flag", ["true", "True", "TRUE", "1", ""])
def test_a_flag_as_clients_write_it(gateway: Gateway, broker: Broker, topic: str, flag: str) -> None:
    broker.fill(topic, [b"a"])
    answer = gateway.get("/sub", topic=topic, channel="me", format="raw", until_empty=flag)
    assert answer.content == b"a\n"
