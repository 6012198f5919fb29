"""The secret in a profile, in QTOOLS_BROKER and in a URL: it opens the broker, and no text of a command shows it."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from conftest import MakeBroker
from harness.authority import EVERYTHING, Authority
from harness.brokers import Broker
from harness.shell import Shell
from harness.waiting import wait_until

from tests.commands.test_which_broker import COMMANDS, write_profile

SECRET = "s3cret-of-the-test"
OTHER = "another-brokers-secret"


@pytest.fixture
def authority() -> Iterator[Authority]:
    made = Authority({SECRET: EVERYTHING})
    yield made
    made.close()


@pytest.fixture
def guarded(make_broker: MakeBroker, authority: Authority) -> Broker:
    return make_broker(f"--auth-http-address={authority.address}")


WAYS = ["environment", "password", "url", "password_file", "auth_secret_file"]


def named(shell: Shell, way: str, address: str) -> tuple[list[str], dict[str, str]]:
    """Flags and variables that name the broker and hold its secret."""
    if way == "environment":
        return [], {"QTOOLS_BROKER": f"nsq://:{SECRET}@{address}"}
    (shell.home / "secret").write_text(SECRET + "\n")
    text = {
        "password": f'url = "nsq://{address}"\npassword = "{SECRET}"',
        "url": f'url = "nsq://:{SECRET}@{address}"',
    }.get(way, f'url = "nsq://{address}"\n{way} = "~/secret"')
    write_profile(shell, f"[broker.prod]\n{text}\n", 0o600)
    return ["-b", "prod"], {}


@pytest.mark.parametrize("way", WAYS)
def test_it_is_used_and_seen_nowhere(shell: Shell, guarded: Broker, authority: Authority, topic: str, way: str) -> None:
    flags, environ = named(shell, way, guarded.address)
    pipe = shell.start("q-pipe", topic, "-vv", *flags, stdin=subprocess.PIPE, environ=environ)
    tail = shell.start("q-tail", f"{topic}/me", "-n", "1", "-vv", *flags, environ=environ)
    guarded.wait_clients(topic, "me")
    for program in (pipe, tail):
        assert SECRET.encode() not in Path(f"/proc/{program.pid}/cmdline").read_bytes()
    pipe.feed(b"a\n")
    pipe.end_input()
    for done in (pipe.wait(), tail.wait()):
        assert done.status == 0, done.err
        assert SECRET not in done.err
    assert set(authority.asked) == {SECRET}


def test_the_workers_of_q_pubsub_http(shell: Shell, guarded: Broker, topic: str) -> None:
    flags, _ = named(shell, "password", guarded.address)
    gateway = shell.start("q-pubsub-http", "--http-address", "127.0.0.1:0", "--workers", "2", "-vv", *flags)
    found = wait_until(lambda: re.search(r"serving (http://\S+)", gateway.err), what=lambda: gateway.err)
    assert httpx.post(f"{found[1]}/pub", params={"topic": topic}, content=b"a", trust_env=False).status_code == 200
    lines = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert "q-pubsub-http" in lines or "pubsub_http" in lines
    assert SECRET not in lines + gateway.err


def test_a_wrong_one_is_not_shown(shell: Shell, guarded: Broker, topic: str) -> None:
    done = shell.run("q-pipe", topic, input=b"a\n", environ={"QTOOLS_BROKER": f"nsq://:{OTHER}@{guarded.address}"})
    assert (done.status, len(done.err_lines)) == (3, 1)
    assert guarded.address in done.err
    assert OTHER not in done.err


def test_each_broker_of_a_bridge_gets_its_own(
    shell: Shell, make_broker: MakeBroker, guarded: Broker, authority: Authority, topic: str
) -> None:
    """The secret of one profile is not sent to the broker of the other."""
    elsewhere = Authority({OTHER: EVERYTHING})
    try:
        there = make_broker(f"--auth-http-address={elsewhere.address}")
        guarded.fill(topic, [b"a"])
        write_profile(
            shell,
            f'[broker.one]\nurl = "nsq://{guarded.address}"\npassword = "{SECRET}"\n'
            f'[broker.two]\nurl = "nsq://{there.address}"\npassword = "{OTHER}"\n',
            0o600,
        )
        words = [f"{topic}/r", "--to", topic, "-b", "one", "--to-broker", "two", "--until-empty"]
        done = shell.run("q-bridge", *words)
        assert done.status == 0, done.err
        assert there.published(topic) == 1
        assert (set(authority.asked), set(elsewhere.asked)) == ({SECRET}, {OTHER})
    finally:
        elsewhere.close()


def test_a_file_that_others_can_read_is_not_believed(shell: Shell, guarded: Broker, topic: str) -> None:
    named(shell, "password", guarded.address)
    path = shell.home / ".config" / "qtools" / "config.toml"
    path.chmod(0o640)
    done = shell.run("q-pipe", topic, "-b", "prod", input=b"a\n")
    assert (done.status, done.err) == (
        2,
        f"q-pipe: --broker: {path}: [broker.prod] holds a password, and other users can read the file, or it is not"
        f" yours: run chmod 600 {path} (see q-pipe --help)\n",
    )


def test_the_password_of_an_http_address_is_not_shown(shell: Shell) -> None:
    environ = {"QTOOLS_LOOKUPD": f"http://me:{SECRET}@127.0.0.1:1"}
    for words in (["q-tail", "t/me", "-vv"], ["q-pipe", "t", "-vv"], ["q-to-file", "--topic-glob", "*", "-o", "out"]):
        done = shell.run(*words, input=b"a\n", environ=environ)
        assert done.status == 3
        assert "http://127.0.0.1:1: nothing listens there" in done.err
        assert SECRET not in done.err


def test_nor_that_of_a_wrong_address_in_the_environment(shell: Shell) -> None:
    done = shell.run("q-tail", "t/me", environ={"QTOOLS_NSQD": f"nsq://:{SECRET}@h:4150"})
    assert (done.status, done.err) == (
        2,
        "q-tail: address 'h:4150' has a password or an '@'; a URL in QTOOLS_BROKER or in a profile may have a password"
        " (see q-tail --help)\n",
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_no_command_line_takes_it(shell: Shell, name: str) -> None:
    done = shell.run(*COMMANDS[name], "--broker", f"nsq://:{SECRET}@h/", input=b"")
    assert (done.status, done.err) == (
        2,
        f"{name}: nsq://h:4150 has a password: every user of this machine can read a command line; put it into a file"
        f" (--auth-secret-file), a profile, or the environment (QTOOLS_BROKER, QTOOLS_AUTH_SECRET)"
        f" (see {name} --help)\n",
    )


@pytest.mark.parametrize(
    "words",
    [
        ["q-pipe", "ADDRESS"],
        ["q-pipe", "t", "ADDRESS"],
        ["q-pipe", "--routes", "ADDRESS", "ADDRESS"],
        ["q-tail", "ADDRESS/me"],
        ["q-tail", "ADDRESS", "nsq://other/x"],
        ["q-tail", "t", "--nsqd", "ADDRESS"],
        ["q-tail", "t", "--lookupd", "ADDRESS"],
        ["q-tail", "t", "--nsqd", "h", "--nsqd-http-address", "ADDRESS"],
        ["q-bridge", "ADDRESS", "--to", "u"],
        ["q-bridge", "t", "--to", "ADDRESS"],
        ["q-bridge", "t", "--to", r"ADDRESS.\(.x)"],
        ["q-bridge", "t", "--to", "u", "--to-broker", "ADDRESS"],
        ["q-bridge", "t", "--to", "u", "--to-nsqd", "ADDRESS"],
        ["q-bridge", "t", "--to", "u", "--dead-letter-topic", "ADDRESS"],
        ["q-bridge", "ADDRESS", "--check", "ADDRESS"],
        ["q-to-file", "ADDRESS", "-o", "out"],
        ["q-to-file", "t", "-o", "out", "--channel", "ADDRESS"],
        ["q-to-file", "replay", "out", "ADDRESS"],
        ["q-pubsub-http", "ADDRESS"],
    ],
    ids=" ".join,
)
def test_nor_does_a_message_show_it(shell: Shell, words: list[str]) -> None:
    address = f"nsq://:{SECRET}@h/t"
    done = shell.run(*(word.replace("ADDRESS", address) for word in words), input=b"")
    assert done.status in (1, 2, 3)
    assert len(done.err_lines) == 1
    assert SECRET not in done.err + done.out.decode()
