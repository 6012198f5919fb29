"""Runs programs in forked children of one process that has imported them. In: a program, its words, its descriptors,
environment and directory. Out: its status.

An import of a program's modules takes 0.1 s of CPU time, which is most of what a short run takes. This process imports
them once; each child has descriptors, an environment and a directory of its own, calls the function of the console
script, and ends as an interpreter does. What differs from a program that was executed: /proc shows the command line and
the environment of this process, and no module is imported late. Tests of either execute the program.

Runs as a program of its own, whose stdin is a socket: python fork_server.py. A request is JSON with the descriptors of
stdin, stdout, stderr, and of a pipe to which the status is written, as subprocess has it in `returncode`.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

FUNCTIONS = {
    "q-pipe": "pipe",
    "q-tail": "tail",
    "q-bridge": "bridge",
    "q-to-file": "to_file",
    "q-broker": "broker",
    "q-pubsub-http": "pubsub_http",
    "qtools": "qtools",
}
LARGEST = 1 << 20  # bytes of a request
PRELOADED = (
    "asyncio", "uvloop", "orjson", "ssl",
    "qtools.entry", "qtools.cli.run", "qtools.expressions.expression", "qtools.formats.encoders",
    "qtools.engines.nsq.engine", "qtools.engines.nsq.publish.publisher", "qtools.engines.nsq.consume.source",
    "qtools.engines.nsq.http_client",
    "qtools.pipe.command", "qtools.pipe.app", "qtools.tail.command", "qtools.tail.app", "qtools.bridge.command",
    "qtools.bridge.app", "qtools.to_file.command", "qtools.to_file.app",
)  # fmt: skip


class Forked:
    """A program in a forked child, with the attributes of a subprocess.Popen that a `Running` uses."""

    def __init__(self, args: list[str], pid: int, status: int, streams: list[int | None]) -> None:
        self.args = args
        self.pid = pid
        self.returncode: int | None = None
        self._status = status
        self.stdin, self.stdout, self.stderr = (
            None if stream is None else os.fdopen(stream, mode, buffering=0)
            for stream, mode in zip(streams, ("wb", "rb", "rb"), strict=True)
        )

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            ready, _, _ = select.select([self._status], [], [], timeout)
            if not ready:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            self.returncode = int(os.read(self._status, 16))
            os.close(self._status)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class ForkServer:
    """The process that forks. One thread at a time asks it."""

    def __init__(self, environ: dict[str, str]) -> None:
        self._socket, theirs = socket.socketpair()
        self._lock = threading.Lock()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, __file__], stdin=theirs, stdout=subprocess.DEVNULL, env=environ
            )

    def start(self, program: str, words: list[str], environ: dict[str, str], cwd: Path, has_input: bool) -> Forked:
        """Run `program`; stdin is a pipe, or empty without `has_input`."""
        pipes = [os.pipe() if has_input else (os.open(os.devnull, os.O_RDONLY), -1), os.pipe(), os.pipe(), os.pipe()]
        (stdin, feed), (out, stdout), (err, stderr), (status, report) = pipes
        request = json.dumps({"program": program, "words": words, "environ": environ, "cwd": str(cwd)}).encode()
        with self._lock:
            socket.send_fds(self._socket, [len(request).to_bytes(4, "big")], [stdin, stdout, stderr, report])
            self._socket.sendall(request)
            pid = int.from_bytes(self._socket.recv(4, socket.MSG_WAITALL), "big")
        for theirs in (stdin, stdout, stderr, report):
            os.close(theirs)
        assert pid, f"the fork server has ended with status {self._process.wait()}"
        return Forked([program, *words], pid, status, [feed if has_input else None, out, err])

    def close(self) -> None:
        self._socket.close()  # it ends at the end of its input
        self._process.wait()


def serve() -> None:
    """Fork for each request until the other side has closed the socket; in a child: run the program and end."""
    for name in PRELOADED:
        importlib.import_module(name)
    importlib.import_module("qtools.imports").import_without_extras("httpx")
    asked = socket.socket(fileno=os.dup(0))
    ended, woken = os.pipe()
    os.set_blocking(woken, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    reports: dict[int, int] = {}
    while True:
        ready, _, _ = select.select([asked, ended], [], [])
        if ended in ready:
            os.read(ended, 4096)
            for pid, report in list(reports.items()):
                done, status = os.waitpid(pid, os.WNOHANG)
                if done:
                    del reports[pid]
                    with contextlib.suppress(BrokenPipeError):
                        os.write(report, b"%d" % os.waitstatus_to_exitcode(status))
                    os.close(report)
        if asked in ready:
            size, descriptors, _, _ = socket.recv_fds(asked, 4, 4)
            if not size:
                return
            request = json.loads(asked.recv(int.from_bytes(size, "big"), socket.MSG_WAITALL))
            pid = os.fork()
            if not pid:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for place, descriptor in enumerate(descriptors[:3]):
                    os.dup2(descriptor, place)
                asked.detach()
                os.closerange(3, 256)
                os.chdir(request["cwd"])
                os.environ.clear()
                os.environ.update(request["environ"])
                sys.argv = [str(Path(sys.executable).with_name(request["program"])), *request["words"]]
                sys.exit(getattr(importlib.import_module("qtools.entry"), FUNCTIONS[request["program"]])())
            asked.sendall(pid.to_bytes(4, "big"))
            reports[pid] = descriptors.pop()
            for descriptor in descriptors:
                os.close(descriptor)


if __name__ == "__main__":
    serve()
