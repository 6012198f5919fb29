"""Which brokers a command speaks to: flags, else the environment; never two answers."""

from __future__ import annotations

import pytest
from conftest import MakeBroker
from harness.brokers import Broker
from harness.shell import Shell


def test_qtools_nsqd(shell: Shell, broker: Broker, topic: str) -> None:
    environ = {"QTOOLS_NSQD": broker.address}
    assert shell.run("q-pipe", topic, input=b"a\n", environ=environ).status == 0
    done = shell.run("q-tail", f"{topic}/me", "--until-empty", environ=environ)
    assert (done.status, done.out, done.err) == (0, b"a\n", "")


def test_qtools_nsqd_names_several(shell: Shell, make_broker: MakeBroker, topic: str) -> None:
    brokers = [make_broker(), make_broker()]
    environ = {"QTOOLS_NSQD": f"{brokers[0].address}, {brokers[1].address},"}
    assert shell.run("q-pipe", topic, "--replicate", input=b"a\n", environ=environ).status == 0
    assert [broker.bodies(topic) for broker in brokers] == [[b"a"], [b"a"]]


def test_a_flag_comes_before_it(shell: Shell, broker: Broker, topic: str) -> None:
    environ = {"QTOOLS_NSQD": "127.0.0.1:1", "QTOOLS_LOOKUPD": "127.0.0.1:1"}
    assert shell.run("q-pipe", topic, *broker.flags, input=b"a\n", environ=environ).status == 0


def test_qtools_lookupd(shell: Shell, topic: str) -> None:
    done = shell.run("q-pipe", topic, input=b"a\n", environ={"QTOOLS_LOOKUPD": "127.0.0.1:1"})
    assert done.status == 3
    assert "no nsqlookupd answers" in done.err_lines[-1]


@pytest.mark.parametrize("program", ["q-pipe", "q-tail"])
def test_two_answers_are_refused(shell: Shell, program: str) -> None:
    done = shell.run(program, "topic", "--nsqd", "a:1", "--lookupd", "b:2", input=b"")
    assert done.status == 2
    assert "give --nsqd-tcp-address or --lookupd-http-address, not both" in done.err
    both = {"QTOOLS_NSQD": "a:1", "QTOOLS_LOOKUPD": "b:2"}
    done = shell.run(program, "topic", input=b"", environ=both)
    assert done.status == 2
    assert "QTOOLS_NSQD and QTOOLS_LOOKUPD are both set" in done.err


def test_an_http_address_for_each_or_none(shell: Shell) -> None:
    done = shell.run("q-tail", "topic", "--nsqd", "a:1", "--nsqd", "b:2", "--nsqd-http-address", "a:3")
    assert done.status == 2
    assert "give --nsqd-http-address once for each --nsqd-tcp-address" in done.err


def test_an_unusable_address_in_it_is_usage(shell: Shell) -> None:
    done = shell.run("q-tail", "topic", environ={"QTOOLS_NSQD": "not an address"})
    assert done.status == 2
    assert "'not an address' is not HOST:PORT" in done.err
