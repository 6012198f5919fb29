"""The private local broker: started as a process when nobody answers on its socket.

In: nothing but the environment. Out: the broker answers, or StartError. The broker itself takes the lock
that keeps it single, so two commands that start it at the same moment get one; the loser of that race
tells that another one is running and ends.

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
from qtools.paths import local_places, make_private

logger = logging.getLogger("qtools.client")

# From python's start to a listening socket is 0.3 s here; a loaded machine may need much more.
START_TIMEOUT = 30.0


def autostart_allowed(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether QTOOLS_AUTOSTART lets us start a broker."""
    return environ.get("QTOOLS_AUTOSTART", "1").strip().lower() not in ("0", "no", "false", "off")


async def start_local_broker() -> None:
    """Start the private local broker, unless it runs already; returns when it answers."""
    places = local_places()
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
    """Start the process and wait for its one line; b"" when it ended or took too long without one."""
    process = subprocess.Popen(
        [sys.executable, "-m", "qtools.broker.local_broker"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=log,
        start_new_session=True,  # a Ctrl-C at our terminal is not meant for it
        cwd="/",  # it outlives us, and must not keep a directory or a disk busy
    )
    assert process.stdout is not None
    with process.stdout as told:
        ready, _, _ = select.select([told], [], [], START_TIMEOUT)
        line = told.readline() if ready else b""
    process.returncode = 0  # it is not ours to wait for, and Popen would complain that it still runs
    return line
