"""The programs as a user runs them: subprocesses in an environment of their own. In: words. Out: bytes and a status.

Everything that is started is ended when the test ends, a local broker that was started by the way as well.
What a test started is known by a mark in its environment, which its children inherit.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pytest

from harness.fork_server import FUNCTIONS, Forked, ForkServer
from harness.waiting import DEADLINE, wait_until

ROOT = Path(__file__).parents[2]
MARK = "HARNESS_MARK"
SESSION = uuid.uuid4().hex  # begins every mark of this process
MODULES = {
    "q-pipe": "qtools.pipe",
    "q-tail": "qtools.tail",
    "q-bridge": "qtools.bridge",
    "q-to-file": "qtools.to_file",
    "q-broker": "qtools.broker",
    "q-exec": "qtools.exec",
    "q-admin": "qtools.admin",
    "q-pubsub-http": "qtools.pubsub_http",
    "qtools": "qtools",
}
TIMEOUT = 60.0  # s


# A program that is killed leaves no record of what it executed: under coverage it is asked to end first.
IS_MEASURED = "COVERAGE_PROCESS_CONFIG" in os.environ
NOT_MEASURED = pytest.mark.skipif(IS_MEASURED, reason="coverage takes time and memory, and imports modules, of its own")


def end(process: subprocess.Popen[bytes] | Forked) -> None:
    """Kill `process`; under coverage ask it first."""
    if IS_MEASURED:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.send_signal(signal.SIGCONT)
            process.terminate()
            process.wait(5)
    process.kill()


def words_for(program: str) -> list[str]:
    """How to run `program`: the script installed beside this Python, else the module of the checkout."""
    script = Path(sys.executable).with_name(program)
    return [str(script)] if script.exists() else [sys.executable, "-m", MODULES[program]]


def base_environment() -> dict[str, str]:
    """What a program needs of our environment; nothing that changes what it does."""
    kept = {name: os.environ[name] for name in ("PATH", "TMPDIR", "COVERAGE_PROCESS_CONFIG") if name in os.environ}
    # Installed scripts find qtools without it; modules of a checkout that is not installed do not.
    return {**kept, "LANG": "C.UTF-8", "PYTHONPATH": str(ROOT)}


def stopped_by(number: signal.Signals, status: int = 0) -> int:
    """The status of a program after an orderly stop: SIGINT ends it by itself, after SIGTERM it is `status`."""
    return -signal.SIGINT if number == signal.SIGINT else status


@dataclass(slots=True)
class Done:
    """A program that has ended."""

    status: int
    out: bytes
    err: str

    @property
    def lines(self) -> list[bytes]:
        """stdout's lines without their newlines."""
        return self.out.split(b"\n")[:-1]

    @property
    def err_lines(self) -> list[str]:
        return self.err.splitlines()


class Running:
    """A program that runs. What it says is collected as it comes, unless a descriptor of the test's takes it."""

    def __init__(self, process: subprocess.Popen[bytes] | Forked) -> None:
        self.process = process
        self._out = bytearray()
        self._err = bytearray()
        self._readers = [
            threading.Thread(target=self._collect, args=(stream, into), daemon=True)
            for stream, into in ((process.stdout, self._out), (process.stderr, self._err))
            if stream is not None
        ]
        for reader in self._readers:
            reader.start()

    @staticmethod
    def _collect(stream: IO[bytes], into: bytearray) -> None:
        with contextlib.suppress(OSError, ValueError):
            while chunk := os.read(stream.fileno(), 1 << 16):
                into += chunk

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def out(self) -> bytes:
        return bytes(self._out)

    @property
    def err(self) -> str:
        return self._err.decode("utf-8", "replace")

    @property
    def is_running(self) -> bool:
        return self.process.poll() is None

    def feed(self, data: bytes) -> None:
        """Write to its stdin."""
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def end_input(self) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait_err(self, text: str, deadline: float = DEADLINE) -> None:
        """Until stderr has `text`."""
        wait_until(lambda: text in self.err, deadline, lambda: f"{text!r} on stderr, which has {self.err!r}")

    def wait_out(self, count: int, deadline: float = DEADLINE) -> bytes:
        """Until stdout has at least `count` bytes."""
        wait_until(
            lambda: len(self._out) >= count, deadline, lambda: f"{count} bytes, {len(self._out)} came; {self.err}"
        )
        return self.out

    def wait(self, timeout: float = TIMEOUT) -> Done:
        """Until it ends. What children it left behind say afterwards is not waited for."""
        try:
            status = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.reap()
            raise AssertionError(f"{self.process.args} still runs after {timeout} s: {self.err}") from None
        for reader in self._readers:
            reader.join(DEADLINE)
            assert not reader.is_alive(), f"somebody holds the output of {self.process.args}, which has ended"
        return Done(status, self.out, self.err)

    def reap(self) -> None:
        """End it, whatever state it is in."""
        if self.process.poll() is None:
            end(self.process)
        self.process.wait()
        if self.process.stdin is not None:
            with contextlib.suppress(OSError):
                self.process.stdin.close()
        for reader in self._readers:
            reader.join(1.0)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()


