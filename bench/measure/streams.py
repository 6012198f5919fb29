"""q-pipe, q-tail and q-bridge on a server whose streams have groups: JetStream, Redis. In: a Bench, a server. Out:
runs.

Right is a run after which the stream holds all messages, or after which the group has none left and the same lines came
out.
"""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Protocol

from measure.brokers import Broker, spent
from measure.processes import BenchError, end_group, run, run_until, start
from measure.rounds import Contender, Run

if TYPE_CHECKING:
    from measure.sections import Bench

START = 20.0  # s until a server must listen
SETTLE = 10.0  # s until nothing may be left
CHANNEL = "bench"


class StreamServer(Protocol):
    """A running server, seen by another client than ours. name: for tables."""

    name: str
    url: str

    def create(self, topic: str) -> None:
        """A stream, and the group CHANNEL."""

    def delete(self, topic: str) -> None: ...

    def stored(self, topic: str) -> int:
        """How many messages the stream has."""

    def left(self, topic: str) -> int:
        """How many messages the group has not acknowledged."""

    def cpu(self) -> float | None: ...


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@contextmanager
def listening(words: list[str], port: int, name: str) -> Iterator[int]:
    """The server that `words` start, once it listens on `port`; yields its process id, and ends it."""
    server = start(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + START
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            if server.poll() is not None or time.monotonic() > deadline:
                raise BenchError(f"{name} did not start")
            time.sleep(0.02)
        yield server.pid
    finally:
        end_group(server)


Words = Callable[[str, int], list[str]]  # topic, how many messages → the command


def into_stream(
    bench: Bench, server: StreamServer, name: str, argv: Words, ours: bool = True, count: int = 0
) -> Contender:
    """A command that reads lines from stdin into a stream."""

    def once(count: int) -> Run:
        topic = next(bench.topics)
        server.create(topic)
        before = server.cpu()
        took = run(argv(topic, count), bench.events.file(count), bench.directory / "out", bench.directory / "talk")
        used = spent(before, server.cpu())
        return arrived(server, topic, count, took, used)

    return Contender(name, count or bench.count, once, ours)


def arrived(server: StreamServer, topic: str, count: int, took: Any, used: float | None) -> Run:
    """The result of a run into a stream, which is right if the stream has all messages."""
    stored = server.stored(topic)
    server.delete(topic)
    return Run(count, took, used, "" if stored == count else f"{stored:,} of {count:,} messages arrived")


def filled(bench: Bench, server: StreamServer, count: int) -> str:
    """A new topic with `count` messages, by q-pipe: nats-py would take most of the time of the comparison."""
    topic = next(bench.topics)
    server.create(topic)
    words = [bench.tools.q_pipe, f"{server.url}/{topic}"]
    run(words, bench.events.file(count), bench.directory / "out", bench.directory / "talk")
    return topic


def out_of_stream(
    bench: Bench, server: StreamServer, name: str, argv: Words, ours: bool = True, count: int = 0
) -> Contender:
    """A command that writes what a consumer has to stdout."""

    def once(count: int) -> Run:
        topic = filled(bench, server, count)
        before = server.cpu()
        took = run(argv(topic, count), None, bench.directory / "out", bench.directory / "talk")
        used = spent(before, server.cpu())
        wrong = bench.events.difference(bench.directory / "out", count)
        if not wrong and (left := _settle(lambda: server.left(topic), 0)):
            wrong = f"{left:,} messages are not acknowledged"
        server.delete(topic)
        return Run(count, took, used, wrong)

    return Contender(name, count or bench.count, once, ours)


def from_stream(bench: Bench, server: StreamServer, broker: Broker) -> Contender:
    def once(count: int) -> Run:
        topic = filled(bench, server, count)
        broker.create(topic, CHANNEL)
        words = [bench.tools.q_bridge, f"{server.url}/{topic}/{CHANNEL}", "--to", f"nsq://{broker.address}/{topic}"]
        before = server.cpu()
        took = run_until(words, lambda: broker.counts(topic).published >= count, bench.directory / "talk")
        used = spent(before, server.cpu())
        published = broker.settle(topic, lambda c: c.published >= count).published
        left = _settle(lambda: server.left(topic), 0)
        broker.delete(topic)
        server.delete(topic)
        wrong = "" if published == count else f"{published:,} of {count:,} messages arrived"
        return Run(count, took, used, wrong or (f"{left:,} messages are not acknowledged" if left else ""))

    return Contender(f"q-bridge, {server.name} to {broker.name}", bench.count, once, True)


def to_stream(bench: Bench, server: StreamServer, broker: Broker) -> Contender:
    def once(count: int) -> Run:
        topic = next(bench.topics)
        server.create(topic)
        broker.create(topic, CHANNEL)
        broker.fill(topic, bench.events.file(count))
        broker.settle(topic, lambda c: c.waiting >= count)
        words = [bench.tools.q_bridge, f"nsq://{broker.address}/{topic}/{CHANNEL}", "--to", f"{server.url}/{topic}"]
        before = server.cpu()
        took = run_until(words, lambda: not broker.counts(topic).waiting, bench.directory / "talk")
        used = spent(before, server.cpu())
        broker.delete(topic)
        return arrived(server, topic, count, took, used)

    return Contender(f"q-bridge, {broker.name} to {server.name}", bench.count, once, True)


def _settle(look: Callable[[], int], until: int) -> int:
    """What `look` returns, as soon as it is `until`, or as it is when it never becomes that."""
    deadline = time.monotonic() + SETTLE
    while (seen := look()) != until and time.monotonic() < deadline:
        time.sleep(0.05)
    return seen
