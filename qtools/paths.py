"""The paths of the private local broker of this user, and of the user's other files.

    sockets   $XDG_RUNTIME_DIR/qtools, else in the state directory        mode 0700
    data      $XDG_STATE_HOME/qtools, else ~/.local/state/qtools          mode 0700
    spools    in the same directory
    config    $XDG_CONFIG_HOME/qtools/config.toml, else ~/.config/qtools/config.toml

A running broker has written the paths of its sockets into the lock file in its data directory, and these count. So a
cron job without XDG_RUNTIME_DIR finds the broker that was started in a session that has it:

    PID\n  TCP_SOCKET\n  HTTP_SOCKET\n

In: the environment, the lock file. Out: paths. Only `make_directory` and `make_private` create anything. A file, a
directory or a socket that another user owns or could have written is never trusted.
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


class LocalBrokerPaths(NamedTuple):
    """The paths of the private broker."""

    tcp_socket: Path
    http_socket: Path
    data: Path
    log: Path


def state_directory(environ: Mapping[str, str] = os.environ) -> Path:
    """The directory of data that outlives a run; it is not created. StartError if the user has no home directory."""
    try:
        home = Path(environ.get("HOME") or Path("~").expanduser())
    except RuntimeError as error:  # in a container, the user may be missing from /etc/passwd
        raise StartError("there is no home directory to keep data in: set HOME or XDG_STATE_HOME") from error
    return Path(environ.get("XDG_STATE_HOME") or home / ".local" / "state") / "qtools"


def config_file(environ: Mapping[str, str] = os.environ) -> Path:
    """The file with this user's settings, which need not exist. StartError if the user has no home directory."""
    try:
        home = Path(environ.get("HOME") or Path("~").expanduser())
    except RuntimeError as error:  # in a container, the user may be missing from /etc/passwd
        raise StartError("there is no home directory with settings: set HOME or XDG_CONFIG_HOME") from error
    return Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "qtools" / "config.toml"


def lock_path(directory: Path) -> Path:
    """The lock file in a data directory; the broker that uses the directory holds a lock on it."""
    return directory / "lock"


def local_broker_paths(environ: Mapping[str, str] = os.environ) -> LocalBrokerPaths:
    """The paths of the running private broker, or else those that follow from this environment; nothing is created.

    The sockets may be those of a broker that has ended: then no process listens on them.
    """
    state = state_directory(environ)
    sockets = named_sockets(lock_path(state / "broker"))
    if sockets is None:
        return default_broker_paths(environ)
    return LocalBrokerPaths(*sockets, state / "broker", state / "broker.log")


def default_broker_paths(environ: Mapping[str, str] = os.environ) -> LocalBrokerPaths:
    """The paths of a private broker that is started in this environment; nothing is created.

    StartError if the path of a socket would be too long.
    """
    state = state_directory(environ)
    runtime = environ.get("XDG_RUNTIME_DIR")
    sockets = Path(runtime) / "qtools" if runtime and Path(runtime).is_dir() else state / "run"
    places = LocalBrokerPaths(
        sockets / "broker.sock", sockets / "broker-http.sock", state / "broker", state / "broker.log"
    )
    if len(os.fsencode(places.http_socket)) > LONGEST_SOCKET_PATH:
        raise StartError(
            f"the socket path {places.http_socket} is longer than {LONGEST_SOCKET_PATH} bytes:"
            " set XDG_RUNTIME_DIR to a shorter directory"
        )
    return places


def named_sockets(lock: Path) -> tuple[Path, Path] | None:
    """The TCP and HTTP sockets that a lock file names; None if it names none that can be trusted."""
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
    """Whether only this user can have created a socket at `path`. A path at which nothing exists is private too."""
    try:
        directory = path.parent.lstat()
        if not stat.S_ISDIR(directory.st_mode) or not _only_ours(directory):
            return False
        return path.lstat().st_uid == os.geteuid()
    except FileNotFoundError:
        return True
    except (OSError, ValueError):  # ValueError: the path contains a NUL
        return False


def _only_ours(info: os.stat_result) -> bool:
    """Whether this user owns the file of `info`, and no other user may write to it."""
    return info.st_uid == os.geteuid() and not stat.S_IMODE(info.st_mode) & 0o022


def broker_data(environ: Mapping[str, str] = os.environ) -> Path:
    """The default data directory of a q-broker that the user starts; it is not created."""
    return state_directory(environ) / "q-broker"


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
    """Make sure that `directory` exists, belongs to this user, and has the mode 0700. StartError if that fails."""
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
