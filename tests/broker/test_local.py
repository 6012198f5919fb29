"""The private local broker: one of it, found or started, told about, stopped, gone when idle."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from qtools.broker import local_broker
from qtools.broker.lock import holder, try_lock
from qtools.errors import StartError
from qtools.paths import LocalBrokerPaths, local_broker_paths, lock_path, make_private

from .inside import Peer as PeerInside
from .inside import come_true, pub, serving
from .running import until
from .test_program import q_broker


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalBrokerPaths]:
    """Where this test's local broker lives; it is gone at the end."""
    runtime = tmp_path / "run"
    runtime.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    places = local_broker_paths()
    yield places
    pid = holder(places.data)
    if pid:
        os.kill(pid, signal.SIGKILL)
        until(lambda: holder(places.data) is None)


def start(*arguments: str) -> subprocess.Popen[str]:
    """As a client starts it."""
    return subprocess.Popen(
        [sys.executable, "-m", "qtools.broker.local_broker", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def told(process: subprocess.Popen[str]) -> str:
    """All it says on stdout, which it closes by itself."""
    assert process.stdout is not None
    with process.stdout as stdout:
        return stdout.read()


def finish(*processes: subprocess.Popen[str]) -> str:
    """Wait until they are gone; what the last said on stderr."""
    said = ""
    for process in processes:
        assert process.stderr is not None
        with process.stderr as stderr:
            said = stderr.read()
        process.wait(20)
    return said


def say(places: LocalBrokerPaths, data: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
        link.settimeout(10)
        link.connect(str(places.tcp_socket))
        link.sendall(b"  V2" + data)
        return link.recv(100)


def test_it_is_ready_when_it_says_so_and_its_places_are_private(places: LocalBrokerPaths) -> None:
    process = start()
    assert told(process) == f"ready {process.pid}\n"
    assert say(places, pub("t", b"x"))[8:] == b"OK"
    assert holder(places.data) == process.pid
    for place, mode in (
        (places.tcp_socket, 0o600),
        (places.http_socket, 0o600),
        (places.tcp_socket.parent, 0o700),
        (places.data, 0o700),
    ):
        assert place.stat().st_mode & 0o777 == mode
    assert q_broker("stop", "--force").returncode == 0
    finish(process)


def test_five_started_at_once_are_one(places: LocalBrokerPaths) -> None:
    processes = [start() for _ in range(5)]
    lines = sorted(told(process).strip() for process in processes)
    (pid,) = {line.split()[1] for line in lines}
    assert lines == [f"ready {pid}", *[f"running {pid}"] * 4]
    assert q_broker("stop").returncode == 0
    finish(*processes)


def test_what_one_left_that_was_killed_is_no_obstacle(places: LocalBrokerPaths) -> None:
    process = start()
    told(process)
    process.kill()
    finish(process)
    assert places.tcp_socket.exists()
    again = start()
    assert told(again).startswith("ready ")
    assert q_broker("stop").returncode == 0
    finish(again)


def test_one_that_ends_lets_the_next_begin(places: LocalBrokerPaths) -> None:
    first = start()
    told(first)
    first.send_signal(signal.SIGTERM)
    second = start()
    assert told(second).startswith(("ready ", "running "))
    assert q_broker("stop", "--force").returncode == 0
    finish(first, second)


def test_it_goes_when_nobody_comes(places: LocalBrokerPaths) -> None:
    process = start("--idle-exit", "300ms")
    told(process)
    said = finish(process)
    assert process.returncode == 0
    assert "no client for 0.3 s" in said
    assert not places.tcp_socket.exists()
    assert holder(places.data) is None


def test_it_says_why_it_cannot_start(places: LocalBrokerPaths, tmp_path: Path) -> None:
    (tmp_path / "state").write_text("in the way")
    process = start()
    assert told(process).startswith(f"error cannot use {places.data}: ")
    finish(process)
    assert process.returncode == 3
    process = start("--idle-exit", "soon")
    assert told(process).startswith("error 'soon' is not a duration")
    finish(process)


async def test_it_stays_while_a_client_is_there_and_while_it_holds_messages() -> None:
    async with serving(idle_exit=0.1) as daemon:
        peer = await PeerInside.to(daemon, pub("t", b"x"))
        assert await peer.answer() == b"OK"
        daemon.end_if_idle(daemon.broker.now())
        assert not daemon.broker.stopping
        await peer.close()
        await come_true(lambda: not daemon.tcp_server.connections)  # type: ignore[union-attr]
        daemon.end_if_idle(daemon.broker.now())
        assert not daemon.broker.stopping
        daemon.broker.topics["t"].empty(daemon.broker.now(), time.time_ns())
        await come_true(lambda: daemon.broker.stopping)


async def test_whoever_comes_as_it_goes_is_refused_and_not_forgotten() -> None:
    async with serving(idle_exit=60) as daemon:
        host, _, port = daemon.tcp_address.rpartition(":")
        link = socket.create_connection((host, int(port)))  # in the queue, and not yet accepted
        link.sendall(b"  V2" + pub("t", b"x"))
        daemon.end_if_idle(daemon.broker.now())
        assert daemon.broker.stopping
        link.setblocking(False)

        def ended() -> bool:
            try:
                data = link.recv(100)
            except BlockingIOError:
                return False
            except ConnectionError:
                return True
            assert data == b""
            return True

        await come_true(ended)
        assert daemon.broker.held() == 0
        link.close()


# ── q-broker status, q-broker stop ──────────────────────────────────────────────────────────────────


def test_status_and_stop_without_one(places: LocalBrokerPaths) -> None:
    done = q_broker("status")
    assert (done.returncode, done.stdout) == (1, "the local broker is not running\n")
    done = q_broker("stop")
    assert (done.returncode, done.stdout) == (0, "the local broker is not running\n")


def test_status_tells_and_what_waits_is_there_after_a_stop(places: LocalBrokerPaths) -> None:
    process = start()
    told(process)
    say(places, pub("letters", b"a") + pub("letters", b"b"))
    say(places, b"SUB letters me\nRDY 0\n")
    for came in (2, 0):  # counted from the start on, as in nsqd
        done = q_broker("status")
        assert done.returncode == 0
        lines = done.stdout.splitlines()
        assert lines[0].startswith(f"the local broker is running: pid {process.pid}, up ")
        assert f"tcp     {places.tcp_socket}" in lines
        assert f"data    {places.data}" in lines
        assert f"topic   letters: depth 0, {came} published since it started" in lines
        assert "        letters/me: depth 2, in flight 0, deferred 0, clients 0" in lines
        done = q_broker("stop")
        assert (done.returncode, done.stdout) == (0, f"the local broker (pid {process.pid}) has stopped\n")
        finish(process)
        process = start()
        told(process)
    q_broker("stop")
    finish(process)


def test_one_that_does_not_answer_is_stopped_by_force_only(places: LocalBrokerPaths) -> None:
    process = start()
    told(process)
    places.http_socket.unlink()
    done = q_broker("stop")
    assert done.returncode == 1
    assert f"the local broker does not answer on {places.http_socket}" in done.stderr
    done = q_broker("stop", "--force")
    assert (done.returncode, done.stdout) == (0, f"the local broker (pid {process.pid}) has stopped\n")
    finish(process)


@pytest.mark.parametrize(
    ("what", "error"),
    [
        ("no socket", "pid {pid} holds {lock}, which names no socket of yours to reach it by: "),
        ("removed", "pid {pid} is the local broker, and its socket {socket} was removed: "),
        ("silent", "pid {pid} holds {lock} and does not answer on {socket}: "),
    ],
)
def test_one_that_holds_the_lock_and_cannot_be_reached(
    what: str, error: str, places: LocalBrokerPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_broker, "PATIENCE", 0.1)
    for directory in (places.data, places.tcp_socket.parent):
        make_private(directory)
    sockets = () if what == "no socket" else (places.tcp_socket, places.http_socket)
    held = try_lock(places.data, sockets)
    assert held is not None
    if what == "silent":
        places.tcp_socket.touch()
    try:
        with pytest.raises(StartError) as refused:
            local_broker.become_the_one(places)
    finally:
        os.close(held)
    begin = error.format(pid=os.getpid(), lock=lock_path(places.data), socket=places.tcp_socket)
    advice = "`q-broker stop --force` ends it in order, and the next command starts a new one"
    assert str(refused.value) == begin + advice


def test_a_directory_where_its_socket_should_be(places: LocalBrokerPaths) -> None:
    make_private(places.tcp_socket.parent)
    places.tcp_socket.mkdir()
    process = start()
    assert told(process) == f"error cannot remove {places.tcp_socket}: is a directory\n"
    assert "Traceback" not in finish(process)
    assert process.returncode == 3


def test_the_lock_is_held_by_one_and_names_it(places: LocalBrokerPaths) -> None:
    places.data.mkdir(parents=True)
    assert holder(places.data) is None
    held = try_lock(places.data)
    assert held is not None
    assert try_lock(places.data) is None
    assert holder(places.data) == os.getpid()
    os.close(held)
    assert holder(places.data) is None
