"""q-pipe and q-tail on one RabbitMQ, beside amqp-tools. In: a Bench. Out: tables.

The server is the one that --rabbitmq names, else one that tests/harness/rabbitmq.py starts. A topic is a fanout
exchange with one quorum queue. Right is a run after which the queue holds all messages, or the same lines came out and
none is left. amqp-publish waits for no confirm; amqp-consume starts a command for each message.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from measure.brokers import cpu_of, spent
from measure.processes import BenchError, NotHere, end_group, run, start
from measure.rounds import Contender, Run
from measure.table import COMMAND, Table

if TYPE_CHECKING:
    from measure.sections import Bench

TESTS = Path(__file__).parents[2] / "tests"
START = 120.0  # s until a RabbitMQ must listen
SETTLE = 20.0  # s until its queue must hold what it has to
LOOK = 0.02  # s between two looks at a queue
CHANNEL = "bench"
CONSUMED = 1000  # messages for amqp-consume


class RabbitMq:
    """A running RabbitMQ. pid: of its process, where that is ours, to see its CPU."""

    def __init__(self, address: str, pid: int | None) -> None:
        import pika

        host, _, port = address.rpartition(":")
        self.address = address
        self.url = f"amqp://{address}"
        self._pid = pid
        self._connection = pika.BlockingConnection(pika.ConnectionParameters(host, int(port), heartbeat=0))
        self._channel = self._connection.channel()
        self._channel.confirm_delivery()

    def create(self, topic: str) -> None:
        queue = f"{topic}/{CHANNEL}"
        self._channel.exchange_declare(topic, "fanout", durable=True)
        self._channel.queue_declare(queue, durable=True, arguments={"x-queue-type": "quorum"})
        self._channel.queue_bind(queue, topic)

    def delete(self, topic: str) -> None:
        self._channel.queue_delete(f"{topic}/{CHANNEL}")
        self._channel.exchange_delete(topic)

    def ready(self, topic: str) -> int:
        """Messages of the queue that are not delivered."""
        count: int = self._channel.queue_declare(f"{topic}/{CHANNEL}", passive=True).method.message_count
        return count

    def fill(self, topic: str, lines: Path) -> None:
        """Publish the lines of a file, by no tool that is measured here."""
        import pika

        channel = self._connection.channel()
        properties = pika.BasicProperties(delivery_mode=2)
        content = lines.read_bytes().splitlines()
        for line in content:
            channel.basic_publish(topic, "", line, properties)
        self._connection.process_data_events()
        if _settle(lambda: self.ready(topic), len(content)) != len(content):
            raise BenchError(f"RabbitMQ at {self.address} did not take the messages that are to be read")
        channel.close()

    def cpu(self) -> float | None:
        return cpu_of(self._pid)


@contextmanager
def running_rabbitmq(address: str | None, directory: Path) -> Iterator[RabbitMq]:
    """The RabbitMQ at `address`, or a new one, which ends with the context."""
    if address:
        yield RabbitMq(address, None)
        return
    room = directory / "rabbitmq"
    room.mkdir()
    words = [sys.executable, "-c", "from harness.rabbitmq import why_not; print(why_not())"]
    reason = subprocess.run(words, cwd=TESTS, capture_output=True, text=True, check=True).stdout.strip()
    if reason:
        raise NotHere(f"{reason}: name a running RabbitMQ with --rabbitmq HOST:PORT")
    with (directory / "rabbitmq-talk").open("wb") as talk:
        keeper = start(
            [sys.executable, "-m", "harness.rabbitmq", str(os.getpid()), str(room)],
            cwd=TESTS, stdin=subprocess.DEVNULL, stdout=talk, stderr=talk,
        )  # fmt: skip
    try:
        ready = room / "ready.json"
        deadline = time.monotonic() + START
        while not ready.exists():
            if keeper.poll() is not None or time.monotonic() > deadline:
                raise BenchError(f"RabbitMQ did not start within {START:.0f} s")
            time.sleep(0.1)
        found = json.loads(ready.read_text())
        yield RabbitMq(found["address"], found["pid"])
    finally:
        keeper.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            keeper.wait(30)
        end_group(keeper)


def rabbitmq(bench: Bench) -> list[Table]:
    """q-pipe and q-tail on RabbitMQ, and amqp-tools where they are."""
    tools = bench.tools
    publish, consume = shutil.which("amqp-publish"), shutil.which("amqp-consume")
    with ExitStack() as stack:
        server = stack.enter_context(running_rabbitmq(bench.rabbitmq, bench.directory))
        into = [into_exchange(bench, server, "q-pipe", lambda topic: [tools.q_pipe, f"{server.url}/{topic}"])]
        out_of = [out_of_queue(bench, server, "q-tail", bench.count, lambda topic, count: [
            tools.q_tail, f"{server.url}/{topic}/{CHANNEL}", "-n", str(count)])]  # fmt: skip
        if publish:
            into.append(into_exchange(bench, server, "amqp-publish", lambda topic: [
                publish, f"--url={server.url}", "-e", topic, "-l", "-p"], ours=False))  # fmt: skip
        if consume:
            few = min(CONSUMED, bench.count)
            out_of.append(out_of_queue(bench, server, "amqp-consume cat", few, lambda topic, count: [
                consume, f"--url={server.url}", "-q", f"{topic}/{CHANNEL}", "-p", "1000", "-c", str(count), "cat"],
                ours=False))  # fmt: skip
        return [
            Table(bench.title("Lines of a file into an exchange of RabbitMQ"), COMMAND, bench.take_turns(into),
                  ["persistent, into one quorum queue; q-pipe waits for confirms, amqp-publish does not"]),
            Table(bench.title("A queue of RabbitMQ into a file"), COMMAND, bench.take_turns(out_of),
                  ["both acknowledge; amqp-consume starts a command for each message"]),
        ]  # fmt: skip


def into_exchange(
    bench: Bench, server: RabbitMq, name: str, argv: Callable[[str], list[str]], *, ours: bool = True
) -> Contender:
    """A command that reads lines from stdin into an exchange. It has ended when the queue has them all."""

    def once(count: int) -> Run:
        topic = next(bench.topics)
        server.create(topic)
        before = server.cpu()
        took = run(argv(topic), bench.events.file(count), bench.directory / "out", bench.directory / "talk")
        arrived = _settle(lambda: server.ready(topic), count)
        used = spent(before, server.cpu())
        server.delete(topic)
        return Run(count, took, used, "" if arrived == count else f"{arrived:,} of {count:,} messages arrived")

    return Contender(name, bench.count, once, ours)


def out_of_queue(
    bench: Bench, server: RabbitMq, name: str, most: int, argv: Callable[[str, int], list[str]], *, ours: bool = True
) -> Contender:
    """A command that writes a queue to stdout, and acknowledges it. most: messages of a run."""

    def once(count: int) -> Run:
        topic = next(bench.topics)
        server.create(topic)
        server.fill(topic, bench.events.file(count))
        before = server.cpu()
        took = run(argv(topic, count), None, bench.directory / "out", bench.directory / "talk")
        used = spent(before, server.cpu())
        wrong = bench.events.difference(bench.directory / "out", count) if ours else ""
        left = server.ready(topic)
        server.delete(topic)
        return Run(count, took, used, wrong or ("" if not left else f"{left:,} messages are left"))

    return Contender(name, most, once, ours)


def _settle(look: Callable[[], int], until: int) -> int:
    """What `look` returns, as soon as it is `until`, or as it is when it never becomes that."""
    deadline = time.monotonic() + SETTLE
    while (seen := look()) < until and time.monotonic() < deadline:
        time.sleep(LOOK)
    return seen
