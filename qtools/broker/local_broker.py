"""The private local broker, as a process of its own: `python -m qtools.broker.local_broker [--idle-exit 10m]`.

In: the environment, which determines its directories. Out: one line on stdout, which is closed after it:

    ready PID      this process serves
    running PID    another process serves, and answers
    error TEXT     neither

A lock on a file in the data directory makes sure that there is only one; the file names its sockets. The lock is held
from before the first socket is made until after the last one is removed, so its holder may remove sockets that are left
over.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from qtools.broker.lock import holder, try_lock
from qtools.errors import QtoolsError, StartError
from qtools.paths import LocalBrokerPaths, default_broker_paths, lock_path, make_private, named_sockets
from qtools.sockets import is_served

log = logging.getLogger("qtools.broker")

IDLE_EXIT = 600.0
PATIENCE = 10.0  # s that another broker has to begin to answer, or to end
_PAUSE = 0.02


def become_the_one(places: LocalBrokerPaths) -> int | None:
    """Take the lock. Returns its descriptor, or None once the process that holds it answers on its socket.

    Waits for that process to begin to serve, or to end. The lock file names its sockets.
    """
    until = time.monotonic() + PATIENCE
    while True:
        held = try_lock(places.data, (places.tcp_socket, places.http_socket))
        if held is not None:
            return held
        sockets = named_sockets(lock_path(places.data))
        if sockets is not None and is_served(str(sockets[0])):
            return None
        if time.monotonic() > until:
            raise StartError(_unreachable(places, None if sockets is None else sockets[0]))
        time.sleep(_PAUSE)


def _unreachable(places: LocalBrokerPaths, socket: Path | None) -> str:
    """The error for a broker that holds the lock and cannot be reached."""
    pid = holder(places.data)
    what = f"pid {pid}" if pid else "another process"
    advice = "`q-broker stop --force` ends it in order, and the next command starts a new one"
    if socket is None:
        return f"{what} holds {lock_path(places.data)}, which names no socket of yours to reach it by: {advice}"
    if not socket.exists():
        return f"{what} is the local broker, and its socket {socket} was removed: {advice}"
    return f"{what} holds {lock_path(places.data)} and does not answer on {socket}: {advice}"


def serve(places: LocalBrokerPaths, idle_exit: float | None) -> int:
    """Serve on the private sockets, holding the lock, until idle or stopped."""
    from qtools.broker.daemon import Daemon
    from qtools.broker.options import Options
    from qtools.cli.run import Signals, run_program

    for left_over in (places.tcp_socket, places.http_socket):
        try:
            left_over.unlink(missing_ok=True)
        except OSError as error:
            raise StartError(f"cannot remove {left_over}: {(error.strerror or str(error)).lower()}") from error
    options = Options(
        tcp_address=f"unix:{places.tcp_socket}",
        http_address=f"unix:{places.http_socket}",
        data_path=str(places.data),
    )

    async def run(signals: Signals) -> int:
        daemon = Daemon(options, idle_exit=idle_exit)
        await daemon.start()
        signals.on_stop(daemon.stop)
        log.info("pid %d serves on %s and %s", os.getpid(), daemon.tcp_address, daemon.http_address)
        _tell(f"ready {os.getpid()}")
        await daemon.serve()
        return 0

    return run_program(run, server=True)


def _tell(line: str) -> None:
    """Print the line and close stdout, so that the process that started this one does not wait for its end."""
    with contextlib.suppress(OSError):  # the process that started it may have closed the pipe
        os.write(1, line.encode("utf-8", "replace") + b"\n")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)


def main(arguments: Sequence[str]) -> int:
    """Run the process. Returns its exit status."""
    from qtools.cli.logs import set_up
    from qtools.durations import parse_duration

    set_up("q-broker", verbose=1)
    idle_exit: float | None = IDLE_EXIT
    try:
        if len(arguments) == 2 and arguments[0] == "--idle-exit":
            idle_exit = parse_duration(arguments[1]) or None  # 0: never
        elif arguments:
            raise ValueError(f"unknown arguments {' '.join(arguments)}: the only one is --idle-exit DURATION")
        places = default_broker_paths()
        for directory in (places.tcp_socket.parent, places.data):
            make_private(directory)
        held = become_the_one(places)
        if held is None:
            _tell(f"running {holder(places.data) or 0}")
            return 0
        return serve(places, idle_exit)
    except ValueError as error:
        _tell(f"error {error}")
        return 2
    except QtoolsError as error:
        log.error("%s", error)
        _tell(f"error {error}")
        return error.exit_status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
