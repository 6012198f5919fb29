"""qtools soak on a broker: what it prints, what it leaves, how it ends, and what survives kill -9."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable

import pytest
from harness.brokers import NSQD, Broker
from harness.proxy import Proxy
from harness.shell import Shell, stopped_by
from harness.terminal import Terminal
from harness.waiting import wait_until

from tests.soak.runs import result_of, start_soak, url_of

MakeBroker = Callable[..., Broker]
KILLED = re.compile(r"the reader is process (\d+)")


def test_a_good_run_prints_a_table_and_removes_its_topic(shell: Shell, make_broker: MakeBroker) -> None:
    broker = make_broker()
    done = shell.run("qtools", "soak", url_of(broker), "--count", "5000", "--size", "1KiB")
    assert (done.status, done.err) == (0, "")
    table = dict(re.split(r"\s{2,}|(?<=^.{13})\s", line, maxsplit=1) for line in done.out.decode().splitlines())
    assert table["sent"].startswith("5,000 messages of 1,024 bytes in ")
    assert table["confirmed"].startswith("5,000, ")
    assert table["read"].startswith("5,000, ")
    assert [table[name] for name in ("unconfirmed", "lost", "doubled", "corrupted")] == ["0"] * 4
    assert table["result"] == "nothing lost, nothing corrupted"
    assert broker.stats() == []


def test_json_is_one_line_for_a_program(shell: Shell, broker: Broker, topic: str) -> None:
    done = start_soak(shell, url_of(broker, topic), "--duration", "1s", "--rate", "500").wait()
    result = result_of(done)
    assert done.err == ""
    assert result["ok"]
    assert 450 <= result["sent"] == result["confirmed"] == result["read"] <= 501
    assert set(result["latency_read"]) == {"p50", "p90", "p99", "p99.9", "max"}
    assert 0 < result["latency_read"]["p50"] <= result["latency_read"]["max"] < 20
    assert broker.channels(topic) == []  # its channel is gone, and the topic of the user's stays


def test_messages_of_others_are_counted_and_not_judged(shell: Shell, broker: Broker, topic: str) -> None:
    broker.create(topic, "mine")
    broker.fill(topic, [b"%d of another publisher" % number for number in range(7)])
    done = start_soak(shell, url_of(broker, f"{topic}/mine"), "--count", "100").wait()
    result = result_of(done)
    assert (done.status, result["foreign"], result["corrupted"], result["read"]) == (0, 7, 0, 100)
    assert broker.channels(topic) == ["mine"]


def test_keep(shell: Shell, broker: Broker, topic: str) -> None:
    done = start_soak(shell, url_of(broker, topic), "--count", "100", "--keep").wait()
    result_of(done)
    (channel,) = broker.channels(topic)
    assert channel.startswith("soak-")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--to", "x"], "with --to both topics are named"),
        (["x", "--to", "x"], "--to names the topic x itself"),
        (["x/y", "--to", "z"], "write x without /y"),
        (["x/y#ephemeral"], "the temporary channel y#ephemeral loses messages"),
        (["x y"], "topic name 'x y' has ' '"),
        (["--size", "31"], "31 is less than 32 bytes"),
        (["--count", "0"], "0 is too small"),
        (["--create-topics", "partitions=3"], "NSQ has no partitions"),
    ],
)
def test_wrong_words_are_usage(shell: Shell, broker: Broker, words: list[str], text: str) -> None:
    done = shell.run("qtools", "soak", *words, *broker.flags)
    assert (done.status, done.out) == (2, b"")
    assert text in done.err
    assert done.err.startswith("qtools soak: ")


def test_a_broker_that_is_not_there(shell: Shell) -> None:
    done = shell.run("qtools", "soak", "nsq://127.0.0.1:1")
    assert (done.status, done.out) == (3, b"")
    assert done.err == "qtools soak: 127.0.0.1:1: nothing listens there; is nsqd running?\n"


def test_messages_that_the_broker_refuses(shell: Shell, broker: Broker) -> None:
    done = shell.run("qtools", "soak", url_of(broker), "--size", "2MiB")
    assert (done.status, done.out) == (3, b"")
    assert "a message of 2,097,152 bytes was refused: " in done.err
    assert not [topic for topic in broker.stats() if topic["topic_name"].startswith("soak-")]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_publishing_and_the_rest_is_read(
    shell: Shell, broker: Broker, topic: str, number: signal.Signals
) -> None:
    soak = start_soak(shell, url_of(broker, topic), "--duration", "10m", "--rate", "2000")
    wait_until(lambda: broker.published(topic) > 500, what="messages")
    soak.signal(number)
    done = soak.wait()
    result = result_of(done)
    assert done.status == stopped_by(number)
    assert result["lost"] == result["unconfirmed"] == 0
    assert result["read"] == result["sent"] > 400


def test_a_second_signal_prints_what_is_known(
    shell: Shell, make_broker: MakeBroker, make_proxy: Callable[[Broker], Proxy], topic: str
) -> None:
    """The broker is gone for good: what waits for its confirmation is not confirmed, and not lost."""
    broker = make_broker()
    soak = start_soak(shell, url_of(broker, topic), "--duration", "10m", "--rate", "2000")
    wait_until(lambda: broker.published(topic) > 500, what="messages")
    broker.kill()
    soak.wait_err("trying again")
    soak.signal(signal.SIGTERM)
    wait_until(lambda: not soak.is_running or soak.signal(signal.SIGTERM), what="its end")
    result = result_of(soak.wait())
    assert result["confirmed"] + result["unconfirmed"] == result["sent"]


def test_a_terminal_shows_one_line(shell: Shell, broker: Broker, topic: str, terminal: Terminal) -> None:
    soak = shell.start(
        "qtools", "soak", url_of(broker, topic), "--duration", "10m", "--rate", "500", stderr=terminal.fd
    )
    wait_until(lambda: re.search(rb"messages confirmed .*/s  [\d,]+ read, [\d,]+ unread", terminal.shown), what="it")
    soak.signal(signal.SIGTERM)
    done = soak.wait()
    assert done.status == 0
    assert b"\n" not in terminal.all()


def test_a_broker_that_is_killed_and_keeps_its_word(
    shell: Shell, make_broker: MakeBroker, broker_kind: str, topic: str
) -> None:
    if broker_kind == NSQD:
        pytest.skip("nsqd loses what it has in memory")
    broker = make_broker()
    soak = start_soak(shell, url_of(broker, f"{topic}/soak"), "--duration", "10m", "--rate", "5000")
    for _ in range(3):
        broker.wait_clients(topic, "soak")
        before = broker.published(topic)
        wait_until(lambda before=before: broker.published(topic) > before + 2000, what="messages")  # type: ignore[misc]
        broker.kill()
        broker.start()
    broker.wait_clients(topic, "soak")
    wait_until(lambda: broker.published(topic) > 2000, what="messages")
    soak.signal(signal.SIGTERM)
    result = result_of(soak.wait())
    assert (result["ok"], result["lost"], result["corrupted"], result["unconfirmed"]) == (True, 0, 0, 0)
    assert result["reconnects"]["publisher"] >= 3
    assert result["reconnects"]["reader"] >= 3
    assert result["read"] > 8000


def test_connections_that_are_cut_lose_nothing(
    shell: Shell, make_broker: MakeBroker, make_proxy: Callable[[Broker], Proxy], topic: str
) -> None:
    broker = make_broker("--msg-timeout=1s")
    proxy = make_proxy(broker)
    words = ["--nsqd-http-address", broker.http, "--duration", "10m", "--rate", "3000", "--nsqd", proxy.address]
    soak = start_soak(shell, f"{topic}/soak", *words)
    for cut in range(3):
        broker.wait_clients(topic, "soak")
        before = broker.published(topic)
        wait_until(lambda before=before: broker.published(topic) > before + 1000, what="messages")  # type: ignore[misc]
        proxy.cut()
        proxy.wait_connections(2 * (cut + 2))  # the publisher's and the reader's
    wait_until(lambda: broker.published(topic) > 4000, what="messages")
    soak.signal(signal.SIGTERM)
    result = result_of(soak.wait())
    assert (result["ok"], result["lost"], result["unconfirmed"]) == (True, 0, 0)
    assert result["reconnects"] == {"publisher": 3, "reader": 3}


def test_its_own_reader_may_be_killed(shell: Shell, make_broker: MakeBroker, topic: str) -> None:
    broker = make_broker("--msg-timeout=1s")
    soak = start_soak(shell, url_of(broker, topic), "--duration", "10m", "--rate", "2000", "--separate-reader")
    soak.wait_err("the reader is process ")
    pid = int(KILLED.search(soak.err)[1])  # type: ignore[index]
    for count in range(1, 4):
        before = broker.published(topic)
        wait_until(lambda before=before: broker.published(topic) > before + 1000, what="messages")  # type: ignore[misc]
        os.kill(pid, signal.SIGKILL)
        soak.wait_err(f"process {pid}, was ended by signal 9; it is process ")
        pid = int(re.findall(r"it is process (\d+) now", soak.err)[count - 1])
    wait_until(lambda: broker.published(topic) > 2000, what="messages")
    soak.signal(signal.SIGTERM)
    result = result_of(soak.wait())
    assert (result["ok"], result["lost"], result["reader_restarts"]) == (True, 0, 3)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
