"""Where this user's private local broker lives: its sockets, its data, its log; and what else is kept for the user.

    sockets   $XDG_RUNTIME_DIR/qtools, else under the state directory     only the user may enter
    data      $XDG_STATE_HOME/qtools, else ~/.local/state/qtools          only the user may enter
    spools    below the same
    config    $XDG_CONFIG_HOME/qtools/config.toml, else ~/.config/qtools/config.toml

A broker that runs has written its sockets into the lock file in its data directory. That file decides, so that a cron
job without XDG_RUNTIME_DIR finds the broker that was started with it:

    PID\n  TCP_SOCKET\n  HTTP_SOCKET\n

In: the environment, the lock file. Out: paths; `make_directory` and `make_private` are the only ones that create them.
Never here: belief in a file, a directory or a socket that another user owns or could have written.
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
_LONGEST_LOCK = 4096  # bytes of a lock file that are read: a number and two socket paths are far shorter


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


def config_file(environ: Mapping[str, str] = os.environ) -> Path:
    """The file with this user's settings; it may not be there. StartError if there is no home directory."""
    try:
        home = Path(environ.get("HOME") or Path("~").expanduser())
    except RuntimeError as error:  # a container's user that no passwd file knows
        raise StartError("there is no home directory with settings: set HOME or XDG_CONFIG_HOME") from error
    return Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "qtools" / "config.toml"


def lock_path(directory: Path) -> Path:
    """The file in a data directory that the broker which uses it keeps locked."""
    return directory / "lock"


def local_places(environ: Mapping[str, str] = os.environ) -> LocalPlaces:
    """The places of the private broker that runs, else those that this environment gives; nothing is created.

    The sockets may be those of a broker that has ended: then nothing listens on them.
    """
    state = state_place(environ)
    sockets = named_sockets(lock_path(state / "broker"))
    if sockets is None:
        return own_places(environ)
    return LocalPlaces(*sockets, state / "broker", state / "broker.log")


def own_places(environ: Mapping[str, str] = os.environ) -> LocalPlaces:
    """The places of a private broker that is started in this environment; nothing is created."""
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


def named_sockets(lock: Path) -> tuple[Path, Path] | None:
    """The TCP and HTTP sockets that a lock file names; None when it names none that can be trusted."""
    try:
        opened = os.open(lock, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        info = os.fstat(opened)
        if not stat.S_ISREG(info.st_mode) or not _only_ours(info):
            return None
        lines = os.read(opened, _LONGEST_LOCK).split(b"\n")
    except OSError:
        return None
    finally:
        os.close(opened)
    if len(lines) < 4:  # the broker has not written all of it yet, or serves on no private sockets
        return None
    tcp, http = (Path(os.fsdecode(line)) for line in lines[1:3])
    fits = all(path.is_absolute() and len(os.fsencode(path)) <= LONGEST_SOCKET_PATH for path in (tcp, http))
    return (tcp, http) if fits and is_private_socket(tcp) and is_private_socket(http) else None


def is_private_socket(path: Path) -> bool:
    """Whether only this user can have put a socket at `path`. A path with nothing at it is private too."""
    try:
        directory = path.parent.lstat()
        if not stat.S_ISDIR(directory.st_mode) or not _only_ours(directory):
            return False
        return path.lstat().st_uid == os.geteuid()
    except FileNotFoundError:
        return True
    except (OSError, ValueError):  # ValueError: no path that a file could have
        return False


def _only_ours(info: os.stat_result) -> bool:
    """Whether this user owns it, and no other may write to it."""
    return info.st_uid == os.geteuid() and not stat.S_IMODE(info.st_mode) & 0o022


def broker_data(environ: Mapping[str, str] = os.environ) -> Path:
    """Where a q-broker that was started by hand keeps messages, unless told otherwise; nothing is created."""
    return state_place(environ) / "q-broker"


def make_directory(directory: Path) -> None:
    """Make `directory`, and every parent that is missing, for this user only (XDG Base Directory Specification).

    OSError when that cannot be done.
    """
    if directory.is_dir():
        return
    if directory.parent != directory:
        make_directory(directory.parent)
    directory.mkdir(mode=0o700, exist_ok=True)


def make_private(directory: Path) -> None:
    """Make sure that `directory` is there, is this user's, and that nobody else may enter it."""
    try:
        make_directory(directory)
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
