"""q-bridge --routes: a file says where messages go; it is tested before it is used, and read again on SIGHUP."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from harness.brokers import Broker
from harness.shell import Shell
from harness.waiting import wait_until

pytestmark = pytest.mark.forks

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path, topic: str) -> Write:
    """Writes a routes file; T stands for the test's topic."""

    def to_disk(text: str) -> Path:
        path = tmp_path / "routes.toml"
        path.write_text(text.replace("T.", f"{topic}."))
        return path

    return to_disk


FILE = r"""
[[route]]
name = "big"
when = '.type == "purchase" and .amount > 100'
to = "T.big"
select = '{amount}'
last = true

[[route]]
when = '.type'
to = ['T.\(.type)', "T.all"]

[default]
to = "T.rest"

[[test]]
message = '{"type": "purchase", "amount": 150}'
to = ["T.big"]
"""


def body(**some: object) -> bytes:
    return json.dumps(some).encode()


def test_each_message_goes_where_the_file_says(shell: Shell, broker: Broker, topic: str, write: Write) -> None:
    some = [body(type="purchase", amount=nth) for nth in range(99, 103)] + [body(type="look"), body(x=1), b"7"]
    broker.fill(topic, some)
    done = shell.run("q-bridge", topic, "--routes", write(FILE), "--until-empty", *broker.flags)
    assert done.status == 0, done.err
    assert broker.bodies(f"{topic}.big") == [b'{"amount":101}', b'{"amount":102}']
    assert broker.bodies(f"{topic}.purchase") == some[:2]
    assert broker.bodies(f"{topic}.all") == [*some[:2], some[4]]
    assert broker.bodies(f"{topic}.look") == [some[4]]
    assert broker.bodies(f"{topic}.rest") == [some[5]]
    (dead,) = broker.bodies(f"{topic}.dead")  # .type of a number
    assert json.loads(dead)["route"] == "big"
    assert "6 routed, 1 dead-lettered" in done.err


def test_without_a_default_the_rest_is_finished_and_counted(
    shell: Shell, broker: Broker, topic: str, write: Write
) -> None:
    broker.fill(topic, [body(n=nth) for nth in range(10)])
    words = ["--routes", write("[[route]]\nwhen='.n > 6'\nto='T.x'"), "--until-empty"]
    done = shell.run("q-bridge", topic, *words, *broker.flags)
    assert "3 routed, 7 filtered" in done.err
    assert len(broker.bodies(f"{topic}.x")) == 3


def test_where_comes_before_the_routes(shell: Shell, broker: Broker, topic: str, write: Write) -> None:
    broker.fill(topic, [body(n=nth) for nth in range(10)])
    words = ["--routes", write("[default]\nto='T.x'"), "--where", ".n > 6", "--until-empty"]
    done = shell.run("q-bridge", topic, *words, *broker.flags)
    assert "3 routed, 7 filtered" in done.err


# ── its own tests ──


def test_check(shell: Shell, write: Write) -> None:
    path = write(FILE)
    done = shell.run("q-bridge", "--check", path)
    assert (done.status, done.out.decode(), done.err) == (0, f"{path}: 2 routes, 1 test, all right\n", "")
    write(FILE + '[[test]]\nname = "small"\nmessage = \'{"type": "x"}\'\nto = ["T.big"]\n')
    done = shell.run("q-bridge", "--check", path)
    assert (done.status, done.out) == (1, b"")
    assert "test 2 ('small'): the message should go to " in done.err
    write("[[route]]\nto = 'a'\nwhen = '.x ='\n")
    done = shell.run("q-bridge", "--check", path)
    assert done.status == 1
    assert "route 1: when: expression '.x =', column 4" in done.err
    assert len(done.err_lines) == 1
    assert shell.run("q-bridge", "events", "--check", path).status == 2
    done = shell.run("q-bridge", "--check", "nothing.toml")
    assert done.status == 1
    assert "cannot read the routes file nothing.toml: No such file" in done.err


def test_a_file_whose_tests_do_not_hold_is_not_used(shell: Shell, broker: Broker, topic: str, write: Write) -> None:
    path = write(FILE + "[[test]]\nmessage = '{}'\nto = []\n[[test]]\nmessage = '1'\nto = []\n")
    broker.fill(topic, [b"{}"])
    done = shell.run("q-bridge", topic, "--routes", path, "--until-empty", *broker.flags)
    assert done.status == 2
    assert "test 2: the message should go nowhere" in done.err
    assert f"(and 1 more: see q-bridge --check {path})" in done.err
    assert broker.channels(topic) == []


# ── SIGHUP ──


def test_a_reload_takes_effect_and_a_bad_file_is_refused(
    shell: Shell, broker: Broker, topic: str, write: Write
) -> None:
    path = write("[default]\nto = 'T.one'")
    bridge = shell.start("q-bridge", topic, "--routes", path, *broker.flags)
    broker.wait_clients(topic, "q-bridge")
    broker.fill(topic, [b"a"])
    wait_until(lambda: broker.published(f"{topic}.one") == 1)

    write("[default]\nto = 'T.two'")
    bridge.signal(signal.SIGHUP)
    bridge.wait_err(f"reloaded {path}")
    broker.fill(topic, [b"b"])
    wait_until(lambda: broker.published(f"{topic}.two") == 1)

    for text, why in (
        ("[default]\nto = 'T.three'\n[[test]]\nmessage = 'x'\nto = []", "test 1: the message should go nowhere"),
        ("[default]\n", "[default]: it has no to"),
        (f"[default]\nto = '{topic}'", "read and written to on the same brokers"),
    ):
        write(text)
        bridge.signal(signal.SIGHUP)
        bridge.wait_err(why)
    path.unlink()
    bridge.signal(signal.SIGHUP)
    bridge.wait_err("cannot read the routes file")
    broker.fill(topic, [b"c"])
    wait_until(lambda: broker.published(f"{topic}.two") == 2)
    bridge.signal(signal.SIGTERM)
    done = bridge.wait()
    assert done.status == 0
    assert done.err.count("not reloaded, the old routes stay: ") == 4
    assert "3 routed" in done.err_lines[-1]
