"""The programs on a real RabbitMQ, as a user runs them: between engines, into files, over HTTP, over crashes."""

from __future__ import annotations

import asyncio
import json
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from harness.brokers import Broker
from harness.shell import Shell
from harness.waiting import wait_until

if TYPE_CHECKING:  # it imports pika, which only these tests need
    from tests.engines.clusters.rabbitmq import RabbitCluster

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
COUNT = 20_000


def numbered(count: int, start: int = 0) -> bytes:
    return b"".join(b'{"n":%d,"user":"u%d"}\n' % (number, number % 17) for number in range(start, start + count))


def drained(shell: Shell, url: str, topic: str, *flags: str) -> list[bytes]:
    done = shell.run("q-tail", f"{url}/{topic}/own", "--until-empty", "-q", *flags, timeout=120)
    assert done.status == 0, done.err
    return done.lines


def test_there_and_back_between_engines(
    shell: Shell, rabbitmq: RabbitCluster, topic: str, make_broker: Callable[..., Broker]
) -> None:
    nsq, url = f"nsq://{make_broker().address}", rabbitmq.url
    asyncio.run(rabbitmq.make_topic(topic, "own", "back"))
    assert shell.run("q-pipe", "events", "-b", nsq, input=numbered(COUNT)).status == 0
    done = shell.run(
        "q-bridge",
        f"{nsq}/events/router",
        "--to",
        f"{url}/{topic}",
        "--key",
        ".user",
        "--header",
        "n=.n",
        "--until-empty",
    )
    assert done.status == 0, done.err
    done = shell.run("q-bridge", f"{url}/{topic}/back", "--to", f"{nsq}/returned", "--until-empty")
    assert done.status == 0, done.err
    done = shell.run("q-tail", f"{nsq}/returned/own", "--until-empty", "-q")
    assert sorted(done.lines) == sorted(numbered(COUNT).splitlines())
    envelopes = [json.loads(line) for line in drained(shell, url, topic, "--format", "envelope")]
    assert len(envelopes) == COUNT
    for envelope in envelopes:
        body = json.loads(envelope["body"])
        assert (envelope["key"], envelope["headers"]) == (body["user"], {"n": str(body["n"])})


def test_a_bridge_from_a_cluster_to_itself_is_refused(shell: Shell, rabbitmq: RabbitCluster, topic: str) -> None:
    asyncio.run(rabbitmq.make_topic(topic, "own"))
    other = rabbitmq.url.replace("127.0.0.1", "localhost")
    done = shell.run("q-bridge", f"{rabbitmq.url}/{topic}/own", "--to", f"{other}/{topic}")
    assert done.status == 2
    assert topic in done.err


def test_an_archive(shell: Shell, rabbitmq: RabbitCluster, topic: str, tmp_path: Path) -> None:
    asyncio.run(rabbitmq.make_topic(topic, "own"))
    assert shell.run("q-pipe", f"{rabbitmq.url}/{topic}", input=numbered(COUNT)).status == 0
    done = shell.run(
        "q-to-file", f"{rabbitmq.url}/{topic}/own", "--output-dir", str(tmp_path), "--until-empty", "--format", "raw"
    )
    assert done.status == 0, done.err
    lines = [line for path in tmp_path.rglob("*") if path.is_file() for line in path.read_bytes().splitlines()]
    assert sorted(line for line in lines if line.startswith(b'{"n"')) == sorted(numbered(COUNT).splitlines())
    assert drained(shell, rabbitmq.url, topic) == []


def test_a_bridge_that_is_killed_again_and_again(
    shell: Shell, rabbitmq: RabbitCluster, topic: str, make_broker: Callable[..., Broker]
) -> None:
    """Nothing is missing in the end; what was in flight may be there twice."""
    broker = make_broker()
    asyncio.run(rabbitmq.make_topic(topic, "own"))
    assert shell.run("q-pipe", f"{rabbitmq.url}/{topic}", input=numbered(COUNT)).status == 0
    words = [
        "q-bridge",
        f"{rabbitmq.url}/{topic}/own",
        "--to",
        f"nsq://{broker.address}/there",
        "--max-in-flight",
        "500",
    ]
    broker.create("there", "own")
    for kills in range(1, 6):
        running = shell.start(*words, "--rate", "4000")
        wait_until(lambda kills=kills: broker.depth("there", "own").held >= kills * 2000, 60)  # type: ignore[misc]
        running.signal(signal.SIGKILL)
        running.wait()
    done = shell.run(*words, "--until-empty", timeout=120)
    assert done.status == 0, done.err
    found = Counter(json.loads(body)["n"] for body in broker.bodies("there", "own"))
    assert sorted(found) == list(range(COUNT))
    assert found.total() - COUNT <= 5 * 500
