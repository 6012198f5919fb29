"""HTTP measured: of q-broker beside nsqd, and of q-pubsub-http beside the HTTP of the broker behind it, in one run.

    $ python bench/over_http.py                  everything
    $ python bench/over_http.py pub idle         some of it: broker, pub, mpub, sub, idle
    $ python bench/over_http.py --json out.json  and the numbers into a file

broker  wrk posts 200 bytes to /pub over 32 connections: nsqd, then q-broker as it keeps messages, in turns
pub     wrk posts 200 bytes to /pub over 32 connections: nsqd itself, then the gateway, in turns; ratios within a turn
mpub    1,000 lines of 200 bytes a request, one after the other; one endless chunked body
sub     one subscriber of a backlog, as raw lines and as length32; 50 subscribers of one topic, all deliveries together
idle    memory of the gateway with 1,000 silent subscribers: without a channel, and with one each

The broker is a real nsqd (--nsqd, QTOOLS_NSQD_BIN, PATH), else q-broker. wrk has to be on PATH for `broker` and
`pub`. Clients run on the same machine as broker and gateway, and take their share of it.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import re
import resource
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from measure.brokers import MEMORY, SYNCS, Broker, running
from measure.processes import BenchError, end_all, end_group, interrupt, start

LINE = b"x" * 199 + b"\n"
BLOCK = LINE * 1000
WRK_BODY = 'wrk.method = "POST"\nwrk.body = string.rep("x", 200)\n'


@dataclass(slots=True)
class Row:
    """One figure: all its runs, and what it is held against."""

    what: str
    unit: str
    runs: list[float] = field(default_factory=list)
    beside: str = ""

    def line(self) -> str:
        spread = f"{min(self.runs):,.0f} to {max(self.runs):,.0f}"
        return f"{self.what:<52} {median(self.runs):>12,.0f} {self.unit:<8} ({spread})  {self.beside}"


class Gateway:
    """A running gateway."""

    def __init__(self, broker: Broker, room: Path, *flags: str) -> None:
        program = str(Path(sys.executable).with_name("q-pubsub-http"))
        self.log = room / f"gateway-{time.monotonic_ns()}"
        argv = [program, "--http-address=127.0.0.1:0", f"--nsqd-tcp-address={broker.address}", *flags]
        with self.log.open("wb") as talk:
            self.process = start(argv, stdin=subprocess.DEVNULL, stdout=talk, stderr=talk)
        deadline = time.monotonic() + 20
        while not (found := re.search(r"serving http://127\.0\.0\.1:(\d+)", self.log.read_text())):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise BenchError(f"the gateway does not start: {self.log.read_text().strip()}")
            time.sleep(0.02)
        self.port = int(found[1])

    def memory(self) -> int:
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * resource.getpagesize()

    def close(self) -> None:
        end_group(self.process)


def wrk(port: int, topic: str, room: Path, seconds: int) -> float:
    script = room / "pub.lua"
    script.write_text(WRK_BODY)
    program = shutil.which("wrk")
    if program is None:
        raise BenchError("no wrk on PATH: on Debian, apt-get install wrk")
    url = f"http://127.0.0.1:{port}/pub?topic={topic}"
    told = subprocess.run(
        [program, "-t1", "-c32", f"-d{seconds}", "-s", str(script), url], capture_output=True, text=True, check=True
    ).stdout
    if "Non-2xx" in told or "Socket errors" in told:
        raise BenchError(f"wrk on {url}: {told}")
    found = re.search(r"Requests/sec:\s+([\d.]+)", told)
    if found is None:
        raise BenchError(f"wrk says no rate: {told}")
    return float(found[1])


def broker(bench: Bench) -> list[Row]:
    brokers = [bench.broker]
    ours = str(Path(sys.executable).with_name("q-broker"))
    for name in [*SYNCS, MEMORY]:
        if name != bench.broker.name:
            place = bench.room / re.sub(r"[^a-z]+", "-", name)
            brokers.append(bench.stack.enter_context(running(name, ours, place, 20 * bench.count)))
    rows = [Row(f"/pub, 32 connections: {one.name}", "req/s") for one in brokers]
    for one in brokers:
        wrk(one.http_port, bench.topic("warm"), bench.room, 1)
    for _ in range(bench.rounds):
        topic = bench.topic("broker")
        for row, one in zip(rows, brokers, strict=True):
            row.runs.append(wrk(one.http_port, topic, bench.room, 3))
    return _beside(rows, bench.broker.name)


def pub(bench: Bench) -> list[Row]:
    rows = [Row(f"/pub, 32 connections: {bench.broker.name} itself", "req/s"), Row("/pub: the gateway", "req/s")]
    if (os.cpu_count() or 1) > 1:
        rows.append(Row("/pub: the gateway, --workers 2", "req/s"))
    ports = [bench.broker.http_port, bench.gateway().port]
    if len(rows) > 2:
        ports.append(bench.gateway("--workers=2").port)
    for row, port in zip(rows, ports, strict=True):
        wrk(port, bench.topic(row.what[:5]), bench.room, 1)  # to warm up
    for _ in range(bench.rounds):
        for row, port in zip(rows, ports, strict=True):
            row.runs.append(wrk(port, bench.topic("pub"), bench.room, 3))
    return _beside(rows, f"{bench.broker.name}'s own")


def _beside(rows: list[Row], first: str) -> list[Row]:
    """All but the first held against that one, within each round."""
    for row in rows[1:]:
        ratios = [one / other for one, other in zip(row.runs, rows[0].runs, strict=True)]
        row.beside = f"{median(ratios):.2f} of {first} ({min(ratios):.2f} to {max(ratios):.2f})"
    return rows


def mpub(bench: Bench) -> list[Row]:
    whole, endless = Row("/mpub, 1,000 lines a request", "msg/s"), Row("/mpub, one endless body", "msg/s")
    own = Row(f"/mpub, 1,000 lines a request: {bench.broker.name} itself", "msg/s")
    port = bench.gateway().port
    for _ in range(bench.rounds):
        for row, where in ((own, bench.broker.http_port), (whole, port)):
            client = http.client.HTTPConnection("127.0.0.1", where)
            topic, begun = bench.topic("mpub"), time.monotonic()
            for _ in range(bench.count // 1000):
                client.request("POST", f"/mpub?topic={topic}", BLOCK)
                answer = client.getresponse()
                answer.read()
                if answer.status != 200:
                    raise BenchError(f"/mpub is answered {answer.status}")
            row.runs.append(bench.count / (time.monotonic() - begun))
            client.close()
        client = http.client.HTTPConnection("127.0.0.1", port)
        begun = time.monotonic()
        body = (BLOCK for _ in range(bench.count // 1000))
        client.request(
            "POST", f"/mpub?topic={bench.topic('mpub')}", body, {"transfer-encoding": "chunked"}, encode_chunked=True
        )
        if client.getresponse().getheader("q-published") != str(bench.count):
            raise BenchError("an endless body did not arrive whole")
        endless.runs.append(bench.count / (time.monotonic() - begun))
        client.close()
    return [own, whole, endless]


def subscribed(port: int, target: str) -> socket.socket:
    """A subscriber whose answer has begun."""
    client = socket.create_connection(("127.0.0.1", port))
    client.sendall(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    head = b""
    while b"\r\n\r\n" not in head:
        head += client.recv(1)
    if not head.startswith(b"HTTP/1.1 200 "):
        raise BenchError(f"{target} is answered {head[:60]!r}")
    return client


def sub(bench: Bench) -> list[Row]:
    port = bench.gateway().port
    rows = []
    for form, size in (("raw", 200), ("length32", 203)):
        row = Row(f"/sub, one subscriber, {form}", "msg/s")
        for _ in range(bench.rounds):
            topic = bench.backlog()
            begun = time.monotonic()
            client = subscribed(port, f"/sub?topic={topic}&channel=bench&format={form}&count={bench.count}")
            have = 0
            while chunk := client.recv(1 << 20):
                have += len(chunk)
                if chunk.endswith(b"0\r\n\r\n"):
                    break
            row.runs.append(bench.count / (time.monotonic() - begun))
            if have < bench.count * size:
                raise BenchError(f"{have:,} bytes came of {bench.count:,} messages")
            client.close()
        rows.append(row)
    many = Row("/sub, 50 subscribers of one topic, raw, together", "msg/s")
    for _ in range(bench.rounds):
        many.runs.append(fan_out(bench, port, 50, bench.count // 10))
    return [*rows, many]


def fan_out(bench: Bench, port: int, readers: int, count: int) -> float:
    """Deliveries/s of `count` messages to each of `readers`; counted until the last has come to everybody."""
    topic = bench.topic("fan")
    bench.broker.create(topic, "bench")
    clients = [subscribed(port, f"/sub?topic={topic}&format=raw&count={count}") for _ in range(readers)]
    poll = select.poll()
    left = {client.fileno(): client for client in clients}
    have = dict.fromkeys(left, 0)
    for number in left:
        poll.register(number, select.POLLIN)

    def feed() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", bench.broker.http_port)
        for _ in range(count // 1000):
            connection.request("POST", f"/mpub?topic={topic}", BLOCK)
            connection.getresponse().read()

    thread = threading.Thread(target=feed)
    begun = time.monotonic()
    thread.start()
    while left:
        ready = poll.poll(10_000)
        if not ready:
            raise BenchError(f"{len(left)} of {readers} subscribers do not get all")
        for number, _ in ready:
            chunk = left[number].recv(1 << 18)
            have[number] += len(chunk)
            if chunk.endswith(b"0\r\n\r\n"):
                poll.unregister(number)
                left.pop(number)
    took = time.monotonic() - begun
    thread.join()
    for client in clients:
        client.close()
    if min(have.values()) < count * 200:
        raise BenchError("a subscriber missed messages")
    return readers * count / took


def idle(bench: Bench) -> list[Row]:
    """1,000 silent subscribers: all without a channel, then all with one of their own."""
    rows = [Row("memory of each of 1,000 idle subscribers, no channel", "bytes"), Row("… with a channel each", "bytes")]
    for row, channel in zip(rows, ("", "&channel=idle{}"), strict=True):
        gateway = bench.gateway()
        topic = bench.topic("idle")
        bench.broker.create(topic, "bench")
        subscribed(gateway.port, f"/sub?topic={topic}").close()
        time.sleep(0.5)
        before = gateway.memory()
        clients = [subscribed(gateway.port, f"/sub?topic={topic}{channel.format(n)}") for n in range(1000)]
        time.sleep(1.0)
        row.runs.append((gateway.memory() - before) / len(clients))
        for client in clients:
            client.close()
    return rows


SECTIONS: dict[str, Callable[[Bench], list[Row]]] = {
    "broker": broker,
    "pub": pub,
    "mpub": mpub,
    "sub": sub,
    "idle": idle,
}


@dataclass(slots=True)
class Bench:
    """What all sections share."""

    broker: Broker
    room: Path
    count: int
    rounds: int
    stack: contextlib.ExitStack
    topics: Iterator[int] = field(default_factory=lambda: iter(range(1 << 30)))

    def topic(self, name: str) -> str:
        return re.sub(r"[^\w.-]", "", f"{name}-{next(self.topics)}")

    def gateway(self, *flags: str) -> Gateway:
        made = Gateway(self.broker, self.room, *flags)
        self.stack.callback(made.close)
        return made

    def backlog(self) -> str:
        """A topic whose channel `bench` holds `count` messages."""
        topic = self.topic("sub")
        self.broker.create(topic, "bench")
        connection = http.client.HTTPConnection("127.0.0.1", self.broker.http_port)
        for _ in range(self.count // 1000):
            connection.request("POST", f"/mpub?topic={topic}", BLOCK)
            connection.getresponse().read()
        connection.close()
        self.broker.settle(topic, lambda counts: counts.waiting >= self.count)
        return topic


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure HTTP: the brokers' own, and that of q-pubsub-http.")
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"{', '.join(SECTIONS)}; default: all of them")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="default: %(default)s")
    parser.add_argument("--count", type=int, default=400_000, metavar="N", help="messages; default: %(default)s")
    parser.add_argument("--nsqd", metavar="FILE", help="a real nsqd; default: QTOOLS_NSQD_BIN, or the one on PATH")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers to FILE")
    given = parser.parse_args()
    if unknown := [section for section in given.sections if section not in SECTIONS]:
        parser.error(f"no section {unknown[0]!r}: there are {', '.join(SECTIONS)}")
    sections = given.sections or list(SECTIONS)
    if not given.sections and shutil.which("wrk") is None:
        sections = [section for section in sections if section not in ("broker", "pub")]
        print("no wrk on PATH, so /pub is not measured (Debian: apt-get install wrk)")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    nsqd = given.nsqd or os.environ.get("QTOOLS_NSQD_BIN") or shutil.which("nsqd")
    name, program = ("nsqd", nsqd) if nsqd else (MEMORY, str(Path(sys.executable).with_name("q-broker")))
    rows: list[Row] = []
    try:
        with tempfile.TemporaryDirectory(prefix="qbench.") as directory:
            room = Path(directory)
            for section in sections:
                with contextlib.ExitStack() as stack:
                    broker = stack.enter_context(running(name, program, room / section, 20 * given.count))
                    for row in SECTIONS[section](Bench(broker, room, given.count, given.rounds, stack)):
                        print(row.line(), flush=True)
                        rows.append(row)
    except BenchError as error:
        print(f"over_http.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        end_all()
    if given.json:
        told = [{"what": row.what, "unit": row.unit, "runs": row.runs, "beside": row.beside} for row in rows]
        given.json.write_text(json.dumps(told, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
