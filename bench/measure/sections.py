"""What is compared. A section is a function from a Bench to its tables; one more command is one more function."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from measure.archiving import archivers
from measure.bridging import bridge
from measure.brokers import MEMORY, SYNCS, Broker, running, spent
from measure.events import Events
from measure.jetstream import jetstream
from measure.kafka import kafka
from measure.processes import run
from measure.rabbitmq import rabbitmq
from measure.redis import redis
from measure.rounds import Contender, Run, Series, take_turns
from measure.table import ARCHIVE, BROKER, COMMAND, START, Table

CHANNEL = "bench"
HELP_RUNS = 4  # for each round: a start takes a tenth of a second, so many of them cost little

Argv = Callable[[str, int], list[str]]  # topic, how many messages → the command


@dataclass(slots=True)
class Tools:
    """Where the programs are; None for NSQ's own that are not there."""

    q_pipe: str
    q_tail: str
    q_bridge: str
    q_to_file: str
    q_broker: str
    nsqd: str | None
    to_nsq: str | None
    nsq_tail: str | None
    nsq_to_nsq: str | None
    nsq_to_file: str | None


@dataclass(slots=True)
class Bench:
    """What all sections share."""

    tools: Tools
    directory: Path
    events: Events
    count: int
    slow_count: int
    size: int
    rounds: int
    say: Callable[[str], None]
    kafka: str | None = None  # HOST:PORT of a running Kafka; without it one is started
    rabbitmq: str | None = None  # the same for RabbitMQ, with the user guest
    topics: Iterator[str] = field(default_factory=lambda: (f"bench-{n}" for n in itertools.count()))

    def start_broker(self, stack: ExitStack, name: str) -> Broker:
        """A running nsqd or q-broker that ends with `stack`."""
        program = self.tools.nsqd if name == "nsqd" else self.tools.q_broker
        assert program is not None
        return stack.enter_context(running(name, program, self.directory / next(self.topics), 2 * self.count))

    def one_broker(self, stack: ExitStack) -> Broker:
        return self.start_broker(stack, "nsqd" if self.tools.nsqd else "q-broker")

    def take_turns(self, contenders: list[Contender]) -> list[Series]:
        return take_turns(contenders, self.rounds, self.say)

    def title(self, what: str) -> str:
        return f"{what} - messages of {self.size} bytes, medians of {self.rounds} rounds"


def pipe(bench: Bench) -> list[Table]:
    """q-pipe, and to_nsq where it is there: a file of lines into a topic."""
    notes = []
    with ExitStack() as stack:
        broker = bench.one_broker(stack)
        contenders = [publisher(bench, broker, "q-pipe", q_pipe(bench, broker))]
        if to_nsq := bench.tools.to_nsq:

            def argv(topic: str, _count: int) -> list[str]:
                return [to_nsq, f"-topic={topic}", f"-nsqd-tcp-address={broker.address}"]

            contenders.append(publisher(bench, broker, "to_nsq", argv, bench.slow_count, ours=False))
            notes.append(f"to_nsq waits for every answer, so {bench.slow_count:,} messages tell its rate as well")
        return [Table(bench.title(f"Lines of a file into {broker.name}"), COMMAND, bench.take_turns(contenders), notes)]


def tail(bench: Bench) -> list[Table]:
    """q-tail, and nsq_tail where it is there: all that is queued in a channel into a file."""
    notes = []
    with ExitStack() as stack:
        broker = bench.one_broker(stack)
        contenders = [consumer(bench, broker, "q-tail", q_tail(bench, broker))]
        if nsq_tail := bench.tools.nsq_tail:

            def argv(topic: str, count: int) -> list[str]:
                where = [f"-topic={topic}", f"-channel={CHANNEL}", f"-nsqd-tcp-address={broker.address}"]
                return [nsq_tail, *where, "-n", str(count)]

            def wider(topic: str, count: int) -> list[str]:
                return [*argv(topic, count), "-max-in-flight=2500"]

            contenders.append(consumer(bench, broker, "nsq_tail", argv, ours=False))
            contenders.append(consumer(bench, broker, "nsq_tail, 2500 in flight", wider, ours=False))
            notes.append("nsq_tail -n ends without acknowledging what it printed last; q-tail's time holds that too")
        return [Table(bench.title(f"A backlog out of {broker.name}"), COMMAND, bench.take_turns(contenders), notes)]


