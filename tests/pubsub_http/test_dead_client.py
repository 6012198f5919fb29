"""A client whose cable is pulled: no end, no reset, no answer ever again. What it had not taken goes to somebody else.

It needs a network of its own, which only the superuser can make; elsewhere it is skipped.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator

import pytest
from harness.brokers import Broker
from harness.waiting import wait_until

from tests.pubsub_http.conftest import MakeGateway
from tests.pubsub_http.hang_ups import UPGRADE

HERE, THERE = "10.213.77.1", "10.213.77.2"

# Reads a little in the other network, says so, and then stands still.
CLIENT = """
import socket, sys, time
client = socket.create_connection((sys.argv[1], int(sys.argv[2])))
client.sendall(f"GET {sys.argv[3]} HTTP/1.1\\r\\nHost: localhost\\r\\n{sys.argv[4]}\\r\\n".encode())
data = b""
while b"000000" not in data:
    data += client.recv(1000)
print("reading", flush=True)
while True:
    data = client.recv(65536)
    time.sleep(0.001)
"""


def run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)


@pytest.fixture
def cable() -> Iterator[tuple[str, str]]:
    """Two networks and a cable between them: (the other network's name, the name of our end)."""
    name = f"q{uuid.uuid4().hex[:6]}"
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("making a network takes the superuser and `ip`")
    try:
        run("ip", "netns", "add", name)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network can be made here: {error.stderr.decode().strip()}")
    try:
        run("ip", "link", "add", f"{name}a", "type", "veth", "peer", "name", f"{name}b", "netns", name)
        run("ip", "addr", "add", f"{HERE}/30", "dev", f"{name}a")
        run("ip", "link", "set", f"{name}a", "up")
        run("ip", "-n", name, "addr", "add", f"{THERE}/30", "dev", f"{name}b")
        run("ip", "-n", name, "link", "set", f"{name}b", "up")
        yield name, f"{name}a"
    finally:
        subprocess.run(["ip", "link", "del", f"{name}a"], capture_output=True, check=False)
        subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("upgrade", ["", UPGRADE], ids=["stream", "websocket"])
def test_a_pulled_cable_is_noticed_by_a_heartbeat(
    make_gateway: MakeGateway, broker: Broker, topic: str, cable: tuple[str, str], upgrade: str
) -> None:
    network, _ = cable
    gateway = make_gateway(broker, "--heartbeat", "1s", "--insecure", "-v", address=f"{HERE}:0")
    broker.create(topic, "me")
    broker.fill(topic, [b"%06d" % number for number in range(5)])
    words = ["python3", "-c", CLIENT, HERE, str(gateway.port), f"/sub?topic={topic}&channel=me&format=raw", upgrade]
    client = subprocess.Popen(["ip", "netns", "exec", network, *words], stdout=subprocess.PIPE)
    try:
        assert client.stdout is not None
        assert client.stdout.readline() == b"reading\n"
        broker.wait_held(topic, "me", 0)
        run("ip", "-n", network, "link", "set", f"{network}b", "down")
        broker.fill(topic, [b"for the dead"])
        broker.wait_clients(topic, "me")
        wait_until(lambda: broker.depth(topic, "me").in_flight == 1)
        # Two heartbeats without an answer, and it is not waited for; the system's own timeout is a quarter of an hour.
        broker.wait_held(topic, "me", 1, 15)
        assert "does not acknowledge anything any more" in gateway.process.err
        assert broker.bodies(topic, "me") == [b"for the dead"]
    finally:
        client.kill()
        client.wait()
        client.stdout.close()
