"""Addresses where no nsqd is: one line that says what is there, and the right status."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest
from harness.brokers import Broker
from harness.ports import free_pair
from harness.shell import Done, Shell

pytestmark = pytest.mark.forks

COMMANDS = [["q-pipe", "topic"], ["q-tail", "topic/me"]]


def run(shell: Shell, command: list[str], *words: str) -> Done:
    done = shell.run(*command, *words, input=b"a\n", timeout=20)
    assert len(done.err_lines) == 1, done.err
    assert done.out == b""
    assert done.err.startswith(f"{command[0]}: ")
    return done


@pytest.mark.parametrize("command", COMMANDS)
def test_nobody_listens(shell: Shell, command: list[str]) -> None:
    address = f"127.0.0.1:{free_pair()}"
    done = run(shell, command, "--nsqd", address)
    assert done.status == 3
    assert done.err == f"{command[0]}: {address}: nothing listens there; is nsqd running?\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_an_unknown_host(shell: Shell, command: list[str]) -> None:
    done = run(shell, command, "--nsqd", "no-such-host.invalid:4150")
    assert done.status == 3
    assert done.err == (f"{command[0]}: no-such-host.invalid:4150: the host name 'no-such-host.invalid' is not known\n")


@pytest.mark.parametrize("command", COMMANDS)
def test_the_http_port_for_the_tcp_port(shell: Shell, broker: Broker, command: list[str]) -> None:
    done = run(shell, command, "--nsqd", broker.http)
    assert done.status == 3
    assert done.err == f"{command[0]}: {broker.http} answers HTTP: give nsqd's TCP port, usually 4150\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_no_such_socket(shell: Shell, command: list[str]) -> None:
    done = run(shell, command, "--nsqd", "unix:/no/such.sock")
    assert done.status == 3
    assert "unix:/no/such.sock: there is no such socket; is q-broker running?" in done.err


@pytest.fixture
def speaker() -> Iterator[tuple[str, list[bytes]]]:
    """Somebody who says what he is told to whoever comes, and hangs up."""
    words: list[bytes] = []
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                client, _ = listening.accept()
            except OSError:
                return
            with client:
                client.sendall(words[0])
                client.settimeout(0.2)
                try:
                    while client.recv(4096):
                        pass
                except OSError:
                    pass

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"127.0.0.1:{listening.getsockname()[1]}", words
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    thread.join(5)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("said", "told"),
    [
        (b"SSH-2.0-OpenSSH_9.2p1\r\n", "it speaks SSH's protocol, and not NSQ's"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "answers HTTP"),
        (b"220 mail.example ESMTP \x1b[31mred\r\n", "does not speak NSQ"),
        (b"\0\0\0\x06\0\0\0\x01OK", "the broker"),
        (b"\xff\xff\xff\xff\0\0\0\0", "does not speak NSQ"),
        (b"\x7f\xff\xff\xff\0\0\0\0", "does not speak NSQ"),
        (b"", "closed"),
    ],
)
def test_somebody_who_speaks_something_else(
    shell: Shell, speaker: tuple[str, list[bytes]], command: list[str], said: bytes, told: str
) -> None:
    address, words = speaker
    words.append(said)
    done = run(shell, command, "--nsqd", address)
    assert done.status == 3
    assert address in done.err
    assert told in done.err
    assert "\x1b" not in done.err


@pytest.mark.nsqd
@pytest.mark.parametrize("command", COMMANDS)
def test_nsqlookupd_s_ports(shell: Shell, make_lookupd: object, command: list[str]) -> None:
    assert callable(make_lookupd)
    lookupd = make_lookupd()
    assert run(shell, command, "--nsqd", lookupd.http).status == 3
    assert run(shell, command, "--nsqd", lookupd.address).status == 3


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_somebody_who_says_nothing(shell: Shell, command: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        done = run(shell, command, "--nsqd", address)
    assert done.status == 3
    assert f"{address}: no NSQ handshake within 10 s" in done.err


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("address", "told"),
    [
        (":4150", "did you mean localhost:4150?"),
        ("host:port", "is not HOST:PORT"),
        ("host:0", "between 1 and 65535"),
        ("host:65536", "between 1 and 65535"),
        ("::1", "write it as [ADDRESS]:PORT"),
        ("http://host:4151", "is a http URL; nsqd's TCP address is HOST:PORT"),
        ("unix:relative", "needs an absolute path"),
        ("", "is"),
        ("two hosts:1", "is not HOST:PORT"),
    ],
)
def test_what_is_no_address(shell: Shell, command: list[str], address: str, told: str) -> None:
    done = run(shell, command, f"--nsqd={address}")
    assert done.status == 2
    assert told in done.err
