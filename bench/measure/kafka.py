"""q-pipe, q-tail and q-bridge on one Apache Kafka, beside kcat. In: a Bench. Out: tables.

The server is the one that --kafka names, else one that tests/harness/kafka.py starts with Java. A topic has one
partition. Right is a run after which the log's end is where it has to be, or the same lines came out.
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
from typing import TYPE_CHECKING, Any

from measure.brokers import Broker, cpu_of, spent
from measure.processes import BenchError, NotHere, end_group, run, run_until, start
from measure.rounds import Contender, Run
from measure.table import COMMAND, Table

if TYPE_CHECKING:
    from measure.sections import Bench

TESTS = Path(__file__).parents[2] / "tests"
START = 120.0  # s until a Kafka must listen; the first time its files are fetched
ASK = 30.0  # s for one question
SETTLE = 10.0  # s until its log must end where it has to
LOOK = 0.01  # s between two looks at the end of a log
GROUP = "bench"


class Kafka:
    """A running Kafka. pid: of its process, where that is ours, to see its CPU."""

    def __init__(self, address: str, pid: int | None) -> None:
        from confluent_kafka import Consumer
        from confluent_kafka.admin import AdminClient

        self.address = address
        self.url = f"kafka://{address}"
        self._pid = pid
        settings: dict[str, Any] = {"bootstrap.servers": address, "log_level": 0}
        self._admin = AdminClient(settings)
        self._consumer = Consumer(settings | {"group.id": GROUP, "enable.auto.commit": False})

    def create(self, topic: str) -> None:
        from confluent_kafka.admin import NewTopic

        self._admin.create_topics([NewTopic(topic, 1, 1)], operation_timeout=ASK)[topic].result(ASK)

    def delete(self, topic: str) -> None:
        self._admin.delete_topics([topic], operation_timeout=ASK)[topic].result(ASK)

    def fill(self, topic: str, lines: Path) -> None:
        """Publish the lines of a file, by no tool that is measured here."""
        from confluent_kafka import Producer

        producer = Producer({"bootstrap.servers": self.address, "queue.buffering.max.messages": 10_000_000})
        for line in lines.read_bytes().splitlines():
            producer.produce(topic, line)
        if producer.flush(ASK):
            raise BenchError(f"Kafka at {self.address} did not take the messages that are to be read")

    def end(self, topic: str) -> int:
        """The offset behind the last message, which is their number in a new topic."""
        from confluent_kafka import TopicPartition

        end: int = self._consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=ASK)[1]
        return end

    def committed(self, topic: str) -> int:
        """The committed offset of the group."""
        from confluent_kafka import TopicPartition

        offset: int = self._consumer.committed([TopicPartition(topic, 0)], timeout=ASK)[0].offset
        return offset

    def cpu(self) -> float | None:
        return cpu_of(self._pid)


@contextmanager
def running_kafka(address: str | None, directory: Path) -> Iterator[Kafka]:
    """The Kafka at `address`, or a new one, which ends with the context."""
    if address:
        yield Kafka(address, None)
        return
    room = directory / "kafka"
    words = [sys.executable, "-c", "from harness.kafka import why_not; print(why_not())"]
    reason = subprocess.run(words, cwd=TESTS, capture_output=True, text=True, check=True).stdout.strip()
    if reason:
        raise NotHere(f"{reason}: name a running Kafka with --kafka HOST:PORT")
    with (directory / "kafka-talk").open("wb") as talk:
        keeper = start(
            [sys.executable, "-m", "harness.kafka", str(os.getpid()), str(room)],
            cwd=TESTS, stdin=subprocess.DEVNULL, stdout=talk, stderr=talk,
        )  # fmt: skip
    try:
        ready = room / "ready.json"
        deadline = time.monotonic() + START
        while not ready.exists():
            if keeper.poll() is not None or time.monotonic() > deadline:
                raise BenchError(f"Kafka did not start within {START:.0f} s")
            time.sleep(0.1)
        children = Path(f"/proc/{keeper.pid}/task/{keeper.pid}/children")
        pid = int(children.read_text().split()[0]) if children.exists() else None
        yield Kafka(json.loads(ready.read_text())["address"], pid)
    finally:
        keeper.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            keeper.wait(ASK)
        end_group(keeper)


def kafka(bench: Bench) -> list[Table]:
    """q-pipe, q-tail and q-bridge on Kafka, and kcat where it is there."""
    tools = bench.tools
    kcat = shutil.which("kcat")
    with ExitStack() as stack:
        server = stack.enter_context(running_kafka(bench.kafka, bench.directory))
        broker = bench.one_broker(stack)
        into = [into_topic(bench, server, "q-pipe", lambda topic: [tools.q_pipe, f"{server.url}/{topic}"])]
        out_of = [out_of_topic(bench, server, "q-tail, in a group", lambda topic: [
            tools.q_tail, f"{server.url}/{topic}/{{group}}", "--until-empty"], commits=True)]  # fmt: skip
        if kcat:
            produce = [kcat, "-P", "-b", server.address, "-X", "enable.idempotence=true", "-X", "acks=all"]
            into.append(into_topic(bench, server, "kcat, idempotent", lambda topic: [*produce, "-t", topic], False))
            consume = [kcat, "-C", "-b", server.address, "-e", "-q", "-o", "beginning"]
            out_of.append(out_of_topic(bench, server, "kcat -C", lambda topic: [*consume, "-t", topic], ours=False))
            group = [kcat, "-b", server.address, "-e", "-q", "-X", "auto.offset.reset=earliest", "-G", "{group}"]
            out_of.append(
                out_of_topic(bench, server, "kcat -G", lambda topic: [*group, topic], ours=False, commits=True)
            )
        notes = ["acks=all and idempotent, both"] if kcat else ["kcat is not here, so not compared"]
        return [
            Table(bench.title("Lines of a file into Kafka"), COMMAND, bench.take_turns(into), notes),
            Table(bench.title("A topic of Kafka into a file"), COMMAND, bench.take_turns(out_of),
                  ["kcat -C is in no group and commits nothing; a member of a group waits for its assignment first"]),
            Table(bench.title(f"Kafka into {broker.name}, and back"), COMMAND, bench.take_turns([
                from_kafka(bench, server, broker), to_kafka(bench, server, broker)])),
        ]  # fmt: skip


def into_topic(
    bench: Bench, server: Kafka, name: str, argv: Callable[[str], list[str]], ours: bool = True
) -> Contender:
    """A command that reads lines from stdin into a topic."""

    def once(count: int) -> Run:
        topic = next(bench.topics)
        server.create(topic)
        before = server.cpu()
        took = run(argv(topic), bench.events.file(count), bench.directory / "out", bench.directory / "talk")
        arrived = _settle(lambda: server.end(topic), count)
        used = spent(before, server.cpu())
        server.delete(topic)
        return Run(count, took, used, "" if arrived == count else f"{arrived:,} of {count:,} messages arrived")

    return Contender(name, bench.count, once, ours)


def out_of_topic(
    bench: Bench,
    server: Kafka,
    name: str,
    argv: Callable[[str], list[str]],
    *,
    ours: bool = True,
    commits: bool = False,
) -> Contender:
    """A command that writes a topic to stdout. `{group}` in `argv` becomes the name of the group of this run."""

    def once(count: int) -> Run:
        topic = next(bench.topics)
        server.create(topic)
        server.fill(topic, bench.events.file(count))
        before = server.cpu()
        words = [word.replace("{group}", GROUP) for word in argv(topic)]
        took = run(words, None, bench.directory / "out", bench.directory / "talk")
        used = spent(before, server.cpu())
        wrong = bench.events.difference(bench.directory / "out", count)
        if commits and not wrong and (committed := _settle(lambda: server.committed(topic), count)) != count:
            wrong = f"offset {committed:,} is committed, not {count:,}"
        server.delete(topic)
        return Run(count, took, used, wrong)

    return Contender(name, bench.count, once, ours)


def from_kafka(bench: Bench, server: Kafka, broker: Broker) -> Contender:
    def once(count: int) -> Run:
        topic = next(bench.topics)
        server.create(topic)
        server.fill(topic, bench.events.file(count))
        broker.create(topic, GROUP)
        words = [bench.tools.q_bridge, f"{server.url}/{topic}/{GROUP}", "--to", f"nsq://{broker.address}/{topic}"]
        before = server.cpu()
        talk = bench.directory / "talk"
        took = run_until(words, lambda: broker.counts(topic).published >= count, talk)
        used = spent(before, server.cpu())
        arrived = broker.settle(topic, lambda c: c.published >= count).published
        committed = _settle(lambda: server.committed(topic), count)
        broker.delete(topic)
        server.delete(topic)
        wrong = "" if arrived == count else f"{arrived:,} of {count:,} messages arrived"
        if not wrong and committed != count:
            wrong = f"offset {committed:,} is committed, not {count:,}"
        return Run(count, took, used, wrong)

    return Contender(f"q-bridge, Kafka to {broker.name}", bench.count, once, True)


def to_kafka(bench: Bench, server: Kafka, broker: Broker) -> Contender:
    def once(count: int) -> Run:
        topic = next(bench.topics)
        server.create(topic)
        broker.create(topic, GROUP)
        broker.fill(topic, bench.events.file(count))
        broker.settle(topic, lambda c: c.waiting >= count)
        words = [bench.tools.q_bridge, f"nsq://{broker.address}/{topic}/{GROUP}", "--to", f"{server.url}/{topic}"]
        before = server.cpu()
        took = run_until(words, lambda: not broker.counts(topic).waiting, bench.directory / "talk")
        used = spent(before, server.cpu())
        arrived = _settle(lambda: server.end(topic), count)
        broker.delete(topic)
        server.delete(topic)
        return Run(count, took, used, "" if arrived == count else f"{arrived:,} of {count:,} messages arrived")

    return Contender(f"q-bridge, {broker.name} to Kafka", bench.count, once, True)


def _settle(look: Callable[[], int], until: int) -> int:
    """What `look` returns, as soon as it is `until`, or as it is when it never becomes that."""
    deadline = time.monotonic() + SETTLE
    while (seen := look()) < until and time.monotonic() < deadline:
        time.sleep(LOOK)
    return seen
