"""q-broker as a program: its flags, its lines, its exit status, its signals."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from harness.shell import NOT_MEASURED
from harness.waiting import children_cpu

from .inside import mpub, pub
from .running import Running, running, until

# Brokers that tests of other checkouts run at the same time must not be in the way, nor what they left behind.
STATE = tempfile.TemporaryDirectory(prefix="qt-state-")


def q_broker(*arguments: str, timeout: float = 20) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "qtools.broker", *arguments],
        env={"XDG_STATE_HOME": STATE.name, **os.environ},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def talk(address: tuple[str, int], said: bytes, wanted: int) -> bytes:
    """Say something, and read `wanted` bytes of answer."""
    with socket.create_connection(address, timeout=10) as link:
        link.sendall(b"  V2" + said)
        heard = b""
        while len(heard) < wanted and (data := link.recv(1 << 16)):
            heard += data
        return heard


@NOT_MEASURED
def test_help_says_what_it_is_and_costs_little() -> None:
    times = []
    for _ in range(3):
        began = children_cpu()
        told = q_broker("--help")
        times.append(children_cpu() - began)
    assert told.returncode == 0
    assert "--max-msg-size" in told.stdout
    assert "status" in told.stdout
    assert min(times) < 0.3  # s of CPU, as the time that passes depends on what else the machine does; 0.05 here


@NOT_MEASURED
def test_help_imports_nothing_that_it_does_not_need() -> None:
    code = "import qtools.broker.command, sys; print(*sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"asyncio", "uvicorn", "httpx", "ssl", "json", "uvloop"} & set(told)


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (["--no-such-flag"], 2, "no-such-flag"),
        (["no-such-command"], 2, "no-such-command"),
        (["--msg-timeout", "soon"], 2, "'soon' is not a duration"),
        (["--max-msg-size", "0"], 2, "less than 1"),
        (["--tcp-address", "nonsense"], 2, "'nonsense' is none to listen on: --tcp-address takes HOST:PORT"),
        (["--tcp-address", "127.0.0.1:99999"], 2, "is none to listen on"),
        (["--tcp-address", "no.such.host.invalid:0"], 3, "no.such.host.invalid is not known"),
        (["--tcp-address", "unix:/no/such/directory/s"], 3, "no such file or directory"),
        (["--tcp-address", "unix:/" + "x" * 200], 3, "more than 103 bytes"),
        (["--tcp-address", "unix:/dev/null"], 3, "a file that is not a socket has this path"),
        (
            ["--tls-cert", "/no/such/file", "--tls-key", "/no/such/file", "--tcp-address", "127.0.0.1:0"],
            3,
            "no such file",
        ),
        (["--tls-required", "--tcp-address", "127.0.0.1:0", "--http-address", ""], 2, "needs a certificate"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(arguments: list[str], status: int, told: str) -> None:
    done = q_broker(*arguments)
    assert done.returncode == status
    assert told in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("q-broker: ")
    assert done.stdout == ""


@pytest.mark.parametrize("which", ["tcp", "http"])
def test_a_port_that_is_taken_is_said_and_nothing_stays_open(which: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        other = {"tcp": "http", "http": "tcp"}[which]
        left = tmp_path / "left"
        done = q_broker(f"--{which}-address", f"127.0.0.1:{port}", f"--{other}-address", f"unix:{left}")
        assert done.returncode == 3
        told = f"cannot listen on 127.0.0.1:{port}: address already in use; choose another with --{which}-address"
        assert done.stderr == f"q-broker: {told}\n"
        assert not left.exists()


def test_a_socket_in_use_is_left_alone_and_a_stale_one_is_replaced(tmp_path: Path) -> None:
    address = f"unix:{tmp_path / 'broker'}"
    first = Running("--tcp-address", address, "--http-address", "", "--memory")
    try:
        until(lambda: any(address in line for line in first.log))
        done = q_broker("--tcp-address", address, "--http-address", "", "--memory")
        assert done.returncode == 3
        assert "another process serves it" in done.stderr
        first.process.kill()
        first.process.wait()
        assert (tmp_path / "broker").exists()
        second = Running("--tcp-address", address, "--http-address", "", "--memory")
        try:
            until(lambda: any(f"TCP: listening on {address}" in line for line in second.log))
            assert second.stop() == 0
            assert not (tmp_path / "broker").exists()
        finally:
            second.close()
    finally:
        first.close()


def test_the_lines_say_where_it_listens_and_nothing_about_messages() -> None:
    with running("--memory") as broker:
        tcp, http = broker.tcp, broker.http
        assert tcp[1] != http[1] != 0
        assert talk(tcp, mpub("t", *[b"x"] * 1000), 10)[8:10] == b"OK"
        assert broker.stop() == 0
        assert broker.log[-2:] == [
            "q-broker: stopping",
            "q-broker: stopped; 1000 unfinished messages were in memory only, and are lost",
        ]
        assert len(broker.log) == 5


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_order(number: signal.Signals) -> None:
    with running() as broker:
        with socket.create_connection(broker.tcp, timeout=10) as link:
            link.sendall(b"  V2" + pub("t", b"x"))
            assert link.recv(100)[8:] == b"OK"
            broker.process.send_signal(number)
            assert link.recv(100) == b""
        assert broker.stop(0) == (-number if number == signal.SIGINT else 0)
        assert not [line for line in broker.log if "Traceback" in line]


def test_a_second_signal_ends_it_at_once() -> None:
    with running() as broker:
        links = [socket.create_connection(broker.tcp, timeout=10) for _ in range(3)]
        for link in links:
            link.sendall(b"  V2NOP\n")
        until(lambda: broker.log)
        broker.process.send_signal(signal.SIGTERM)
        until(lambda: "q-broker: stopping" in broker.log)
        broker.process.send_signal(signal.SIGTERM)
        assert broker.process.wait(5) in (0, 128 + signal.SIGTERM)
        for link in links:
            link.close()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="counts context switches in /proc")
def test_an_idle_broker_does_not_wake_up() -> None:
    def switches(pid: int) -> int:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("voluntary_ctxt")).split()[1])

    with running() as broker:
        assert talk(broker.tcp, pub("t", b"x"), 10)
        pid = broker.process.pid

        def slept_for_a_second() -> bool:
            before = switches(pid)
            time.sleep(1)  # that nothing happens is no event
            return switches(pid) == before

        until(slept_for_a_second)
