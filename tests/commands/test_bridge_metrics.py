"""q-bridge --metrics-address: messages by outcome and route, readiness; and SIGTERM within --drain-timeout."""

from __future__ import annotations

import re
import signal
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from conftest import MakeBroker
from harness.brokers import Broker
from harness.proxy import Proxy
from harness.shell import Running, Shell
from harness.waiting import wait_until


def ask(bridge: Running, path: str) -> str:
    found = re.search(r"metrics at http://([0-9.:]+)/metrics", bridge.err)
    assert found is not None, bridge.err
    try:
        with urllib.request.urlopen(f"http://{found[1]}{path}", timeout=10) as answer:
            told: str = answer.read().decode()
            return told
    except urllib.error.HTTPError as error:
        return f"{error.code} {error.read().decode()}"


def test_what_is_counted(shell: Shell, broker: Broker, topic: str, tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text(f"[[route]]\nname = 'big'\nwhen = '.n > 5'\nto = ['{topic}.a', '{topic}.b']\n")
    broker.fill(topic, [*(b'{"n":%d}' % nth for nth in range(10)), b"no json"])
    words = ["--routes", path, "--metrics-address", ":0", *broker.flags]
    bridge = shell.start("q-bridge", topic, *words)
    bridge.wait_err("metrics at ")
    wait_until(lambda: "qtools_bridge_read_total 11" in ask(bridge, "/metrics"), what=lambda: ask(bridge, "/metrics"))
    wait_until(lambda: not broker.depth(topic, "q-bridge").held)
    told = ask(bridge, "/metrics")
    outcomes = dict(re.findall(r'^qtools_bridge_messages_total\{outcome="([a-z-]+)"\} (\d+)', told, re.M))
    assert outcomes == {
        "routed": "4", "filtered": "6", "duplicate": "0", "dead-lettered": "1", "dropped": "0", "requeued": "0",
    }  # fmt: skip
    assert 'qtools_bridge_route_copies_total{route="big"} 8' in told
    assert "qtools_bridge_published_total 9" in told
    assert re.search(r'qtools_bridge_connections\{side="destination"\} 1', told)
    assert not ask(bridge, "/readyz").startswith("503")
    bridge.signal(signal.SIGTERM)
    assert bridge.wait().status == 0


def test_not_ready_without_a_destination_and_a_drain_in_time(
    shell: Shell, make_broker: MakeBroker, make_proxy: Callable[[Broker], Proxy], topic: str
) -> None:
    here, there = make_broker(), make_broker()
    proxy = make_proxy(there)
    words = ["--to", topic, "--to-nsqd", proxy.address, "--metrics-address", ":0", "--drain-timeout", "300ms"]
    bridge = shell.start("q-bridge", topic, *words, *here.flags)
    bridge.wait_err("metrics at ")
    wait_until(lambda: not ask(bridge, "/readyz").startswith("503"))
    proxy.refuse()
    wait_until(lambda: ask(bridge, "/readyz").startswith("503 no nsqd is connected to send to"))
    here.fill(topic, [b"a"])
    wait_until(lambda: "qtools_bridge_read_total 1" in ask(bridge, "/metrics"))
    bridge.signal(signal.SIGTERM)
    done = bridge.wait(5)
    assert done.status == 0
    assert "0 routed, 1 requeued" in done.err
    assert here.wait_held(topic, "q-bridge", 1)
