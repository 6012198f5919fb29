"""Metrics, probes and statsd of the real programs while they run; SIGTERM; every line of talk as JSON."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable

import httpx
import pytest
from harness.brokers import Broker
from harness.metrics import scrape, wait_value, where
from harness.proxy import Proxy
from harness.shell import Shell
from harness.waiting import wait_pipe_full, wait_until

pytestmark = pytest.mark.forks


def wait_ready(base: str, status: int) -> str:
    wait_until(lambda: httpx.get(f"{base}/readyz", timeout=10).status_code == status, what=f"/readyz {status}")
    return httpx.get(f"{base}/readyz", timeout=10).text


def test_q_tail_while_it_runs(shell: Shell, broker: Broker, topic: str) -> None:
    broker.create(topic, "me")
    tail = shell.start("q-tail", f"{topic}/me", "--metrics-address", "0", *broker.flags)
    base = where(tail)
    broker.wait_clients(topic, "me")
    assert httpx.get(f"{base}/healthz").text == "ok\n"
    assert wait_ready(base, 200) == "ready\n"
    broker.fill(topic, [b"%05d" % number for number in range(5000)])
    found = wait_value(base, "qtools_tail_messages_total finished", 5000)
    assert found["qtools_tail_received_total"] == found["qtools_tail_printed_total"] == 5000
    assert found["qtools_tail_bytes_total"] == 25_000
    assert found["qtools_tail_connections source"] == 1
    assert found["qtools_tail_in_flight"] == found["qtools_tail_redelivered_total"] == 0
    assert 0 < found["qtools_tail_lag_seconds"] < 20
    assert found["process_resident_memory_bytes"] > 5e6
    tail.signal(signal.SIGTERM)
    assert tail.wait(5).status == 0
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{base}/healthz")


def test_what_came_before_is_counted_as_redelivered(shell: Shell, broker: Broker, topic: str) -> None:
    broker.create(topic, "me")
    broker.fill(topic, [b"a", b"b", b"c"])
    reader = broker.reader(topic, "me", ready=2)
    held = reader.take(2)
    reader.ready(0)
    reader.requeue(held)
    reader.close()
    tail = shell.start("q-tail", f"{topic}/me", "--metrics-address", "0", *broker.flags)
    found = wait_value(where(tail), "qtools_tail_messages_total finished", 3)
    assert found["qtools_tail_redelivered_total"] == 2
    tail.signal(signal.SIGTERM)
    assert tail.wait(5).status == 0


def test_a_lost_broker_is_not_ready_and_a_reconnect_is_counted(
    shell: Shell, broker: Broker, topic: str, make_proxy: Callable[[Broker], Proxy]
) -> None:
    proxy = make_proxy(broker)
    tail = shell.start("q-tail", f"{topic}/me", "--metrics-address", "0", *proxy.flags)
    base = where(tail)
    wait_ready(base, 200)
    proxy.refuse()
    assert wait_ready(base, 503) == "no nsqd is connected\n"
    assert httpx.get(f"{base}/healthz").status_code == 200
    assert scrape(base)["qtools_tail_connections source"] == 0
    proxy.accept()
    wait_ready(base, 200)
    assert scrape(base)["qtools_tail_reconnects_total source"] == 1
    tail.signal(signal.SIGTERM)
    assert tail.wait(5).status == 0


def test_q_pipe_while_it_runs(shell: Shell, broker: Broker, topic: str) -> None:
    pipe = shell.start("q-pipe", topic, "--metrics-address", "0", *broker.flags, stdin=subprocess.PIPE)
    base = where(pipe)
    for number in range(1, 4):
        pipe.feed(b"a line\n\n" * 10)
        found = wait_value(base, "qtools_pipe_published_total", number * 10)
    found = wait_value(base, "qtools_pipe_messages_total finished", 30)
    assert found["qtools_pipe_messages_total empty"] == 30
    assert found["qtools_pipe_bytes_total"] == 180
    assert found["qtools_pipe_published_bytes_total"] > 180
    assert found["qtools_pipe_publish_seconds_count"] == 30
    assert 0 < found["qtools_pipe_publish_seconds_sum"] < 30 * 5
    assert found["qtools_pipe_connections destination"] == 1
    assert found["qtools_pipe_unanswered"] == found["qtools_pipe_resent_total"] == 0
    assert wait_ready(base, 200) == "ready\n"
    pipe.end_input()
    assert pipe.wait().status == 0


def test_what_was_sent_again_is_counted(
    shell: Shell, broker: Broker, topic: str, make_proxy: Callable[[Broker], Proxy]
) -> None:
    proxy = make_proxy(broker)
    pipe = shell.start("q-pipe", topic, "--metrics-address", "0", *proxy.flags, stdin=subprocess.PIPE)
    base = where(pipe)
    wait_ready(base, 200)
    proxy.stall()
    pipe.feed(b"one\ntwo\n")
    wait_value(base, "qtools_pipe_unanswered", 1)
    proxy.cut()
    proxy.resume()
    found = wait_value(base, "qtools_pipe_published_total", 2)
    assert found["qtools_pipe_resent_total"] == 2
    assert found["qtools_pipe_reconnects_total destination"] == 1
    pipe.end_input()
    assert pipe.wait().status == 0


def test_statsd_hears_of_it_all(shell: Shell, broker: Broker, topic: str) -> None:
    broker.create(topic, "me")
    broker.fill(topic, [b"x" * 10] * 1000)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as statsd:
        statsd.bind(("127.0.0.1", 0))
        statsd.settimeout(20)
        address = f"localhost:{statsd.getsockname()[1]}"
        words = ["--statsd-address", address, "--statsd-interval", "100ms", "--statsd-prefix", "team"]
        tail = shell.start("q-tail", f"{topic}/me", *words, *broker.flags)
        counted, gauges = 0, set()
        while counted < 1000:
            for line in statsd.recv(65536).decode().splitlines():
                name, value, kind = re.fullmatch(r"([\w.]+):([\d.]+)\|(c|g)", line).groups()  # type: ignore[union-attr]
                assert name.startswith("team.qtools.tail.")
                if name == "team.qtools.tail.messages.finished":
                    counted += int(value)
                if kind == "g":
                    gauges.add(name)
        assert counted == 1000
        assert {f"team.qtools.tail.{name}" for name in ("in_flight", "connections.source", "lag_seconds")} <= gauges
        tail.signal(signal.SIGTERM)
        assert tail.wait(5).status == 0


def test_a_statsd_that_is_not_there_ends_nothing(shell: Shell, broker: Broker, topic: str) -> None:
    broker.create(topic, "me")
    broker.fill(topic, [b"a"])
    words = ["--statsd-address", "statsd.invalid", "--statsd-interval", "100ms"]
    tail = shell.start("q-tail", f"{topic}/me", *words, *broker.flags)
    tail.wait_err("cannot send to statsd at statsd.invalid:8125: ")
    tail.wait_out(2)
    tail.signal(signal.SIGTERM)
    done = tail.wait(10)
    assert (done.status, done.out, len(done.err_lines)) == (0, b"a\n", 1)


@pytest.mark.parametrize("seconds", [0.5, 1.5])
def test_sigterm_waits_as_long_as_it_was_told_and_no_longer(
    shell: Shell, broker: Broker, topic: str, seconds: float
) -> None:
    broker.create(topic, "me")
    broker.fill(topic, [b"%05d " % number + b"x" * 994 for number in range(3000)])
    read, write = os.pipe()
    words = ["--drain-timeout", f"{seconds}s", "--metrics-address", "0"]
    tail = shell.start("q-tail", f"{topic}/me", *words, *broker.flags, stdout=write)
    os.close(write)
    base = where(tail)
    wait_pipe_full(read)
    begun = time.monotonic()
    tail.signal(signal.SIGTERM)
    assert wait_ready(base, 503) == "stopping after SIGTERM\n"
    done = tail.wait(10)
    taken = time.monotonic() - begun
    assert (done.status, len(done.err_lines)) == (0, 1)
    assert seconds <= taken < seconds + 2  # the write has a second to let go
    os.close(read)


def test_sigterm_lets_a_write_under_way_end(
    shell: Shell, broker: Broker, topic: str, make_proxy: Callable[[Broker], Proxy]
) -> None:
    proxy = make_proxy(broker)
    words = ["--drain-timeout", "20s", "--metrics-address", "0"]
    pipe = shell.start("q-pipe", topic, *words, *proxy.flags, stdin=subprocess.PIPE)
    base = where(pipe)
    wait_ready(base, 200)
    proxy.stall()
    pipe.feed(b"held up\n")
    wait_value(base, "qtools_pipe_unanswered", 1)
    pipe.signal(signal.SIGTERM)
    wait_ready(base, 503)
    proxy.resume()
    done = pipe.wait(10)
    # Its input had not ended: that is said, with how far all is safe.
    assert (done.status, "confirmed: 1 message, 8 bytes" in done.err) == (1, True)
    assert broker.bodies(topic) == [b"held up"]


@pytest.mark.parametrize("program", ["q-tail", "q-pipe"])
def test_an_address_that_is_taken(shell: Shell, broker: Broker, topic: str, program: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = shell.run(program, topic, "--metrics-address", str(port), *broker.flags, input=b"")
    assert (done.status, done.out) == (3, b"")
    assert done.err_lines[-1] == (
        f"{program}: cannot listen on 127.0.0.1:{port}: address already in use; choose another with --metrics-address"
    )


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--metrics-address", "nowhere"], "'nowhere' is not HOST:PORT, nor unix:/path"),
        (["--metrics-address", "unix:m.sock"], "needs an absolute path"),
        (["--metrics-address", "127.0.0.1:70000"], "is not HOST:PORT"),
        (["--statsd-address", "host:0"], "has the port 0"),
        (["--statsd-address", ":8125"], "is not HOST:PORT"),
        (["--statsd-prefix", "x"], "need --statsd-address"),
        (["--statsd-address", "h", "--statsd-prefix", "a:b"], "may contain only letters"),
        (["--statsd-interval", "1s"], "need --statsd-address"),
        (["--statsd-address", "h", "--statsd-interval", "0s"], "is not at least 100ms"),
        (["--drain-timeout", "soon"], "is not a duration"),
    ],
)
def test_values_that_cannot_be(shell: Shell, words: list[str], told: str) -> None:
    done = shell.run("q-tail", "t", *words)
    assert (done.status, done.out, len(done.err_lines)) == (2, b"", 1)
    assert told in done.err


# ── every line of talk is a JSON object, whatever is wrong ──


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["q-tail"], 2),
        (["q-tail", "t", "--no-such-flag"], 2),
        (["q-tail", "a topic"], 2),
        (["q-tail", "t", "--count", "none"], 2),
        (["q-tail", "t", "--snappy", "--deflate"], 2),
        (["q-tail", "t/c", "--nsqd", "127.0.0.1:1"], 3),
        (["q-tail", "t/c", "--auth-secret-file", "/nowhere"], 3),
        (["q-pipe", "a topic"], 2),
        (["q-pipe", "t", "/nowhere", "--nsqd", "127.0.0.1:1"], 2),
        (["q-broker", "--tcp-address", "nowhere"], 2),
        (["q-broker", "--http-address", "/nowhere/at/all.sock", "--tcp-address", "127.0.0.1:0"], 3),
        (["qtools", "tail", "t", "--no-such-flag"], 2),
    ],
)
@pytest.mark.parametrize("how", [["--log-format", "json"], ["--log-format=json"]])
def test_json_for_whatever_goes_wrong(shell: Shell, words: list[str], status: int, how: list[str]) -> None:
    done = shell.run(*words, *how, input=b"")
    assert (done.status, done.out) == (status, b"")
    (told,) = [json.loads(line) for line in done.err_lines]
    assert told.keys() == {"time", "level", "program", "message"}
    assert (told["level"], told["program"]) == ("error", "q-tail" if "qtools" in words else words[0])


def test_json_for_all_that_is_said_with_much_talk(
    shell: Shell, broker: Broker, topic: str, make_proxy: Callable[[Broker], Proxy]
) -> None:
    proxy = make_proxy(broker)
    tail = shell.start(
        "q-tail", f"{topic}/me", "-vv", "--log-format", "json", "--metrics-address", "0", *proxy.flags
    )  # fmt: skip
    broker.wait_clients(topic, "me")
    proxy.refuse()
    tail.wait_err("trying again")
    tail.signal(signal.SIGTERM)
    done = tail.wait(10)
    told = [json.loads(line) for line in done.err_lines]
    assert len(told) > 3
    assert {each["program"] for each in told} == {"q-tail"}


def test_json_of_a_broker(shell: Shell) -> None:
    broker = shell.start(
        "q-broker", "--log-format", "json", "--tcp-address", "127.0.0.1:0", "--http-address", "127.0.0.1:0"
    )  # fmt: skip
    broker.wait_err("HTTP: listening on")
    broker.signal(signal.SIGTERM)
    done = broker.wait(10)
    assert done.status == 0
    assert {json.loads(line)["program"] for line in done.err_lines} == {"q-broker"}


def test_the_words_behind_two_dashes_are_no_flags(shell: Shell) -> None:
    done = shell.run("q-pipe", "t", "--nsqd", "127.0.0.1:1", "--", "--log-format", "json", input=b"")
    assert (done.status, done.err) == (
        2,
        "q-pipe: cannot read --log-format: No such file or directory (see q-pipe --help)\n",
    )
