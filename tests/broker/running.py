"""q-broker as a process, for tests that need the real thing. In: flags. Out: where it listens, what it logged."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

Value = TypeVar("Value")

DEADLINE = 20.0


def until(probe: Callable[[], Value], deadline: float = DEADLINE) -> Value:
    """Ask `probe` until it answers something true; fail after `deadline` seconds."""
    end = time.monotonic() + deadline
    while True:
        answer = probe()
        if answer:
            return answer
        assert time.monotonic() < end, f"{probe} did not come true within {deadline} s"
        time.sleep(0.01)


class Running:
    """A broker process. `log` grows as it speaks."""

    def __init__(self, *flags: str, environ: dict[str, str] | None = None) -> None:
        self.log: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "qtools.broker", *flags],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **(environ or {})},
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line.rstrip("\n"))

    def address(self, kind: str) -> tuple[str, int]:
        """Where it serves "TCP" or "HTTP"."""

        def told() -> list[str]:
            assert self.process.poll() is None, self.log
            return [line for line in self.log if f"{kind}: listening on " in line]

        found = re.search(r" on (.*):(\d+)$", until(told)[0])
        assert found
        return found[1], int(found[2])

    @property
    def tcp(self) -> tuple[str, int]:
        return self.address("TCP")

    @property
    def http(self) -> tuple[str, int]:
        return self.address("HTTP")

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Stop it in order, and answer its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        status = self.process.wait(DEADLINE)
        self._reader.join(DEADLINE)
        return status

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(DEADLINE)
        self._reader.join(DEADLINE)
        assert self.process.stderr is not None
        self.process.stderr.close()


@contextmanager
def running(*flags: str, **settings: Any) -> Iterator[Running]:
    """A broker on free ports, with a data directory of its own unless `flags` say otherwise."""
    ports = [f"--{server}-address=127.0.0.1:0" for server in ("tcp", "http", "https")]
    with tempfile.TemporaryDirectory() as data:
        own = [] if {"--memory", "--data-path"} & set(flags) else ["--data-path", data]
        broker = Running(*ports, *own, *flags, **settings)
        try:
            yield broker
        finally:
            broker.close()
