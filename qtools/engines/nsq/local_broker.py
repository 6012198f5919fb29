"""Starts the private local broker as a process. In: the environment. Out: the broker accepts connections, or
StartError.

The broker takes a lock, so that only one runs: if two commands start it at the same moment, the second process reports
that another one is running, and ends.

    $ python -m qtools.broker.local_broker …      one line on stdout:  ready PID | running PID | error TEXT
"""

from __future__ import annotations

import asyncio
import logging
import os
import select
import subprocess
import sys
from collections.abc import Mapping

from qtools.errors import StartError
from qtools.paths import local_broker_paths, make_private

logger = logging.getLogger("qtools.client")

# The broker listens 0.3 s after its start on an idle machine; a loaded one may need much more.
START_TIMEOUT = 30.0


def autostart_allowed(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether QTOOLS_AUTOSTART allows a command to start the broker."""
    return environ.get("QTOOLS_AUTOSTART", "1").strip().lower() not in ("0", "no", "false", "off")


async def start_local_broker() -> None:
    """Start the private local broker, unless it runs already; return when it accepts connections."""
    places = local_broker_paths()
    if not autostart_allowed():
        raise StartError(
            "no broker is given and the local one is not running (QTOOLS_AUTOSTART=0 forbids to start it):"
            " give --broker URL (nsq://HOST:4150), or run q-broker"
        )
    make_private(places.log.parent)
    try:
        log = os.open(places.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StartError(f"cannot write the local broker's log {places.log}: {error.strerror}") from error
    try:
        line = await asyncio.to_thread(_spawn, log)
    finally:
        os.close(log)
    word, _, rest = line.decode("utf-8", "replace").strip().partition(" ")
    if word == "ready":
        logger.warning("started the local broker (pid %s, data in %s); `q-broker stop` ends it", rest, places.data)
    elif word == "error":
        raise StartError(f"the local broker could not start: {rest}")
    elif word != "running":
        raise StartError(f"the local broker could not start: see {places.log}")


def _spawn(log: int) -> bytes:
    """Start the process and return the one line that it prints; b"" if it ends without one, or START_TIMEOUT passes."""
    process = subprocess.Popen(
        [sys.executable, "-m", "qtools.broker.local_broker"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=log,
        start_new_session=True,  # so that Ctrl-C at the terminal does not end the broker
        cwd="/",  # the broker runs longer than the command, and must not keep a directory or a disk busy
    )
    assert process.stdout is not None
    with process.stdout as output:
        ready, _, _ = select.select([output], [], [], START_TIMEOUT)
        line = output.readline() if ready else b""
    process.returncode = 0  # nothing waits for the process; without this, Popen warns that it still runs
    return line
