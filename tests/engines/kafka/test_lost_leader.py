"""Three nodes, of which the leader of a partition is killed with SIGKILL again and again under q-pipe: none of the
messages that were confirmed is missing, none is there twice, and messages of a key are in order.

Every partition has three replicas, and two of them have to have a message before it is confirmed. A node that was
killed is started again, and has caught up before the next one is killed.

QTOOLS_PROOF_KILLS: another number of kills, for trials.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable

import pytest
from harness.feeder import KEYS, Feeder
from harness.kafka import KafkaNode
from harness.kafka_client import KafkaClient
from harness.shell import Shell
from harness.waiting import wait_until

KILLS = int(os.environ.get("QTOOLS_PROOF_KILLS", "10"))
RATE = 5000  # messages/s
TOPIC = "events"
REPLICATED = {
    "default.replication.factor": "3", "min.insync.replicas": "2", "offsets.topic.replication.factor": "3",
    "unclean.leader.election.enable": "false",
}  # fmt: skip
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def test_the_leader_is_killed(shell: Shell, make_kafka: Callable[..., list[KafkaNode]]) -> None:
    begun = time.monotonic()
    nodes = make_kafka(3, REPLICATED)
    by_number = {node.number: node for node in nodes}
    addresses = ",".join(node.address for node in nodes)
    print(f"\nthree nodes: {time.monotonic() - begun:.1f} s with their formatting", end="")
    client = KafkaClient(addresses)
    client.create(TOPIC, 3, 3)
    words = ["q-pipe", TOPIC, "-b", f"kafka://{addresses}", "--key", ".user", "--rate", str(RATE)]
    running = shell.start(*words, "--batch-count", "500", "--retry-timeout", "120s", stdin=subprocess.PIPE)
    feeder = Feeder(running)
    ends_at_kill: list[int] = []
    for kill in range(KILLS):
        before = client.end(TOPIC)
        wait_until(lambda: client.end(TOPIC) > before + RATE // 2, 120, lambda: running.err)  # noqa: B023
        partition = kill % 3
        leader = by_number[client.leaders(TOPIC)[partition]]
        leader.kill()
        ends_at_kill.append(feeder.count)
        wait_until(lambda: client.leaders(TOPIC).get(partition, -1) not in (-1, leader.number), 120)  # noqa: B023
        leader.start()
        wait_until(lambda: client.in_sync(TOPIC) == 3, 120, lambda: leader.log)  # noqa: B023
    memory = [round(node.memory / 2**20) for node in nodes]
    feeder.end()
    done = running.wait(300)
    assert done.status == 0, done.err
    assert running.is_running is False

    copies = bytearray(feeder.count)
    last = [-1] * KEYS
    out_of_order = 0
    for some in client.records(TOPIC):
        for record in some:
            value = json.loads(record.value() or b"")
            number, key = value["n"], value["n"] % KEYS
            assert record.key() == value["user"].encode()
            copies[number] += 1
            out_of_order += number <= last[key]
            last[key] = number
    missing, duplicates = copies.count(0), sum(copies) - len(copies) + copies.count(0)
    print(
        f"; {KILLS} kills of a leader under q-pipe in {time.monotonic() - begun:.0f} s: {feeder.count:,} messages"
        f" confirmed, missing {missing}, duplicates {duplicates}, out of order {out_of_order};"
        f" memory of the nodes {memory} MiB"
    )
    assert (missing, duplicates, out_of_order) == (0, 0, 0)
