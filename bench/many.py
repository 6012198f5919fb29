"""What many topics and many channels cost q-broker: the curve over their number, and the longest pause of its loop.

    $ python bench/many.py                     10,000 topics with a channel each, and a topic with 10,000 channels
    $ python bench/many.py --counts 100,1000

A broker with the durable store runs in a process of its own, in which every callback of the event loop is timed, in
CPU time of the loop's thread, so that other programs on the machine do not count. Steps: create, publish (a message a
topic), finish (each channel's copy), stats, metrics, empty (each), delete; then its end, and a start with what it had.
Of each step: seconds altogether (wall clock), µs of the loop's CPU time for each topic or channel, and the longest
callback in ms.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import BinaryIO

ROOT = Path(__file__).parents[1]
WINDOW = 500  # publishes that are sent before their answers are read
LINKS = 64


# ── the broker's process ────────────────────────────────────────────────────────────────────────


class Timed:
    """Times every callback of the loop. `take`: CPU seconds altogether, and of the longest one, since the last call."""

    def __init__(self) -> None:
        self.total = self.longest = 0.0
        run, clock = asyncio.Handle._run, time.thread_time

        def timed(handle: asyncio.Handle) -> None:
            begun = clock()
            run(handle)
            took = clock() - begun
            self.total += took
            self.longest = max(self.longest, took)

        asyncio.Handle._run = timed  # type: ignore[method-assign]
        asyncio.TimerHandle._run = timed  # type: ignore[method-assign]

    def take(self) -> tuple[float, float]:
        total, longest = self.total, self.longest
        self.total = self.longest = 0.0
        return total, longest


async def serve(directory: str) -> None:
    """Serve on free ports. A line on stdin is answered with the times since the last one; its end ends the broker."""
    from qtools.broker.daemon import Daemon
    from qtools.broker.options import Options

    gc.freeze()
    gc.set_threshold(50_000, 20, 100)  # as every program of qtools (cli/run.py)
    timed = Timed()
    begun = time.monotonic()
    daemon = Daemon(
        Options(tcp_address="127.0.0.1:0", http_address="127.0.0.1:0", https_address=None, data_path=directory)
    )
    await daemon.start()
    _say([daemon.tcp_address, daemon.http_address, time.monotonic() - begun])
    serving = asyncio.create_task(daemon.serve())
    while await asyncio.to_thread(sys.stdin.readline):
        _say(timed.take())
    begun = time.monotonic()
    daemon.stop()
    await serving
    _say([time.monotonic() - begun, *timed.take()])


def _say(values: object) -> None:
    print(json.dumps(values), flush=True)


# ── what is done with it ────────────────────────────────────────────────────────────────────────


class Broker:
    """The process, and a connection to it."""

    def __init__(self, directory: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--serve", directory],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={"PYTHONPATH": str(ROOT), "PATH": ""},
        )
        tcp, http, self.start_seconds = self._hear()
        self.tcp = (tcp.rpartition(":")[0], int(tcp.rpartition(":")[2]))
        self.http = (http.rpartition(":")[0], int(http.rpartition(":")[2]))
        self.times()

    def _hear(self) -> list[float]:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def times(self) -> list[float]:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._hear()

    def end(self) -> list[float]:
        assert self._process.stdin is not None
        self._process.stdin.close()
        told = self._hear()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        return told

    def post(self, paths: list[str]) -> None:
        """Requests without a body, over LINKS connections at once."""
        links = [socket.create_connection(self.http) for _ in range(min(LINKS, len(paths)))]
        answers = [link.makefile("rb") for link in links]
        for nth, link in enumerate(links):
            head = " HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n"
            link.sendall("".join(f"POST {path}{head}" for path in paths[nth :: len(links)]).encode())
        for nth in range(len(paths)):
            _read_ok(answers[nth % len(links)])
        for link in links:
            link.close()

    def get(self, path: str) -> bytes:
        connection = HTTPConnection(*self.http)
        connection.request("GET", path)
        answer = connection.getresponse().read()
        connection.close()
        return answer

    def publish(self, topics: list[str]) -> None:
        with socket.create_connection(self.tcp) as link:
            link.sendall(b"  V2")
            answers = link.makefile("rb")
            for start in range(0, len(topics), WINDOW):
                some = topics[start : start + WINDOW]
                link.sendall(b"".join(b"PUB %b\n\0\0\0\5hello" % topic.encode() for topic in some))
                for _ in some:
                    assert answers.read(10)[8:] == b"OK"

    def finish(self, places: list[tuple[str, str]], at_once: int = 500) -> None:
        """Take the one message of each channel, over connections of which some are open at once."""
        for start in range(0, len(places), at_once):
            links = [socket.create_connection(self.tcp) for _ in places[start : start + at_once]]
            for link, (topic, channel) in zip(links, places[start:], strict=False):
                link.sendall(f"  V2SUB {topic} {channel}\nRDY 1\n".encode())
            for link in links:
                have = b""
                while len(have) < 10 + 8 + 26 + 5:
                    have += link.recv(4096)
                (size,) = struct.unpack_from(">i", have, 10)
                ident = have[10 + 4 + 4 + 10 : 10 + 4 + 4 + 26]
                assert size == 4 + 26 + 5
                link.sendall(b"FIN %b\n" % ident)
            for link in links:
                link.sendall(b"CLS\n")
                assert link.recv(100).endswith(b"CLOSE_WAIT")
                link.close()


def _read_ok(answers: BinaryIO) -> None:
    assert answers.readline().split()[1] == b"200"
    length = 0
    while (line := answers.readline()) != b"\r\n":
        name, _, value = line.partition(b":")
        length = int(value) if name.lower() == b"content-length" else length
    answers.read(length)


Line = tuple[str, float, float, float]


def measure(count: int, wide: bool) -> Iterator[Line]:
    """(step, seconds, µs of CPU for each, longest callback in ms) of `count` topics, or one with `count` channels."""
    topics = ["t"] if wide else [f"t{nth}" for nth in range(count)]
    places = [(topics[0] if wide else topics[nth], f"c{nth}") for nth in range(count)]
    with tempfile.TemporaryDirectory() as directory:
        broker = Broker(directory)
        lines: list[Line] = []

        @contextmanager
        def step(name: str) -> Iterator[None]:
            broker.times()
            begun = time.monotonic()
            yield
            took = time.monotonic() - begun
            total, longest = broker.times()
            lines.append((name, took, total / count * 1e6, longest * 1e3))

        with step("create"):
            broker.post([f"/topic/create?topic={topic}" for topic in topics])
            broker.post([f"/channel/create?topic={topic}&channel={channel}" for topic, channel in places])
        with step("publish"):
            broker.publish(topics)
        with step("finish"):
            broker.finish(places)
            _wait(
                lambda: (
                    not any(
                        channel["depth"] or channel["in_flight_count"]
                        for topic in json.loads(broker.get("/stats?format=json&include_clients=false"))["topics"]
                        for channel in topic["channels"]
                    )
                )
            )
        with step("stats"):
            assert len(json.loads(broker.get("/stats?format=json"))["topics"]) == len(topics)
        with step("stats as text"):
            broker.get("/stats")
        with step("metrics"):
            broker.get("/metrics")
        with step("publish again"):
            broker.publish(topics)
        took, _, longest = broker.end()
        yield from lines
        lines.clear()
        yield "end", took, took / count * 1e6, longest * 1e3
        broker = Broker(directory)
        yield "start", broker.start_seconds, broker.start_seconds / count * 1e6, 0.0
        with step("empty"):
            broker.post([f"/channel/empty?topic={topic}&channel={channel}" for topic, channel in places])
        if wide:
            with step("delete a channel"):
                broker.post(
                    [f"/channel/delete?topic={topic}&channel={channel}" for topic, channel in places[: count // 10]]
                )
        with step("delete topics"):
            broker.post([f"/topic/delete?topic={topic}" for topic in topics])
        broker.end()
        yield from lines


def _wait(probe: Callable[[], bool]) -> None:
    until = time.monotonic() + 120
    while not probe():
        assert time.monotonic() < until
        time.sleep(0.1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", default="100,1000,3000,10000", metavar="N,N…")
    parser.add_argument("--serve", metavar="DIR", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        asyncio.run(serve(arguments.serve))
        return
    for wide, title in ((False, "topics with a channel each"), (True, "channels of a topic")):
        print(f"\n{title:<28}{'step':<18}{'seconds':>9}{'µs each':>10}{'longest ms':>12}")
        for count in map(int, arguments.counts.split(",")):
            for name, seconds, each, longest in measure(count, wide):
                print(f"{count:<28,}{name:<18}{seconds:>9.2f}{each:>10.0f}{longest:>12.1f}", flush=True)


if __name__ == "__main__":
    main()
