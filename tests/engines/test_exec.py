"""q-exec on every engine: messages that are done, that are tried again, and that become dead letters."""

from __future__ import annotations

import asyncio
import json

from harness.shell import Shell

from tests.engines.clusters.cluster import Cluster

COUNT = 30


async def test_done_tried_again_and_dead(server: Cluster, shell: Shell, topic: str) -> None:
    await server.make_topic(topic, "me", partitions=2)
    await server.make_topic(f"{topic}.dead", "see")
    await server.fill(topic, [b"%d" % number for number in range(COUNT)])
    script = (
        'read x; case $x in 7) echo "no seven" >&2; exit 3;; 8) [ $Q_ATTEMPTS = 2 ] || exit 4;; esac;'
        " echo $x $Q_TOPIC $Q_CHANNEL"
    )
    done = await asyncio.to_thread(
        shell.run, "q-exec", f"{server.url}/{topic}/me", "--until-empty", "-j2", "--max-attempts", "2",
        "--backoff", "50ms", "--", "sh", "-c", script,
    )  # fmt: skip
    assert done.status == 0, done.err
    wanted = [f"{number} {topic} me".encode() for number in range(COUNT) if number != 7]
    assert sorted(done.lines) == sorted(wanted)
    assert f"{COUNT - 1} done, 2 requeued, 1 dead-lettered" in done.err
    assert " left" not in done.err  # in the summary
    assert await server.left(topic, "me") == 0
    [letter] = await server.drain(f"{topic}.dead", "see")
    fields = json.loads(letter)
    assert (fields["body"], fields["attempts"]) == ("7", 2)
    assert fields["reason"] == "exit status 3: no seven (--max-attempts 2 reached)"