class Shell:
    """Runs programs in a home of its own, which is empty and short enough for unix sockets.

    With a fork server, the runs that only end by themselves (`run`) are its children: see there what differs.
    """

    def __init__(self, fork_server: ForkServer | None = None) -> None:
        self._fork_server = fork_server
        self.home = Path(tempfile.mkdtemp(prefix="qt-", dir="/tmp"))
        self.mark = f"{SESSION}.{uuid.uuid4().hex}"
        (self.home / "run").mkdir(mode=0o700)
        self.environ = base_environment() | {
            "HOME": str(self.home),
            "XDG_RUNTIME_DIR": str(self.home / "run"),
            "XDG_STATE_HOME": str(self.home / "state"),
            MARK: self.mark,
        }
        self._running: list[Running] = []

    def start(
        self,
        program: str,
        *words: str | Path,
        stdin: int | IO[bytes] | None = subprocess.DEVNULL,
        stdout: int | IO[bytes] | None = subprocess.PIPE,
        stderr: int | IO[bytes] | None = subprocess.PIPE,
        environ: dict[str, str] | None = None,
        cwd: Path | None = None,
        argv: Sequence[str] | None = None,
        **settings: object,
    ) -> Running:
        """Start `program`; `argv` are the words to run instead of the installed ones. stdin: PIPE to feed it."""
        full = [*(argv or words_for(program)), *map(str, words)]
        process: subprocess.Popen[bytes] = subprocess.Popen(  # type: ignore[call-overload]
            full,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env=self.environ | (environ or {}),
            cwd=cwd or self.home,
            **settings,
        )
        running = Running(process)
        self._running.append(running)
        return running

    def run(
        self, program: str, *words: str | Path, input: bytes | None = None, timeout: float = TIMEOUT, **settings: object
    ) -> Done:
        """Start `program`, feed it `input`, wait for its end."""
        forks = (
            self._fork_server is not None
            and program in FUNCTIONS
            and settings.keys() <= {"environ", "cwd"}
            and "PYTHONPATH" not in settings.get("environ", {})  # read at the start of an interpreter
        )
        running = (
            self._fork(program, *words, has_input=input is not None, **settings)  # type: ignore[arg-type]
            if forks
            else self.start(
                program,
                *words,
                **({"stdin": subprocess.DEVNULL if input is None else subprocess.PIPE} | settings),  # type: ignore[arg-type]
            )
        )
        if input is None:
            return running.wait(timeout)
        with contextlib.suppress(BrokenPipeError):
            running.feed(input)
        running.end_input()
        return running.wait(timeout)

    def _fork(
        self,
        program: str,
        *words: str | Path,
        has_input: bool,
        environ: dict[str, str] | None = None,
        cwd: Path | None = None,
    ) -> Running:
        assert self._fork_server is not None
        full = self.environ | (environ or {})
        running = Running(self._fork_server.start(program, [*map(str, words)], full, cwd or self.home, has_input))
        self._running.append(running)
        return running

    def script(self, text: str, **settings: object) -> Running:
        """A line for sh, in which q-pipe, q-tail, q-broker and qtools are the programs under test."""
        heads = "".join(f'{name.replace("-", "_")}() {{ {" ".join(words_for(name))} "$@"; }}\n' for name in MODULES)
        for name in MODULES:
            text = text.replace(name + " ", name.replace("-", "_") + " ")
        return self.start("sh", argv=["/bin/sh", "-c", heads + text], **settings)  # type: ignore[arg-type]

    def close(self) -> None:
        """End everything, and take the home away."""
        for running in self._running:
            running.reap()
        for pid in marked(self.mark):  # a local broker is nobody's child
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not marked(self.mark), what="everything that was started to be gone")
        shutil.rmtree(self.home, ignore_errors=True)


def marked(mark: str) -> list[int]:
    """Processes whose mark begins with `mark`; none where /proc does not tell."""
    needle = f"{MARK}={mark}".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if needle in (entry / "environ").read_bytes() and (entry / "stat").read_text().rpartition(")")[2][1] != "Z":
                found.append(int(entry.name))
    return found
