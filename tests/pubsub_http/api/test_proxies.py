"""Behind real proxies that end TLS: nginx and haproxy, configured as docs/q-pubsub-http.md says."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import ssl
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from harness.brokers import Broker
from harness.certificates import Certificates
from harness.gateway import Gateway
from harness.ports import free_pair
from harness.waiting import wait_until
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Origin

from qtools.pubsub_http.api.proxies import as_asked
from tests.pubsub_http.conftest import MakeGateway

PAGE = (Path(__file__).parents[3] / "docs/q-pubsub-http.md").read_text()


def block(kind: str) -> str:
    """The configuration that the page shows."""
    found = re.search(rf"^```{kind}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def nginx(room: Path, port: int, behind: int, certificates: Certificates) -> list[str]:
    location = block("nginx").replace("127.0.0.1:8080", f"127.0.0.1:{behind}")
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "".join(f"{kind}_temp_path {room}/{kind};\n" for kind in kinds)
    user = "user root;" if os.geteuid() == 0 else ""
    (room / "nginx.conf").write_text(
        f"daemon off; pid {room}/pid; error_log stderr; worker_processes 1; {user}\n"
        f"events {{}}\nhttp {{ access_log off; {temporary}\n"
        f"server {{ listen 127.0.0.1:{port} ssl; ssl_certificate {certificates.server_cert};"
        f" ssl_certificate_key {certificates.server_key};\n{location} }} }}\n"
    )
    return ["nginx", "-p", str(room), "-c", str(room / "nginx.conf")]


def haproxy(room: Path, port: int, behind: int, certificates: Certificates) -> list[str]:
    both = room / "both.pem"
    both.write_bytes(certificates.server_cert.read_bytes() + certificates.server_key.read_bytes())
    (room / "haproxy.cfg").write_text(
        "defaults\n mode http\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n timeout tunnel 1h\n"
        f"frontend all\n bind 127.0.0.1:{port} ssl crt {both}\n{block('haproxy')}\n default_backend gateway\n"
        f"backend gateway\n option httpchk\n server one 127.0.0.1:{behind} check inter 100ms\n"
    )
    return ["haproxy", "-db", "-f", str(room / "haproxy.cfg")]


PROXIES: dict[str, Callable[[Path, int, int, Certificates], list[str]]] = {"nginx": nginx, "haproxy": haproxy}
StartProxy = Callable[[Gateway], int]


@pytest.fixture(params=list(PROXIES))
def start_proxy(request: pytest.FixtureRequest, tmp_path: Path, certificates: Certificates) -> Iterator[StartProxy]:
    """Starts the proxy in front of a gateway: its port."""
    name: str = request.param
    if shutil.which(name) is None:
        pytest.skip(f"no {name} on PATH")
    started: list[subprocess.Popen[bytes]] = []
    log = (tmp_path / "log").open("wb")

    def start(gateway: Gateway) -> int:
        port = free_pair()
        words = PROXIES[name](tmp_path, port, gateway.port, certificates)
        started.append(subprocess.Popen(words, stdout=log, stderr=log))

        def answers() -> bool:
            try:
                return httpx.get(f"https://127.0.0.1:{port}/ping", verify=False).status_code == 200
            except httpx.HTTPError:
                return False

        wait_until(answers, what=lambda: (tmp_path / "log").read_text())
        return port

    yield start
    for process in started:
        process.terminate()
        process.wait(20)
    log.close()


def test_a_page_behind_a_proxy_is_the_gateways_own(
    make_gateway: MakeGateway, broker: Broker, topic: str, start_proxy: StartProxy
) -> None:
    gateway = make_gateway(broker, "--behind-proxy", "--allow-origin", "https://friend.example")
    port = start_proxy(gateway)
    own = f"https://127.0.0.1:{port}"
    with httpx.Client(base_url=own, verify=False, timeout=20) as client:
        for origin, status in (
            (own, 200), ("https://friend.example", 200), (f"http://127.0.0.1:{port}", 403),
            (f"https://127.0.0.1:{gateway.port}", 403), ("https://evil.example", 403),
        ):  # fmt: skip
            answer = client.post("/pub", params={"topic": topic}, content=b"x", headers={"origin": origin})
            assert answer.status_code == status, (origin, answer.text)
        lie = {"origin": "https://evil.example", "x-forwarded-host": "evil.example"}
        assert client.post("/pub", params={"topic": topic}, content=b"x", headers=lie).status_code == 403
        params = {"topic": topic, "channel": "me", "count": 2, "format": "raw"}
        answer = client.get("/sub", params=params, headers={"origin": own})
        assert answer.text == "x\nx\n"
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    url = f"wss://127.0.0.1:{port}/sub?topic={topic}&channel=ws&format=raw"

    # The library's client of threads reads and writes one TLS connection at once, which OpenSSL does not allow: of
    # some hundred handshakes through haproxy one got no answer, of 6,000 with this client none.
    async def over_websockets() -> None:
        with pytest.raises(InvalidStatus) as refused:
            await connect(url, ssl=context, proxy=None, origin=Origin("https://evil.example"))
        assert refused.value.response.status_code == 403
        async with connect(url, ssl=context, proxy=None, origin=Origin(own)) as socket:
            published = await asyncio.to_thread(gateway.post, "/pub", b"over TLS", topic=topic)
            assert published.status_code == 200
            assert await asyncio.wait_for(socket.recv(), 20) == b"over TLS"

    asyncio.run(over_websockets())


def test_without_the_flag_a_proxy_is_not_believed(
    make_gateway: MakeGateway, broker: Broker, topic: str, start_proxy: StartProxy
) -> None:
    gateway = make_gateway(broker)
    own = f"https://127.0.0.1:{start_proxy(gateway)}"
    answer = httpx.post(f"{own}/pub", params={"topic": topic}, content=b"x", headers={"origin": own}, verify=False)
    assert (answer.status_code, answer.json()["message"]) == (403, "ORIGIN_NOT_ALLOWED")
    assert answer.json()["detail"].endswith(
        "if a proxy passes requests on to this gateway, start it with --behind-proxy"
    )
    direct = gateway.post("/pub", b"x", {"origin": "https://other.example"}, topic=topic)
    assert direct.json()["detail"] == "requests from pages of other sites are refused; --allow-origin allows them"


def test_ack_auto_behind_a_proxy_is_warned_of(
    make_gateway: MakeGateway, broker: Broker, topic: str, start_proxy: StartProxy
) -> None:
    gateway = make_gateway(broker)
    url = f"https://127.0.0.1:{start_proxy(gateway)}"
    broker.create(topic, "b", "c", "d")
    broker.fill(topic, [b"a"])
    with httpx.Client(base_url=url, verify=False, timeout=20) as client:
        for channel in ("b", "c"):
            answer = client.get("/sub", params={"topic": topic, "channel": channel, "count": 1})
            assert "ack=client" in answer.headers["q-warning"]
        assert "ack=client" in client.get("/message", params={"topic": topic, "channel": "d"}).headers["q-warning"]
        broker.fill(topic, [b"b"])
        params = {"topic": topic, "channel": "b", "timeout": 0.1}
        assert "q-warning" not in client.get("/sub", params={**params, "ack": "client"}).headers
        assert "q-warning" not in client.get("/sub", params={"topic": topic, "timeout": 0.1}).headers
    gateway.process.wait_err("came through a proxy (its header x-forwarded-for says)")
    assert gateway.process.err.count("came through a proxy") == 1
    assert "q-warning" not in gateway.get("/message", topic=topic, channel="c").headers


@pytest.mark.parametrize("sign", ["Via: 1.1 cache", "Forwarded: for=192.0.2.1", "X-Forwarded-For: 192.0.2.1"])
def test_every_sign_of_a_proxy(gateway: Gateway, broker: Broker, topic: str, sign: str) -> None:
    broker.fill(topic, [b"a"])
    name, _, value = sign.partition(": ")
    answer = gateway.client.get("/message", params={"topic": topic, "channel": "me"}, headers={name: value})
    assert "ack=client" in answer.headers["q-warning"]


@pytest.mark.parametrize(
    ("head", "told"),
    [
        ({}, (False, b"here")),
        ({"x-forwarded-proto": b"https"}, (True, b"here")),
        ({"x-forwarded-proto": b"HTTPS", "x-forwarded-host": b"pub.example"}, (True, b"pub.example")),
        ({"x-forwarded-proto": b"https, http", "x-forwarded-host": b"evil, pub:8"}, (False, b"pub:8")),
        ({"forwarded": b"for=1.2.3.4;proto=https;host=pub.example"}, (True, b"pub.example")),
        ({"forwarded": b'for="[::1]:4"; Host="pub.example:8"; Proto="https"'}, (True, b"pub.example:8")),
        ({"forwarded": b"proto=https;host=evil, proto=http;host=pub"}, (False, b"pub")),
        ({"forwarded": b"for=_hidden"}, (False, b"here")),
        ({"x-forwarded-proto": b"https", "forwarded": b"proto=http;host=other"}, (True, b"here")),
        ({"forwarded": b",;=" * 20_000}, (False, b"here")),
    ],
)
def test_what_a_proxy_says(head: Mapping[str, bytes], told: tuple[bool, bytes]) -> None:
    heads: dict[bytes, Any] = {name.encode(): value for name, value in head.items()}
    assert as_asked(heads, False, b"here") == told
