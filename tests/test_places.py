"""Where the private local broker lives, and that nobody else may enter."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from qtools.errors import StartError
from qtools.places import LONGEST_SOCKET_PATH, local_places, make_private


def test_sockets_are_in_the_runtime_directory_and_data_in_the_state_directory(tmp_path: Path) -> None:
    runtime = tmp_path / "run"
    runtime.mkdir()
    places = local_places({"HOME": "/home/me", "XDG_RUNTIME_DIR": str(runtime), "XDG_STATE_HOME": "/state"})
    assert places.tcp_socket == runtime / "qtools" / "broker.sock"
    assert places.http_socket == runtime / "qtools" / "broker-http.sock"
    assert places.data == Path("/state/qtools/broker")
    assert places.log == Path("/state/qtools/broker.log")
    assert list(runtime.iterdir()) == []


@pytest.mark.parametrize("runtime", [{}, {"XDG_RUNTIME_DIR": ""}, {"XDG_RUNTIME_DIR": "/not/there"}])
def test_without_a_runtime_directory_the_sockets_are_beside_the_data(runtime: dict[str, str]) -> None:
    places = local_places({"HOME": "/home/me", **runtime})
    assert places.tcp_socket == Path("/home/me/.local/state/qtools/run/broker.sock")
    assert places.data == Path("/home/me/.local/state/qtools/broker")


def test_without_home_it_is_the_user_s_home() -> None:
    assert local_places({}).data == Path("~/.local/state/qtools/broker").expanduser()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a user that nobody knows")
def test_a_user_without_any_home_is_told_to_set_one() -> None:
    program = (
        "import os, sys; from qtools.errors import StartError; from qtools.places import local_places\n"
        "os.setuid(54321)\n"
        "try: local_places({})\n"
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
    assert len(str(local_places({"HOME": fits}).http_socket)) == LONGEST_SOCKET_PATH
    for longer in (fits + "x", fits[:-1] + "é"):
        with pytest.raises(StartError, match="set XDG_RUNTIME_DIR to a shorter directory"):
            local_places({"HOME": longer})


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_directory_is_made_that_only_the_user_may_enter(tmp_path: Path) -> None:
    made = tmp_path / "state" / "qtools"
    make_private(made)
    assert mode(made) == 0o700
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
