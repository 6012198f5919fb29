"""Where this user's private local broker lives: its sockets, its data, its log; and what else is kept for the user.

    sockets   $XDG_RUNTIME_DIR/qtools, else under the state directory     only the user may enter
    data      $XDG_STATE_HOME/qtools, else ~/.local/state/qtools          only the user may enter
    spools    below the same

In: the environment. Out: paths; `make_private` is the one place that creates them.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from qtools.errors import StartError

# sockaddr_un.sun_path holds 108 bytes on Linux and 104 on the BSDs and macOS, a NUL among them.
LONGEST_SOCKET_PATH = 103


class LocalPlaces(NamedTuple):
    """The private broker's places."""

    tcp_socket: Path
    http_socket: Path
    data: Path
    log: Path


def state_place(environ: Mapping[str, str] = os.environ) -> Path:
    """Where this user's programs keep what shall outlive them; nothing is created."""
    try:
        home = Path(environ.get("HOME") or Path("~").expanduser())
    except RuntimeError as error:  # a container's user that no passwd file knows
        raise StartError("there is no home directory to keep data in: set HOME or XDG_STATE_HOME") from error
    return Path(environ.get("XDG_STATE_HOME") or home / ".local" / "state") / "qtools"


def local_places(environ: Mapping[str, str] = os.environ) -> LocalPlaces:
    """The private broker's places for this environment; nothing is created."""
    state = state_place(environ)
    runtime = environ.get("XDG_RUNTIME_DIR")
    sockets = Path(runtime) / "qtools" if runtime and Path(runtime).is_dir() else state / "run"
    places = LocalPlaces(sockets / "broker.sock", sockets / "broker-http.sock", state / "broker", state / "broker.log")
    if len(os.fsencode(places.http_socket)) > LONGEST_SOCKET_PATH:
        raise StartError(
            f"the socket path {places.http_socket} is longer than {LONGEST_SOCKET_PATH} bytes:"
            " set XDG_RUNTIME_DIR to a shorter directory"
        )
    return places


def broker_data(environ: Mapping[str, str] = os.environ) -> Path:
    """Where a q-broker that was started by hand keeps messages, unless told otherwise; nothing is created."""
    return local_places(environ).data.parent / "q-broker"


def make_private(directory: Path) -> None:
    """Make sure that `directory` is there, is this user's, and that nobody else may enter it."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        info = directory.stat()
    except OSError as error:
        raise StartError(f"cannot use {directory}: {error.strerror or error}") from error
    if info.st_uid != os.geteuid():
        raise StartError(f"{directory} belongs to another user: set XDG_RUNTIME_DIR and XDG_STATE_HOME to your own")
    if stat.S_IMODE(info.st_mode) & 0o077:
        try:
            directory.chmod(0o700)
        except OSError as error:
            raise StartError(f"cannot make {directory} private: {error.strerror or error}") from error
