"""q-broker and nsqd as processes, handled alike. In: flags. Out: where they listen, what is in their queues.

A broker comes back on the ports and with the data directory it had.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.ports import free_pair
from harness.reader import Delivered, Reader
from harness.shell import MARK, SESSION, base_environment, end, words_for
from harness.waiting import DEADLINE, wait_until

Q_BROKER, NSQD = "q-broker", "nsqd"


def nsqd_binary() -> str | None:
    """A real nsqd, where there is one."""
    return os.environ.get("QTOOLS_NSQD_BIN") or shutil.which("nsqd")


def nsqlookupd_binary() -> str | None:
    """A real nsqlookupd: named, on PATH, or beside nsqd."""
    beside = Path(nsqd_binary() or "").with_name("nsqlookupd") if nsqd_binary() else None
    found = os.environ.get("QTOOLS_NSQLOOKUPD_BIN") or shutil.which("nsqlookupd")
    return found or (str(beside) if beside is not None and beside.exists() else None)


@dataclass(slots=True)
class Depth:
    """What a channel holds, or, without one, the topic itself."""

    depth: int = 0
    in_flight: int = 0
    deferred: int = 0
    requeued: int = 0
    timed_out: int = 0
    clients: int = 0

    @property
    def held(self) -> int:
        """Everything that is not finished."""
        return self.depth + self.in_flight + self.deferred


class Server:
    """A daemon with a TCP and an HTTP port next to each other."""

    def __init__(self, room: Path) -> None:
        self.room = room
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None
        room.mkdir(parents=True, exist_ok=True)

    def command(self) -> list[str]:
        raise NotImplementedError

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def http_port(self) -> int:
        return self.port + 1

    @property
    def http(self) -> str:
        return f"127.0.0.1:{self.http_port}"

    @property
    def log(self) -> str:
        return (self.room / "log").read_text(errors="replace")

    def start(self) -> None:
        """Start it, on the ports it had; returns when it answers."""
        for _ in range(5):
            fresh = not self.port
            self.port = self.port or free_pair()
            with (self.room / "log").open("ab") as log:
                self.process = subprocess.Popen(
                    self.command(),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=self.room,
                    env=base_environment() | {"HOME": str(self.room), MARK: SESSION},
                )
            if wait_until(lambda: self._ended() or self._answers(), what=lambda: self.log) == "answers":
                return
            assert fresh, self.log
            self.port = 0  # somebody else was faster
        raise AssertionError(self.log)

    def _ended(self) -> str:
        assert self.process is not None
        return "" if self.process.poll() is None else "ended"

    def _answers(self) -> str:
        try:
            return "answers" if self.ask("GET", "/ping")[0] in (200, 403, 500) else ""
        except OSError:
            return ""

    def stop(self) -> None:
        """SIGTERM, and wait: what it keeps on disk is there when it starts again."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            end(self.process)
            self.process.wait(DEADLINE)

    def _signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)

    def _end(self, number: signal.Signals) -> None:
        assert self.process is not None
        self._signal(number)
        self.process.wait(DEADLINE)

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """Status and body of an HTTP request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=20)
        try:
            connection.request(method, path, body)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except http.client.HTTPException as error:
            raise ConnectionError(str(error)) from error
        finally:
            connection.close()

    def tell(self, path: str, body: bytes = b"") -> None:
        status, answer = self.ask("POST", path, body)
        assert status == 200, f"{path}: {status} {answer!r}"


class Broker(Server):
    """q-broker, or nsqd."""

    def __init__(self, kind: str, room: Path, flags: Sequence[str] = ()) -> None:
        super().__init__(room)
        self.kind = kind
        self.extra = list(flags)
        self.https_port = 0

    def command(self) -> list[str]:
        self.https_port = self.https_port or free_pair()
        flags = [
            f"--tcp-address={self.address}",
            f"--http-address={self.http}",
            "--broadcast-address=127.0.0.1",
            *([] if "--memory" in self.extra else [f"--data-path={self.room}"]),
            f"--https-address=127.0.0.1:{self.https_port}",
            *self.extra,
        ]
        if self.kind == Q_BROKER:
            return [*words_for("q-broker"), *flags]
        binary = nsqd_binary()
        assert binary is not None
        return [binary, *flags, "--log-level=info"]

    @property
    def flags(self) -> list[str]:
        """What a command needs to find it."""
        return ["--nsqd-tcp-address", self.address]

    # ── asked ──

    def stats(self, topic: str = "", clients: bool = False) -> list[dict[str, Any]]:
        """Topics as /stats tells them."""
        query = f"/stats?format=json&include_clients={str(clients).lower()}" + (f"&topic={topic}" if topic else "")
        status, answer = self.ask("GET", query)
        assert status == 200, answer
        topics: list[dict[str, Any]] = json.loads(answer)["topics"] or []
        return topics

    def topic(self, name: str) -> dict[str, Any] | None:
        return next((topic for topic in self.stats(name) if topic["topic_name"] == name), None)

    def published(self, topic: str) -> int:
        """How many messages the topic was ever given."""
        told = self.topic(topic)
        return int(told["message_count"]) if told else 0

    def channels(self, topic: str) -> list[str]:
        told = self.topic(topic)
        return [channel["channel_name"] for channel in told["channels"]] if told else []

    def depth(self, topic: str, channel: str = "") -> Depth:
        """What waits in a channel, and in its topic on the way there; or in the topic alone."""
        told = self.topic(topic)
        if told is None:
            return Depth()
        found = Depth(depth=told["depth"])
        for each in told["channels"]:
            if each["channel_name"] == channel:
                return Depth(
                    depth=told["depth"] + each["depth"],
                    in_flight=each["in_flight_count"],
                    deferred=each["deferred_count"],
                    requeued=each["requeue_count"],
                    timed_out=each["timeout_count"],
                    clients=each["client_count"],
                )
        return found

    def wait_held(self, topic: str, channel: str, count: int, deadline: float = DEADLINE) -> Depth:
        """Until exactly `count` messages are held, none of them in flight."""

        def settled() -> Depth | None:
            found = self.depth(topic, channel)
            return found if found.held == count and not found.in_flight else None

        return wait_until(settled, deadline, lambda: f"{count} in {topic}/{channel}: {self.depth(topic, channel)}")

    def wait_finished(self, topic: str, channel: str, count: int) -> None:
        """Until `count` messages have come to the channel, and all are finished: nsqd shows a message that is on its
        way from the topic to a channel in neither."""

        def done() -> bool:
            told = self.topic(topic)
            came = [one["message_count"] for one in told["channels"] if one["channel_name"] == channel] if told else []
            return came == [count] and self.depth(topic, channel).held == 0

        wait_until(done, what=lambda: f"{count} of {topic}/{channel}: {self.stats(topic)}")

    def wait_clients(self, topic: str, channel: str, count: int = 1) -> None:
        """Until `count` clients are on the channel, and know it: they ask for messages, or have had some."""

        def there() -> bool:
            for told in self.stats(topic, clients=True):
                for each in told["channels"]:
                    if each["channel_name"] == channel:
                        clients = each["clients"] or ()
                        know = [one for one in clients if one["ready_count"] or one["message_count"]]
                        return len(know) == len(clients) == count
            return count == 0

        wait_until(there, what=lambda: f"{count} clients on {topic}/{channel}: {self.stats(topic)}")

    # ── changed ──

    def create(self, topic: str, *channels: str) -> None:
        self.tell(f"/topic/create?topic={topic}")
        for channel in channels:
            self.tell(f"/channel/create?topic={topic}&channel={channel.replace('#', '%23')}")

    def fill(self, topic: str, bodies: Sequence[bytes]) -> None:
        """Publish over HTTP, by nothing that is under test here."""
        chunk: list[bytes] = []
        size = 0
        for body in bodies:
            if size + len(body) + 4 > 4_000_000:
                self._mpub(topic, chunk)
                chunk, size = [], 0
            chunk.append(len(body).to_bytes(4, "big") + body)
            size += len(body) + 4
        self._mpub(topic, chunk)

    def _mpub(self, topic: str, framed: list[bytes]) -> None:
        if framed:
            self.tell(f"/mpub?topic={topic}&binary=true", len(framed).to_bytes(4, "big") + b"".join(framed))

    def reader(self, topic: str, channel: str, *, ready: int = 2500, **identify: object) -> Reader:
        return Reader(self.port, topic, channel, ready=ready, **identify)

    def drain(self, topic: str, channel: str = "drain") -> list[Delivered]:
        """Everything in a channel, finished; in the order it came."""
        reader = self.reader(topic, channel)
        messages: list[Delivered] = []
        try:
            while True:
                more = reader.read(0.05)
                reader.finish(more)
                messages += more
                if not more and not self.depth(topic, channel).held:
                    return messages
        finally:
            reader.close()

    def bodies(self, topic: str, channel: str = "drain") -> list[bytes]:
        return [message.body for message in self.drain(topic, channel)]


class Lookupd(Server):
    """nsqlookupd. Its own HTTP port is the upper one of the pair."""

    def command(self) -> list[str]:
        binary = nsqlookupd_binary()
        assert binary is not None
        return [
            binary,
            f"--tcp-address={self.address}",
            f"--http-address={self.http}",
            "--broadcast-address=127.0.0.1",
        ]

    @property
    def flags(self) -> list[str]:
        return ["--lookupd-http-address", self.http]

    def producers(self, topic: str) -> int:
        status, answer = self.ask("GET", f"/lookup?topic={topic}")
        return len(json.loads(answer)["producers"]) if status == 200 else 0
