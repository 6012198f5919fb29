"""q-to-file while it runs: metrics, readiness, JSON talk; and that it syncs well before the broker's patience ends."""

from __future__ import annotations

import json
import re
import resource
import signal
from pathlib import Path

import httpx
import pytest
from harness.brokers import Broker
from harness.shell import Running, Shell
from harness.waiting import wait_until
from prometheus_client.parser import text_string_to_metric_families


def base_of(running: Running) -> str:
    running.wait_err("/metrics")
    found = re.search(r"metrics at (http://127\.0\.0\.1:\d+)/metrics", running.err)
    assert found is not None
    return found[1]


def scrape(base: str) -> dict[str, float]:
    return {
        " ".join([sample.name, *sample.labels.values()]): sample.value
        for family in text_string_to_metric_families(httpx.get(f"{base}/metrics", timeout=10).text)
        for sample in family.samples
    }


def wait_ready(base: str, status: int) -> str:
    wait_until(lambda: httpx.get(f"{base}/readyz", timeout=10).status_code == status, what=f"/readyz {status}")
    return httpx.get(f"{base}/readyz", timeout=10).text


def test_counts_and_readiness_while_files_may_not_grow(
    shell: Shell, broker: Broker, topic: str, tmp_path: Path
) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))

    broker.create(topic, "me")
    running = shell.start(
        "q-to-file", f"{topic}/me", "-o", tmp_path / "a", "--metrics-address", "0", "--sync-count", "100",
        "--sync-interval", "50ms", "--log-format", "json", *broker.flags, preexec_fn=limit,
    )  # fmt: skip
    base = base_of(running)
    assert wait_ready(base, 200) == "ready\n"
    broker.fill(topic, [b"%05d" % number for number in range(50)])
    wait_until(lambda: scrape(base)["qtools_to_file_messages_total finished"] == 50)
    broker.fill(topic, [b"x" * 1000] * 200)
    told = wait_ready(base, 503)
    assert "File too large" in told
    assert str(tmp_path / "a" / ".work") in told
    found = scrape(base)
    assert found["qtools_to_file_paused"] == 1
    assert found["qtools_to_file_open_files"] == 1
    assert found["qtools_to_file_syncs_total"] >= 1
    assert httpx.get(f"{base}/healthz").status_code == 200
    resource.prlimit(running.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    wait_ready(base, 200)
    wait_until(lambda: scrape(base)["qtools_to_file_messages_total finished"] == 250)
    running.signal(signal.SIGHUP)
    wait_until(lambda: scrape(base)["qtools_to_file_files_total"] == 1)
    running.signal(signal.SIGTERM)
    done = running.wait(10)
    assert done.status == 0
    told_lines = [json.loads(line) for line in done.err_lines]
    assert all(line["program"] == "q-to-file" for line in told_lines)
    assert told_lines[-1]["message"].startswith("archived 250 messages")


def test_it_syncs_before_the_broker_gives_up_waiting(shell: Shell, broker: Broker, topic: str, tmp_path: Path) -> None:
    running = shell.start(
        "q-to-file", f"{topic}/me", "-o", tmp_path, "--msg-timeout", "1s", "--sync-interval", "5m", *broker.flags
    )
    running.wait_err("the message timeout of the broker is 1s: syncing every 500ms")
    broker.wait_clients(topic, "me")
    broker.fill(topic, [b"x"])
    wait_until(lambda: broker.depth(topic, "me").held == 0)
    assert broker.depth(topic, "me").timed_out == 0
    running.signal(signal.SIGTERM)
    assert running.wait(10).status == 0


@pytest.mark.slow
def test_memory_does_not_grow_with_the_file(shell: Shell, broker: Broker, topic: str, tmp_path: Path) -> None:
    broker.create(topic, "me")
    running = shell.start("q-to-file", f"{topic}/me", "-o", tmp_path, "--gzip", "--metrics-address", "0", *broker.flags)
    base = base_of(running)
    for _ in range(4):
        broker.fill(topic, [b"%06d" % number + b"x" * 1000 for number in range(20_000)])
        wait_until(lambda: broker.depth(topic, "me").held == 0)
    assert scrape(base)["process_resident_memory_bytes"] < 100e6
    assert scrape(base)["qtools_to_file_bytes_total"] > 80e6
    running.signal(signal.SIGTERM)
    assert running.wait(10).status == 0
