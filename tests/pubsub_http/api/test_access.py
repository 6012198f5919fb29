"""Who may ask, and what: hosts, origins, tokens, rights, rates. First the rules, then the program that keeps them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from harness.brokers import Broker
from harness.certificates import Certificates
from harness.gateway import Gateway
from harness.shell import Shell
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from qtools.errors import UsageError
from qtools.pubsub_http.api.access import Access, is_loopback
from qtools.pubsub_http.api.startup_checks import check_address, check_origins
from qtools.pubsub_http.api.tokens import Caller, read_tokens
from qtools.web.request_body import Refusal
from tests.pubsub_http.conftest import MakeGateway

SECRET, OTHER = "a-long-secret-token", "another-secret-token"


# ── where to listen ──


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1.2.3", "::1"])
def test_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "", "::", "192.168.1.1", "example.org", "localhost.evil.example"])
def test_not_loopback(host: str) -> None:
    assert not is_loopback(host)


def addressed(address: str, **given: Any) -> frozenset[str] | None:
    return check_address(address, **{"tokens": False, "tls": False, "insecure": False, "names": (), **given})


@pytest.mark.parametrize("address", ["0.0.0.0:8080", ":8080", "[::]:8080", "192.168.1.1:80", "example.org:80"])
def test_elsewhere_needs_something_that_keeps_strangers_out(address: str) -> None:
    with pytest.raises(UsageError, match="--token-file"):
        addressed(address)
    for enough in ("tokens", "tls", "insecure"):
        addressed(address, **{enough: True})


def test_names_that_host_may_have() -> None:
    assert addressed("127.0.0.1:80") == {"127.0.0.1"}
    assert addressed("127.0.0.1:80", names=("Queue.Example",)) == {"127.0.0.1", "queue.example"}
    assert addressed("127.0.0.1:80", tokens=True) is None  # no page has a token
    assert addressed("unix:/run/q.sock") is None
    assert addressed("0.0.0.0:80", insecure=True) is None
    assert addressed("0.0.0.0:80", insecure=True, names=("a",)) == {"a"}


@pytest.mark.parametrize("origin", ["example.org", "https://example.org/", "https://example.org/a", "ftp://a", "null"])
def test_what_is_no_origin(origin: str) -> None:
    with pytest.raises(UsageError, match="is no origin"):
        check_origins([origin], tokens=False)


# ── hosts and origins ──


async def admitted(
    headers: dict[str, str], *origins: str, hosts: frozenset[str] | None = frozenset({"127.0.0.1"})
) -> str:
    access = Access(None, hosts, frozenset(origins))
    try:
        access.admit({name.encode(): value.encode() for name, value in headers.items()}, secure=False)
    except Refusal as refusal:
        return refusal.word
    return ""


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "localhost", "LOCALHOST:1", "[::1]:8080", ""])
async def test_names_of_this_machine(host: str) -> None:
    assert await admitted({"host": host}) == ""


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:8080", "10.0.0.1"])
async def test_other_names(host: str) -> None:
    assert await admitted({"host": host}) == "HOST_NOT_ALLOWED"
    assert await admitted({"host": host}, hosts=None) == ""


@pytest.mark.parametrize(
    ("headers", "word"),
    [
        ({}, ""),
        ({"origin": "http://localhost:80"}, ""),
        ({"origin": "https://localhost:80"}, "ORIGIN_NOT_ALLOWED"),
        ({"origin": "http://localhost:81"}, "ORIGIN_NOT_ALLOWED"),
        ({"origin": "null"}, "ORIGIN_NOT_ALLOWED"),
        ({"origin": "https://good.example"}, ""),
        ({"origin": "https://good.example", "sec-fetch-site": "cross-site"}, ""),
        ({"origin": "https://good.example.evil.example"}, "ORIGIN_NOT_ALLOWED"),
        ({"sec-fetch-site": "same-origin"}, ""),
        ({"sec-fetch-site": "none"}, ""),  # typed into the address bar
        ({"sec-fetch-site": "cross-site"}, "ORIGIN_NOT_ALLOWED"),  # <img src="http://localhost:80/message?…">
        ({"sec-fetch-site": "same-site"}, "ORIGIN_NOT_ALLOWED"),  # another port of this machine
    ],
)
async def test_what_other_sites_let_a_browser_ask(headers: dict[str, str], word: str) -> None:
    assert await admitted({"host": "localhost:80", **headers}, "https://good.example") == word


def test_any_site_may_link_to_the_page_and_to_nothing_else(gateway: Gateway) -> None:
    clicked = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    assert gateway.client.get("/", headers=clicked).status_code == 200
    assert gateway.client.get("/", headers=clicked | {"host": "evil.example"}).status_code == 403
    for path in ("/topics", "/sub?topic=t", "/message?topic=t&channel=c"):
        assert gateway.client.get(path, headers=clicked).json()["message"] == "ORIGIN_NOT_ALLOWED"


# ── tokens ──


def token_file(directory: Path, text: str) -> str:
    path = directory / "tokens.toml"
    path.write_text(text)
    path.chmod(0o600)
    return str(path)


GOOD = f"""
[[token]]
name = "shop"
token = "{SECRET}"
publish = ["orders.*"]
subscribe = ["prices", "orders.*/shop-?"]

