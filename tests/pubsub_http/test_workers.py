"""--workers: several processes on one socket, to the outside as one."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from harness.brokers import Broker
from harness.certificates import Certificates
from harness.gateway import Bare, Gateway, unchunked
from harness.waiting import wait_until

from tests.pubsub_http.conftest import MakeGateway

WORKERS = 3


def children(gateway: Gateway) -> list[int]:
    told = Path(f"/proc/{gateway.process.pid}/task/{gateway.process.pid}/children").read_text()
    return [int(pid) for pid in told.split()]


@pytest.fixture
def several(make_gateway: MakeGateway, broker: Broker) -> Gateway:
    gateway = make_gateway(broker, "--workers", str(WORKERS))
    assert len(children(gateway)) == WORKERS
    return gateway


def fresh(
    gateway: Gateway, method: str, path: str, body: bytes = b"", **params: str
) -> tuple[int, dict[str, str], bytes]:
    """A request over a connection of its own, which any worker may accept."""
    with httpx.Client(base_url=gateway.url, trust_env=False, timeout=20) as client:
        headers = {"idempotency-key": params.pop("key")} if "key" in params else None
        answer = client.request(method, path, params=params, content=body, headers=headers)
        return answer.status_code, dict(answer.headers), answer.content


def test_a_key_is_one_key_for_all_workers(several: Gateway, broker: Broker, topic: str) -> None:
    answers = [fresh(several, "POST", "/pub", b"once", topic=topic, key="k") for _ in range(20)]
    assert [status for status, _, _ in answers] == [200] * 20
    assert sum("idempotent-replayed" in headers for _, headers, _ in answers) == 19
    assert fresh(several, "POST", "/pub", b"other", topic=topic, key="k")[0] == 422
    assert broker.bodies(topic) == [b"once"]


def test_a_session_is_found_from_every_worker(several: Gateway, broker: Broker, topic: str) -> None:
    broker.fill(topic, [b"%d" % number for number in range(12)])
    with several.stream(topic, "me", ack="client") as stream:
        for _ in range(12):
            ident = stream.message()["id"]
            status, _, told = fresh(several, "POST", "/finish", ident.encode(), session=stream.session)
            assert (status, json.loads(told)) == (200, {"finished": 1, "unknown": []})
    broker.wait_held(topic, "me", 0)
    for guess in ("9-x", "00000001-x", "-1-x", "x"):
        assert fresh(several, "POST", "/finish", b"id", session=guess)[0] == 404


def test_a_worker_that_dies_is_replaced(several: Gateway, broker: Broker, topic: str) -> None:
    before = children(several)
    wait_until(lambda: "serving" in several.process.err)
    os.kill(before[1], signal.SIGKILL)
    wait_until(lambda: len(set(children(several)) - set(before)) == 1 and len(children(several)) == WORKERS)
    several.process.wait_err("worker 1 ended with SIGKILL; starting it again\n")
    wait_until(lambda: all(fresh(several, "POST", "/pub", b"x", topic=topic)[0] == 200 for _ in range(10)))


def test_a_signal_ends_all_of_them_in_order(several: Gateway, broker: Broker, topic: str) -> None:
    broker.fill(topic, [b"a"])
    workers = children(several)
    with several.stream(topic, "me", ack="client") as stream:
        stream.message()
        several.process.signal(signal.SIGTERM)
        assert stream.rest() == []
    assert several.process.wait().status == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)
    broker.wait_held(topic, "me", 1, 5)


def test_ctrl_c_ends_all_of_them_in_order(several: Gateway, broker: Broker, topic: str) -> None:
    """A terminal sends SIGINT to every process of the job; the parent and the workers stop once, and in order."""
    broker.fill(topic, [b"%d" % number for number in range(5)])
    workers = children(several)
    with several.stream(topic, "me", ack="client") as stream:
        for _ in range(5):
            stream.message()
        for pid in (*workers, several.process.pid):
            os.kill(pid, signal.SIGINT)
        assert several.process.wait(10).status == -signal.SIGINT
    assert not any(_runs(pid) for pid in workers)
    broker.wait_held(topic, "me", 5)  # given back at once, and not after the message timeout
    assert broker.depth(topic, "me").timed_out == 0


def test_no_worker_outlives_a_parent_that_is_killed(several: Gateway) -> None:
    workers = children(several)
    several.process.signal(signal.SIGKILL)
    wait_until(lambda: not any(_runs(pid) for pid in workers))


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_what_cannot_start_is_said_and_ends(make_gateway: MakeGateway, broker: Broker, shell) -> None:  # type: ignore[no-untyped-def]
    done = shell.run(
        "q-pubsub-http", "--http-address", "127.0.0.1:0", "--workers", "2", "--nsqd-tcp-address", "127.0.0.1:1",
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.status == 3
    assert "nothing listens there" in done.err


def test_the_origin_of_the_own_page_may_ask_over_https(
    make_gateway: MakeGateway, broker: Broker, topic: str, certificates: Certificates
) -> None:
    flags = ("--https-cert", str(certificates.server_cert), "--https-key", str(certificates.server_key))
    gateway = make_gateway(broker, "--workers", str(WORKERS), *flags)
    for number in range(12):  # whichever worker accepts it, and whichever one the key belongs to
        for origin, status in ((gateway.url, 200), (gateway.url.replace("https", "http"), 403)):
            headers = {"origin": origin, "idempotency-key": str(number)}
            assert gateway.post("/pub", b"x", headers, topic=topic).status_code == status
    assert len(broker.bodies(topic)) == 12


def test_a_client_cannot_say_how_it_is_connected(several: Gateway, topic: str) -> None:
    origin = several.url.replace("http", "https")
    for number in range(6):
        headers = {"origin": origin, "idempotency-key": str(number), "q-worker-scheme": "https"}
        assert several.post("/pub", b"x", headers, topic=topic).status_code == 403


def test_what_workers_ask_each_other_is_not_answered_to_clients(several: Gateway) -> None:
    assert several.post("/worker/resume", b"{}").status_code == 404


@pytest.mark.parametrize("flags", [(), ("--workers", str(WORKERS))], ids=["alone", "workers"])
def test_an_event_stream_goes_on_at_any_worker(
    make_gateway: MakeGateway, broker: Broker, topic: str, flags: tuple[str, ...]
) -> None:
    gateway = make_gateway(broker, *flags)
    bodies = [b"%06d" % number + b"x" * 1000 for number in range(1000)]
    broker.create(topic, "me")
    broker.fill(topic, bodies)
    came: list[str] = []
    last = ""
    draw = random.Random(3)
    while len(set(came)) < len(bodies):
        client = Bare(gateway.port, receive_buffer=8192)
        headers = [f"Last-Event-ID: {last}"] if last else []
        client.get(f"/sub?topic={topic}&channel=me&format=sse&max_in_flight=50", *headers)
        data = client.read_until(b"data: ")
        for _ in range(draw.randint(0, 10)):
            if len(set(came)) + data.count(b"data: ") < len(bodies):
                data += client.socket.recv(65536)
        client.socket.shutdown(socket.SHUT_WR)
        data += client.read_all()
        client.close()
        for ident, body in re.findall(r'id: (\S+)\ndata: .*?"body":"(\w+)".*?\n\n', unchunked(data).decode()):
            last = ident
            came.append(body)
    assert len(came) == len(bodies), "some came twice"
    with gateway.stream(topic, "me", format="sse", until_empty="true", headers={"last-event-id": last}) as stream:
        assert [line for line in stream.rest() if line.startswith("data: ")] == []
    broker.wait_held(topic, "me", 0)


CRASHING = """
import sys
from qtools.pubsub_http import command, workers

async def crash(*_):
    raise RuntimeError("the roof fell in")

workers.serve_on = crash
command.main()
"""


def test_a_worker_that_crashes_says_why(broker: Broker, tmp_path: Path) -> None:
    program = tmp_path / "crashing.py"
    program.write_text(CRASHING)
    words = [sys.executable, str(program), "--http-address", "127.0.0.1:0", "--workers", "2", *broker.flags]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    said = r"^q-pubsub-http: internal error: worker [01] ends with RuntimeError\('the roof fell in'\)$"
    assert re.search(said, done.stderr, re.MULTILINE)
    assert "in crash" in done.stderr  # where it was, for a report
