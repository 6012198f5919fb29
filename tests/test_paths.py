"""Where the private local broker lives, and that nobody else may enter."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from qtools.errors import StartError
from qtools.paths import (
    LONGEST_SOCKET_PATH,
    default_broker_paths,
    is_private_socket,
    local_broker_paths,
    make_private,
    named_sockets,
)


def test_sockets_are_in_the_runtime_directory_and_data_in_the_state_directory(tmp_path: Path) -> None:
    runtime = tmp_path / "run"
    runtime.mkdir()
    places = local_broker_paths({"HOME": "/home/me", "XDG_RUNTIME_DIR": str(runtime), "XDG_STATE_HOME": "/state"})
    assert places.tcp_socket == runtime / "qtools" / "broker.sock"
    assert places.http_socket == runtime / "qtools" / "broker-http.sock"
    assert places.data == Path("/state/qtools/broker")
    assert places.log == Path("/state/qtools/broker.log")
    assert list(runtime.iterdir()) == []


@pytest.mark.parametrize("runtime", [{}, {"XDG_RUNTIME_DIR": ""}, {"XDG_RUNTIME_DIR": "/not/there"}])
def test_without_a_runtime_directory_the_sockets_are_beside_the_data(runtime: dict[str, str]) -> None:
    places = local_broker_paths({"HOME": "/home/me", **runtime})
    assert places.tcp_socket == Path("/home/me/.local/state/qtools/run/broker.sock")
    assert places.data == Path("/home/me/.local/state/qtools/broker")


def test_without_home_it_is_the_user_s_home() -> None:
    assert local_broker_paths({}).data == Path("~/.local/state/qtools/broker").expanduser()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a user that nobody knows")
def test_a_user_without_any_home_is_told_to_set_one() -> None:
    program = (
        "import os, sys; from qtools.errors import StartError; from qtools.paths import local_broker_paths\n"
        "os.setuid(54321)\n"
        "try: local_broker_paths({})\n"
        "except StartError as error: print(error)"
    )
    environ = {"PYTHONPATH": str(Path(__file__).parent.parent)}
    done = subprocess.run([sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == (
        "there is no home directory to keep data in: set HOME or XDG_STATE_HOME\n",
        "",
    )


def test_a_socket_path_that_no_socket_can_have_is_refused_with_advice() -> None:
    fits = "/" + "x" * (LONGEST_SOCKET_PATH - 1 - len("/.local/state/qtools/run/broker-http.sock"))
    assert len(str(local_broker_paths({"HOME": fits}).http_socket)) == LONGEST_SOCKET_PATH
    for longer in (fits + "x", fits[:-1] + "é"):
        with pytest.raises(StartError, match="set XDG_RUNTIME_DIR to a shorter directory"):
            local_broker_paths({"HOME": longer})


# ── the sockets that a lock file names ──────────────────────────────────────────────────────────────


def lock_file(home: Path, *lines: str) -> Path:
    """A lock file as a broker that runs has written it."""
    path = home / ".local/state/qtools/broker/lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))
    path.chmod(0o600)
    return path


@pytest.fixture
def short_home() -> Iterator[Path]:
    """A home directory whose path leaves room for the paths of sockets, which have at most 103 bytes."""
    with tempfile.TemporaryDirectory(prefix="qt-", dir="/tmp") as path:
        yield Path(path)


def socket_directory(home: Path) -> Path:
    made = home / "sockets"
    made.mkdir(mode=0o700)
    return made


def test_the_sockets_that_the_lock_file_names_are_used_in_every_environment(short_home: Path) -> None:
    sockets = socket_directory(short_home)
    lock_file(short_home, "7", f"{sockets}/a.sock", f"{sockets}/b.sock")
    for environ in ({}, {"XDG_RUNTIME_DIR": str(short_home)}, {"XDG_RUNTIME_DIR": "/" + "x" * 200}):
        places = local_broker_paths({"HOME": str(short_home), **environ})
        assert places.tcp_socket == sockets / "a.sock"
        assert places.http_socket == sockets / "b.sock"
        assert places.data == short_home / ".local/state/qtools/broker"
    assert (
        default_broker_paths({"HOME": str(short_home)}).tcp_socket == short_home / ".local/state/qtools/run/broker.sock"
    )


@pytest.mark.parametrize(
    "text",
    [
        "", "7\n", "7\n/a\n", "7\n/a\n/b", "7\na\nb\n", "7\n\n\n", "\n" * 9000, "7\n/a\0\n/b\n",
        f"7\n/{'x' * LONGEST_SOCKET_PATH}\n/b\n",
    ],
)  # fmt: skip
def test_a_lock_file_that_names_no_two_sockets_is_passed_over(short_home: Path, text: str) -> None:
    path = lock_file(short_home)
    path.write_text(text)
    assert named_sockets(path) is None
    assert local_broker_paths({"HOME": str(short_home)}) == default_broker_paths({"HOME": str(short_home)})


def test_a_lock_file_that_others_may_write_is_not_believed(tmp_path: Path) -> None:
    sockets = socket_directory(tmp_path)
    path = lock_file(tmp_path, "7", f"{sockets}/a.sock", f"{sockets}/b.sock")
    assert named_sockets(path) == (sockets / "a.sock", sockets / "b.sock")
    for open_to in (0o620, 0o602):
        path.chmod(open_to)
        assert named_sockets(path) is None
    path.chmod(0o600)
    link = path.with_name("link")
    link.symlink_to(path)
    assert named_sockets(link) is None
    fifo = path.with_name("fifo")
    os.mkfifo(fifo, 0o600)
    assert named_sockets(fifo) is None  # and it is not waited for


def test_sockets_in_a_directory_that_others_may_write_to_are_not_believed(tmp_path: Path) -> None:
    sockets = socket_directory(tmp_path)
    path = lock_file(tmp_path, "7", f"{sockets}/a.sock", f"{sockets}/b.sock")
    for open_to in (0o720, 0o702):
        sockets.chmod(open_to)
        assert named_sockets(path) is None
    sockets.chmod(0o755)
    assert named_sockets(path) is not None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to another user")
@pytest.mark.parametrize("what", ["lock file", "directory", "socket"])
def test_what_another_user_owns_is_not_believed(tmp_path: Path, what: str) -> None:
    sockets = socket_directory(tmp_path)
    path = lock_file(tmp_path, "7", f"{sockets}/a.sock", f"{sockets}/b.sock")
    (sockets / "a.sock").write_text("")
    assert named_sockets(path) is not None
    os.chown({"lock file": path, "directory": sockets, "socket": sockets / "a.sock"}[what], 54321, 54321)
    assert named_sockets(path) is None
    assert is_private_socket(sockets / "b.sock") == (what != "directory")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_directory_is_made_that_only_the_user_may_enter(tmp_path: Path) -> None:
    made = tmp_path / "local" / "state" / "qtools"
    make_private(made)
    assert [mode(each) for each in (made, made.parent, made.parent.parent)] == [0o700] * 3
    make_private(made)
    assert mode(made) == 0o700


@pytest.mark.parametrize("open_to", [0o755, 0o770, 0o701, 0o777])
def test_a_directory_that_was_open_to_others_is_closed(tmp_path: Path, open_to: int) -> None:
    made = tmp_path / "qtools"
    made.mkdir()
    made.chmod(open_to)
    make_private(made)
    assert mode(made) == 0o700


def test_a_file_in_the_way_is_told(tmp_path: Path) -> None:
    (tmp_path / "qtools").write_text("")
    for path in (tmp_path / "qtools", tmp_path / "qtools" / "run"):
        with pytest.raises(StartError, match=r"cannot use .*qtools"):
            make_private(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_another_user_s_directory_is_not_used(tmp_path: Path) -> None:
    made = tmp_path / "qtools"
    made.mkdir(mode=0o700)
    os.chown(made, 54321, 54321)
    with pytest.raises(StartError, match="belongs to another user"):
        make_private(made)