[[token]]
name = "reader"
sha256 = "{hashlib.sha256(OTHER.encode()).hexdigest()}"
subscribe = ["*"]
rate = 5
subscriptions = 1
"""


def test_a_token_has_rights(tmp_path: Path) -> None:
    tokens = read_tokens(token_file(tmp_path, GOOD))
    shop, reader = tokens.find(SECRET.encode()), tokens.find(OTHER.encode())
    assert shop is not None
    assert reader is not None
    assert tokens.find(SECRET.encode()[:-1]) is None
    assert [shop.may_publish(topic) for topic in ("orders.new", "orders", "prices")] == [True, False, False]
    assert [shop.may_subscribe("prices", channel) for channel in ("", "any")] == [True, True]
    assert [shop.may_subscribe("orders.a", channel) for channel in ("", "shop-1", "shop-22")] == [False, True, False]
    assert reader.may_subscribe("whatever")
    assert not reader.may_publish("whatever")
    assert SECRET not in repr(shop)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "[[token]]"),
        ("token = 3", "[[token]]"),
        ("[[token]]\nname=", "not TOML"),
        ('[[token]]\nname = "a"\npublish = ["*"]', 'either "token" or "sha256"'),
        ('[[token]]\nname = "a"\ntoken = "short"\npublish = ["*"]', "less than 16"),
        ('[[token]]\nname = "a"\nsha256 = "zz"\npublish = ["*"]', "64 hex digits"),
        (f'[[token]]\nname = "a"\ntoken = "{SECRET}"', "neither publish nor subscribe"),
        (f'[[token]]\nname = "a"\ntoken = "{SECRET}"\npublsh = ["*"]', "publsh"),
        (f'[[token]]\nname = "a"\ntoken = "{SECRET}"\npublish = ["a/b"]', "topics"),
        (f'[[token]]\ntoken = "{SECRET}"\npublish = ["*"]', "name"),
        (f'[[token]]\nname = "a"\ntoken = "{SECRET}"\npublish = ["*"]\nrate = 0', "rate"),
        (GOOD + f'[[token]]\nname = "b"\ntoken = "{SECRET}"\npublish = ["*"]', "same token twice"),
        (GOOD + '[[token]]\nname = "shop"\ntoken = "yet-another-secret"\npublish = ["*"]', "same name twice"),
    ],
)
def test_a_token_file_that_cannot_be(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError) as error:
        read_tokens(token_file(tmp_path, text))
    assert said in str(error.value)
    assert SECRET not in str(error.value)


def test_rights_are_remembered_within_bounds() -> None:
    caller = Caller("a", subscribe=("x.*",))
    for number in range(5000):
        assert caller.may_subscribe(f"x.{number}")
        assert not caller.may_subscribe(f"y.{number}")
    assert len(caller._may) <= 1000


# ── the program ──


@pytest.fixture
def guarded(make_gateway: MakeGateway, broker: Broker, tmp_path: Path) -> Gateway:
    return make_gateway(broker, "--token-file", token_file(tmp_path, GOOD), "-vv")


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def test_tokens_are_asked_for(guarded: Gateway, broker: Broker, topic: str) -> None:
    orders = f"orders.{topic}"
    for headers in ({}, bearer("wrong-token-altogether"), {"authorization": f"Basic {SECRET}"}, bearer(SECRET + "x")):
        answer = guarded.post("/pub", b"x", headers, topic=orders)
        assert (answer.status_code, answer.json()["message"]) == (401, "UNAUTHORIZED")
        assert answer.headers["www-authenticate"] == "Bearer"
    assert guarded.post("/pub", b"x", bearer(SECRET), topic=orders).status_code == 200
    answer = guarded.post("/pub", b"x", bearer(SECRET), topic=topic)
    assert (answer.status_code, answer.json()["message"]) == (403, "FORBIDDEN")
    assert answer.json()["detail"] == f"this token may not publish to {topic}"
    assert guarded.post("/pub", b"x", bearer(OTHER), topic=orders).status_code == 403
    reading = guarded.client.get("/message", params={"topic": topic, "channel": "x"}, headers=bearer(SECRET))
    assert (reading.status_code, reading.json()["detail"]) == (403, f"this token may not read {topic}/x")
    assert guarded.get("/ping").text == "OK"  # whether it is there is no secret
    assert broker.bodies(orders) == [b"x"]
    assert SECRET not in guarded.process.err
    assert OTHER not in guarded.process.err


def test_topics_are_told_to_who_may_know_of_them(guarded: Gateway, broker: Broker, topic: str) -> None:
    broker.create(f"orders.{topic}", "shop-1", "other")
    broker.create(topic, "other")
    told = guarded.client.get("/topics", headers=bearer(SECRET)).json()["topics"]
    seen = {each["topic"]: [channel["channel"] for channel in each["channels"]] for each in told}
    assert seen[f"orders.{topic}"] == ["shop-1"]
    assert topic not in seen


def test_a_rate_and_a_number_of_streams_for_each_token(guarded: Gateway, broker: Broker, topic: str) -> None:
    broker.create(topic, "me")
    params = {"topic": topic, "channel": "me"}
    with guarded.client.stream("GET", "/sub", params=params, headers=bearer(OTHER)) as stream:
        assert stream.status_code == 200
        answer = guarded.client.get("/sub", params=params, headers=bearer(OTHER))
        assert (answer.status_code, answer.json()["message"]) == (429, "TOO_MANY_SUBSCRIPTIONS")
    statuses = [guarded.client.get("/topics", headers=bearer(OTHER)) for _ in range(10)]
    refused = [answer for answer in statuses if answer.status_code == 429]
    assert refused
    assert refused[0].json()["message"] == "TOO_MANY_REQUESTS"
    assert int(refused[0].headers["retry-after"]) >= 1


def test_a_websocket_brings_its_token_as_a_subprotocol(guarded: Gateway, broker: Broker, topic: str) -> None:
    broker.fill(topic, [b"a"])
    url = f"{guarded.url.replace('http', 'ws')}/sub?topic={topic}&channel=me"
    with pytest.raises(InvalidStatus) as refused:
        connect(url, proxy=None)
    assert refused.value.response.status_code == 401
    with connect(url, proxy=None, subprotocols=["q-pubsub", f"bearer.{OTHER}"]) as socket:  # type: ignore[list-item]
        assert socket.subprotocol == "q-pubsub"
        assert json.loads(socket.recv(10))["body"] == "a"


def test_another_callers_session_is_nobodys(guarded: Gateway, broker: Broker, topic: str) -> None:
    orders = f"orders.{topic}"
    broker.fill(orders, [b"a"])
    params = {"topic": orders, "channel": "shop-1", "ack": "client"}
    with guarded.client.stream("GET", "/sub", params=params, headers=bearer(SECRET)) as stream:
        session = stream.headers["q-session"]
        lines = stream.iter_lines()  # kept, as its end would be the stream's
        message = json.loads(next(lines))
        answer = guarded.post("/finish", message["id"].encode(), bearer(OTHER), session=session)
        assert (answer.status_code, answer.json()["message"]) == (404, "SESSION_NOT_FOUND")
        assert guarded.post("/finish", message["id"].encode(), bearer(SECRET), session=session).json()["finished"] == 1


def test_cors_is_off_unless_an_origin_is_allowed(make_gateway: MakeGateway, broker: Broker, topic: str) -> None:
    good = {"origin": "https://good.example"}
    closed = make_gateway(broker)
    assert closed.client.get("/ping", headers=good).status_code == 403
    gateway = make_gateway(broker, "--allow-origin", good["origin"])
    asked = good | {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}
    answer = gateway.client.options("/pub", headers=asked)
    assert answer.status_code == 204
    assert answer.headers["access-control-allow-origin"] == good["origin"]
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert "authorization" in answer.headers["access-control-allow-headers"]
    answer = gateway.post("/pub", b"x", good, topic=topic)
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, good["origin"])
    assert "access-control-allow-origin" not in gateway.get("/ping").headers
    assert gateway.client.options("/pub", headers=asked | {"origin": "https://evil.example"}).status_code == 403


def test_https(make_gateway: MakeGateway, broker: Broker, certificates: Certificates, topic: str) -> None:
    broker.fill(topic, [b"x" * 1000] * 500)
    gateway = make_gateway(
        broker, "--https-cert", str(certificates.server_cert), "--https-key", str(certificates.server_key)
    )
    assert gateway.url.startswith("https://")
    assert gateway.post("/pub", b"last", topic=topic).status_code == 200
    assert len(gateway.get("/sub", topic=topic, channel="me", count=501, format="raw").content) == 500 * 1001 + 5
    broker.wait_held(topic, "me", 0)


def test_a_unix_socket(make_gateway: MakeGateway, broker: Broker, shell: Shell, topic: str) -> None:
    path = shell.home / "gateway.sock"
    gateway = make_gateway(broker, address=f"unix:{path}")
    assert path.stat().st_mode & 0o777 == 0o600
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://gateway") as client:
        assert client.post("/pub", params={"topic": topic}, content=b"x").status_code == 200
        answer = client.get("/sub", params={"topic": topic, "channel": "me", "count": 1, "format": "raw"})
        assert answer.content == b"x\n"
    broker.wait_held(topic, "me", 0)
    assert gateway.process.is_running


def test_a_wrong_command_line(shell: Shell, broker: Broker, tmp_path: Path) -> None:
    for words, said in (
        (["--http-address", "0.0.0.0:0"], "can be reached from other machines"),
        (["--token-file", str(tmp_path / "none")], "cannot read the token file"),
        (["--https-key", "x"], "--https-key needs --https-cert"),
        (["--https-cert", str(tmp_path / "none")], "cannot use the certificate"),
        (["--allow-origin", "example.org"], "is no origin"),
        (["--max-body-size", "1k"], "is less than --max-msg-size"),
        (["--http-address", "nowhere"], "HOST:PORT"),
    ):
        done = shell.run("q-pubsub-http", *broker.flags, "--http-address", "127.0.0.1:0", *words)
        assert done.status in (2, 3), (words, done.err)
        assert said in done.err
        assert len(done.err_lines) == 1
