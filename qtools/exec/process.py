"""Starts one process, and signals its group. In: a program, arguments, descriptors. Out: a process id, or an error.

posix_spawn starts a program several times faster than fork does from a process of this size, and reports at once that
a program cannot be run. Each command is the leader of a process group of its own, so that it can be ended with all that
it has started, and Ctrl-C on the terminal reaches q-exec only, which lets the commands end.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress

from qtools.errors import CommandUnusable, MessageRefused, Postponed, QtoolsError

# Python ignores these, and a program that is started would ignore them too.
_DEFAULT_SIGNALS = (signal.SIGPIPE, signal.SIGXFSZ)
KILL_AFTER = 5.0  # s between SIGTERM and SIGKILL
START_AGAIN_MS = 1000  # when the system has no room for another process
_NO_ROOM = (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE)


def find_program(name: str) -> str:
    """The path of the program `name`; CommandUnusable if there is none, or it is not executable."""
    if (found := shutil.which(name)) is not None:
        return found
    if os.sep in name and os.path.isdir(name):
        raise CommandUnusable(name, "it is a directory", 126)
    if os.sep in name and os.path.exists(name):
        raise CommandUnusable(name, "it is not executable: see chmod +x", 126)
    raise CommandUnusable(name, "there is no such program", 127)


def input_file(data: bytes) -> int:
    """A descriptor from which a command reads `data`: a file in memory, so that no process has to write into a pipe
    that the command may not read."""
    if not data:
        return os.open(os.devnull, os.O_RDONLY)
    fd = os.memfd_create("message") if hasattr(os, "memfd_create") else temporary_file()
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        os.lseek(fd, 0, os.SEEK_SET)
    except BaseException:
        os.close(fd)
        raise
    return fd


def temporary_file() -> int:
    """A descriptor of a new file without a name."""
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def spawn(path: str, arguments: list[bytes], environment: Mapping[bytes, bytes], descriptors: Mapping[int, int]) -> int:
    """Start the program at `path`; return its process id. descriptors: its descriptor → ours.

    CommandUnusable if it cannot be run, Postponed if the system has no room for a process now, MessageRefused if the
    arguments, or the variables, are longer than the system allows.
    """
    try:
        return os.posix_spawn(
            path, arguments, environment,
            file_actions=[(os.POSIX_SPAWN_DUP2, ours, theirs) for theirs, ours in descriptors.items()],
            setpgroup=0, setsigmask=(), setsigdef=_DEFAULT_SIGNALS,
        )  # fmt: skip
    except OSError as error:
        raise _explained(path, arguments, environment, error) from error


def not_prepared(path: str, error: OSError) -> QtoolsError:
    """The error for a command whose pipes and files could not be opened: Postponed if the system has no room for them
    now, else one that ends the run."""
    text = f"{path} could not be started: {error.strerror or error}"
    return Postponed(text, START_AGAIN_MS) if error.errno in _NO_ROOM else QtoolsError(text)


def _explained(
    path: str, arguments: Sequence[bytes], environment: Mapping[bytes, bytes], error: OSError
) -> QtoolsError:
    if error.errno == errno.E2BIG:
        size = sum(map(len, arguments))
        more = sum(len(name) + len(value) for name, value in environment.items())
        return MessageRefused(
            f"the arguments have {size:,} bytes, and the variables {more:,}, more than the system allows: a body can be"
            " read from stdin"
        )
    if error.errno in _NO_ROOM:
        return not_prepared(path, error)
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        # The file is there: it is the interpreter in its first line that is missing.
        is_there = os.path.exists(path)
        return CommandUnusable(path, "its interpreter does not exist" if is_there else "there is no such program", 127)
    why = "it is neither a program nor a script that begins with #!" if error.errno == errno.ENOEXEC else error.strerror
    return CommandUnusable(path, str(why), 126)


def signal_group(pid: int, number: signal.Signals) -> None:
    """Send a signal to all processes of the group whose leader is `pid`."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def status_of(pid: int, *, kill_group: bool = False) -> int | None:
    """The exit status of the child `pid`, negative for the signal that ended it; None while it runs.

    kill_group: end what the child has left behind. As the group has its number until the child was waited for, no other
    group can be meant.
    """
    if kill_group:
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            return None
        signal_group(pid, signal.SIGKILL)
    ended, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if ended else None
