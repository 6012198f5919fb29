"""A real RabbitMQ as a process of this user, without root. In: settings. Out: its addresses.

The server of the system's package is run with a node name, ports, an epmd and directories of its own, so that nothing
of an installed service is used or changed. It comes back on its ports and with its data. epmd is started here and not
by Erlang, which would leave it behind as a daemon. `python -m harness.rabbitmq PID ROOM` keeps a server for as long as
the process PID lives.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx

from harness.certificates import Certificates
from harness.ports import free_pair
from harness.shell import MARK, SESSION
from harness.waiting import wait_until

START_TIMEOUT = 120.0  # s
# Where the script itself is: the one on PATH may change to another user, and writes to the system's directories.
PLACES = ("/usr/lib/rabbitmq/bin/rabbitmq-server", "/opt/rabbitmq/sbin/rabbitmq-server")
VHOST = "%2F"  # the default one, as a part of a path
GUEST = ("guest", "guest")  # of a node that is not secured: what clients use by default
SECURED = ("archivist", "the-password-of-the-tests")
MOST_BYTES = 1_000_000  # of a message
NO_RABBITMQ = "no rabbitmq-server (Debian: rabbitmq-server) with Erlang's epmd"


def server_script() -> str | None:
    return next((place for place in PLACES if os.access(place, os.X_OK)), None) or shutil.which("rabbitmq-server")


def why_not() -> str:
    """Why there is no RabbitMQ here; "" if there is one, and the client that judges it."""
    if find_spec("pika") is None:
        return "no pika, the other client of RabbitMQ: install the extra test"
    return "" if server_script() and shutil.which("epmd") and shutil.which("erl") else NO_RABBITMQ


class RabbitNode:
    """One node with one user that has all permissions. settings: lines of rabbitmq.conf, beside those that it needs.

    plugins: beside management, whose HTTP API `api` asks.
    """

    def __init__(self, room: Path, settings: Mapping[str, Any] | None = None, plugins: Sequence[str] = ()) -> None:
        self.room = room
        self.port = free_pair()  # and behind it the one of TLS
        self.http_port = free_pair()  # and behind it the one between nodes
        self.epmd_port = free_pair()
        self.process: subprocess.Popen[bytes] | None = None
        self._epmd: subprocess.Popen[bytes] | None = None
        self._settings = dict(settings or {})
        self._plugins = ["rabbitmq_management", *plugins]
        self.user, self.password = GUEST
        self._client: httpx.Client | None = None
        room.mkdir(parents=True, exist_ok=True)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def tls_address(self) -> str:
        return f"127.0.0.1:{self.port + 1}"

    @property
    def management(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def log(self) -> str:
        return (self.room / "log").read_text(errors="replace")[-3000:]

    def secure(self, certificates: Certificates, more: Mapping[str, Any] | None = None) -> None:
        """Listen with TLS, and on another address without; both need a password that is not the default one."""
        self.user, self.password = SECURED
        self._settings |= {
            "listeners.ssl.1": self.tls_address, "ssl_options.certfile": certificates.server_cert,
            "ssl_options.keyfile": certificates.server_key,
            "ssl_options.cacertfile": certificates.ca, "ssl_options.verify": "verify_none",
        } | dict(more or {})  # fmt: skip

    # ── the process ──

    def start(self) -> None:
        """Start it, and return when it listens."""
        self._write_settings()
        self._start_epmd()
        script = server_script()
        assert script is not None, NO_RABBITMQ
        with (self.room / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [script], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.room, env=self._environment(),
                start_new_session=True,
            )  # fmt: skip
        process = self.process
        wait_until(lambda: self._listens() or process.poll() is not None, START_TIMEOUT, lambda: self.log)
        assert process.poll() is None, self.log

    def stop(self) -> None:
        """End it in order."""
        self._end(signal.SIGTERM, 60)

    def kill(self) -> None:
        self._end(signal.SIGKILL, 30)

    def freeze(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """End it and all that it has started."""
        self.kill()
        if self._epmd is not None:
            self._epmd.kill()
            self._epmd.wait(10)
            self._epmd = None
        if self._client is not None:
            self._client.close()

    def _end(self, number: int, seconds: float) -> None:
        process, self.process = self.process, None
        if process is None:
            return
        process.send_signal(signal.SIGCONT)
        process.send_signal(number)
        try:
            process.wait(seconds)
        finally:
            with contextlib.suppress(ProcessLookupError):  # its helpers, such as inet_gethost
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)

    def _start_epmd(self) -> None:
        if self._epmd is None:
            words = ["epmd", "-address", "127.0.0.1", "-port", str(self.epmd_port)]
            self._epmd = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                env=os.environ | {MARK: SESSION},
            )  # fmt: skip
            wait_until(lambda: _accepts(self.epmd_port), 10, lambda: "epmd does not listen")

    @property
    def _http(self) -> httpx.Client:
        if self._client is None:
            self._client = httpx.Client(auth=(self.user, self.password), timeout=30)
        return self._client

    def _listens(self) -> bool:
        if not _accepts(self.port):
            return False
        try:
            return self._http.get(f"{self.management}/api/overview").status_code == 200
        except httpx.TransportError:
            return False

    # ── its settings ──

    def _environment(self) -> dict[str, str]:
        room = self.room
        kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        return kept | {
            MARK: SESSION, "HOME": str(room), "RUNNING_UNDER_SYSTEMD": "true", "ERL_EPMD_PORT": str(self.epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1", "RABBITMQ_NODENAME": f"tests-{self.port}@localhost",
            "RABBITMQ_DIST_PORT": str(self.http_port + 1), "RABBITMQ_MNESIA_BASE": str(room / "mnesia"),
            "RABBITMQ_LOG_BASE": str(room / "logs"), "RABBITMQ_LOGS": "-", "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_CONFIG_FILE": str(room / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(room / "advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(room / "enabled_plugins"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(room / "generated"), "RABBITMQ_PID_FILE": str(room / "pid"),
            "RABBITMQ_FEATURE_FLAGS_FILE": str(room / "feature_flags"),
            # Schedulers that wait without spinning, on a machine that others use too.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+sbwt none +sbwtdcpu none +sbwtdio none",
        }  # fmt: skip

    def _write_settings(self) -> None:
        settings = {
            "listeners.tcp.1": self.address, "management.tcp.ip": "127.0.0.1", "management.tcp.port": self.http_port,
            "default_user": self.user, "default_pass": self.password, "default_user_tags.administrator": "true",
            "default_permissions.configure": ".*", "default_permissions.read": ".*",
            "default_permissions.write": ".*", "max_message_size": MOST_BYTES,
            "vm_memory_high_watermark.absolute": "4GB",
            "disk_free_limit.absolute": "50MB", "collect_statistics_interval": 200, "log.console.level": "warning",
            "loopback_users": "none",
        } | self._settings  # fmt: skip
        lines = [f"{key} = {value}\n" for key, value in settings.items() if value is not None]
        (self.room / "rabbitmq.conf").write_text("".join(lines))
        # ms between two counts of what a quorum queue holds
        (self.room / "advanced.config").write_text("[{rabbit, [{quorum_tick_interval, 200}]}].\n")
        (self.room / "enabled_plugins").write_text(f"[{','.join(self._plugins)}].\n")

    # ── the HTTP API ──

    def api(self, method: str, path: str, body: Any = None) -> Any:
        """The answer to a request, of JSON; None if there is none."""
        answer = self._http.request(method, f"{self.management}/api{path}", json=body)
        assert answer.status_code in (200, 201, 204, 404), f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content and answer.status_code != 404 else None

    def evaluate(self, expression: str) -> str:
        """Evaluate Erlang in the node."""
        script = server_script()
        assert script is not None
        words = [str(Path(script).with_name("rabbitmqctl")), "-n", f"tests-{self.port}@localhost", "eval", expression]
        done = subprocess.run(words, env=self._environment(), capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout.strip()


def _accepts(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def _keep(owner: int, room: Path) -> None:
    """Run a node until the process `owner` has ended, or SIGTERM comes."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    node = RabbitNode(room / "node")
    try:
        node.start()
        assert node.process is not None
        temporary = room / "ready.new"
        temporary.write_text(json.dumps({"address": node.address, "pid": node.process.pid}))
        temporary.rename(room / "ready.json")
        while node.process is not None and node.process.poll() is None and Path(f"/proc/{owner}").exists():
            time.sleep(0.5)
    finally:
        node.close()


if __name__ == "__main__":
    _keep(int(sys.argv[1]), Path(sys.argv[2]))