def brokers(bench: Bench) -> list[Table]:
    """q-broker as it keeps messages, and nsqd where it is there, with q-pipe and q-tail as clients."""
    notes = [
        "broker alone: what it could pass with one core of its own, by the CPU time it used",
        "nsqd keeps these messages in memory: its OK does not wait for a disk",
    ]
    with ExitStack() as stack:
        names = [*SYNCS, MEMORY, *(["nsqd"] if bench.tools.nsqd else [])]
        all_of_them = [bench.start_broker(stack, name) for name in names]
        into = [publisher(bench, b, b.name, q_pipe(bench, b), ours=b.name != "nsqd") for b in all_of_them]
        out_of = [consumer(bench, b, b.name, q_tail(bench, b), ours=b.name != "nsqd") for b in all_of_them]
        return [
            Table(bench.title("Brokers: q-pipe into"), BROKER, bench.take_turns(into), notes),
            Table(bench.title("Brokers: q-tail out of"), BROKER, bench.take_turns(out_of), notes),
        ]


def archive(bench: Bench) -> list[Table]:
    """q-to-file, and nsq_to_file where it is there: all that is queued in a channel into fsynced files."""
    notes = ["both acknowledge what they have fsynced; the clock stops when the broker has nothing left unacknowledged"]
    tables = []
    with ExitStack() as stack:
        broker = bench.one_broker(stack)
        for compression in ("none", "gzip", "zstd"):
            title = bench.title(f"A backlog out of {broker.name} into files, {compression}")
            tables.append(Table(title, ARCHIVE, bench.take_turns(archivers(bench, broker, compression)), notes))
    return tables


def start(bench: Bench) -> list[Table]:
    """`--help` of every command: what a start costs before any work is done."""
    talk, out = bench.directory / "talk", bench.directory / "out"

    def help_of(program: str, _count: int) -> Run:
        return Run(1, run([program, "--help"], None, out, talk), None, "")

    tools = bench.tools
    programs = [tools.q_pipe, tools.q_tail, tools.q_bridge, tools.q_to_file, tools.q_broker]
    contenders = [Contender(Path(p).name + " --help", 1, partial(help_of, p), True) for p in programs]
    series = take_turns(contenders, bench.rounds * HELP_RUNS, bench.say)
    return [Table(f"Starts - medians of {bench.rounds * HELP_RUNS} runs", START, series)]


SECTIONS: dict[str, Callable[[Bench], list[Table]]] = {
    "pipe": pipe, "tail": tail, "bridge": bridge, "archive": archive, "broker": brokers, "kafka": kafka,
    "nats": jetstream, "rabbitmq": rabbitmq, "redis": redis, "start": start,
}  # fmt: skip


def q_pipe(bench: Bench, broker: Broker) -> Argv:
    return lambda topic, _count: [bench.tools.q_pipe, topic, f"--nsqd-tcp-address={broker.address}"]


def q_tail(bench: Bench, broker: Broker) -> Argv:
    return lambda topic, count: [
        bench.tools.q_tail, f"{topic}/{CHANNEL}", "-n", str(count), f"--nsqd-tcp-address={broker.address}",
    ]  # fmt: skip


def publisher(
    bench: Bench, broker: Broker, name: str, argv: Argv, count: int | None = None, *, ours: bool = True
) -> Contender:
    """A command that reads lines from stdin into a topic: right when the broker then has just these."""

    def once(count: int) -> Run:
        topic = next(bench.topics)
        broker.create(topic)
        before = broker.cpu()
        took = run(argv(topic, count), bench.events.file(count), bench.directory / "out", bench.directory / "talk")
        counts = broker.settle(topic, lambda c: c.waiting >= count)
        used = spent(before, broker.cpu())
        broker.delete(topic)
        wrong = ""
        if counts.waiting != count or counts.published != count:
            wrong = f"{counts.published:,} of {count:,} messages arrived"
        elif counts.bytes != bench.events.bytes_of(count):
            wrong = f"{counts.bytes:,} of {bench.events.bytes_of(count):,} bytes arrived"
        return Run(count, took, used, wrong)

    return Contender(name, count or bench.count, once, ours)


def consumer(bench: Bench, broker: Broker, name: str, argv: Argv, *, ours: bool = True) -> Contender:
    """A command that writes a channel to stdout: right when just the queued messages are there, and, if it is ours,
    when all of them were acknowledged.
    """

    def once(count: int) -> Run:
        topic = next(bench.topics)
        broker.create(topic, CHANNEL)
        broker.fill(topic, bench.events.file(count))
        queued = broker.settle(topic, lambda c: c.waiting >= count).waiting
        before = broker.cpu()
        took = run(argv(topic, count), None, bench.directory / "out", bench.directory / "talk")
        left = broker.settle(topic, lambda c: not c.waiting).waiting if ours else 0
        used = spent(before, broker.cpu())
        broker.delete(topic)
        wrong = bench.events.difference(bench.directory / "out", count)
        if queued != count:
            wrong = f"{queued:,} of {count:,} messages were queued"
        elif not wrong and left:
            wrong = f"{left:,} of {count:,} messages were not acknowledged"
        return Run(count, took, used, wrong)

    return Contender(name, bench.count, once, ours)
