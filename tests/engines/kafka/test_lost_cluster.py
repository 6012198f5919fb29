"""A cluster that is away for longer than --retry-timeout: one line, exit status 1, and what was confirmed is there."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable

import pytest
from harness.feeder import Feeder
from harness.kafka import KafkaNode
from harness.kafka_client import KafkaClient
from harness.shell import Shell
from harness.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
RETRY_TIMEOUT = 5.0  # s


@pytest.mark.parametrize("fault", [KafkaNode.kill, KafkaNode.freeze])
def test_a_cluster_that_stays_away(
    shell: Shell, make_kafka: Callable[..., list[KafkaNode]], fault: Callable[[KafkaNode], None]
) -> None:
    (node,) = make_kafka()
    client = KafkaClient(node.address)
    client.create("events")
    words = ["q-pipe", "events", "-b", node.url, "--rate", "5000", "--batch-count", "500"]
    running = shell.start(*words, "--retry-timeout", f"{RETRY_TIMEOUT:g}s", stdin=subprocess.PIPE)
    feeder = Feeder(running)
    wait_until(lambda: client.end("events") > 5000, 60, lambda: running.err)
    fault(node)
    begun = time.monotonic()
    done = running.wait(60)
    waited = time.monotonic() - begun
    feeder.end()
    assert done.status == 1
    assert RETRY_TIMEOUT - 0.5 <= waited < RETRY_TIMEOUT + 10
    *before, reason, outcome = done.err_lines
    assert reason.startswith(f"q-pipe: {node.address}: ")
    assert before in ([], [f"q-pipe: lost {node.address}: no broker is connected; trying again"])
    answer = re.fullmatch(
        r"q-pipe: confirmed: ([\d,]+) messages, (\d+) bytes .*; --skip-bytes \2 goes on there", outcome
    )
    assert answer is not None, outcome
    confirmed = int(answer[1].replace(",", ""))
    if fault is KafkaNode.freeze:
        node.thaw()
    else:
        node.start()
    found = [json.loads(record.value() or b"")["n"] for some in client.records("events") for record in some]
    print(
        f"\n{fault.__name__}: ended {waited:.1f} s later: {reason}; confirmed {confirmed:,},"
        f" in the topic {len(found):,}, duplicates {len(found) - len(set(found))}"
    )
    assert confirmed >= 5000
    assert found == list(range(len(found)))  # in order, none missing, none twice
    assert len(found) >= confirmed
