"""q-tail --since begins in the past, --peek looks and takes nothing: with q-broker; nsqd has no words for either."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from harness.brokers import NSQD, Broker
from harness.shell import Shell

pytestmark = pytest.mark.forks

MakeBroker = Callable[..., Broker]


@pytest.mark.parametrize("words", [["--since", "10m"], ["--peek"]])
def test_nsqd_cannot_and_that_is_said(shell: Shell, broker: Broker, topic: str, words: list[str]) -> None:
    if broker.kind != NSQD:
        pytest.skip("q-broker can")
    broker.create(topic, "archive")
    done = shell.run("q-tail", f"{topic}/archive", *words, *broker.flags)
    assert (done.status, done.out) == (2, b"")
    assert done.err.startswith(f"q-tail: {broker.address} is an nsqd, and {words[0]} needs q-broker")
    assert broker.channels(topic) == ["archive"]


def start(make_broker: MakeBroker, kind: str, *flags: str) -> Broker:
    if kind == NSQD:
        pytest.skip("nsqd has no words for it")
    return make_broker(*flags)


def test_what_was_finished_is_read_again_where_it_is_retained(
    shell: Shell, make_broker: MakeBroker, broker_kind: str, topic: str
) -> None:
    broker = start(make_broker, broker_kind, "--retain=1h")
    broker.create(topic, "archive")
    broker.fill(topic, [b"a", b"b", b"c"])
    assert broker.bodies(topic, "archive") == [b"a", b"b", b"c"]
    done = shell.run("q-tail", topic, "--since", "10m", "-n", "2", *broker.flags)
    assert (done.status, done.out) == (0, b"a\nb\n")
    broker.fill(topic, [b"d"])
    done = shell.run("q-tail", f"{topic}/again", "--since", "10m", "--until-empty", *broker.flags)
    assert (done.status, done.out) == (0, b"a\nb\nc\nd\n")
    done = shell.run("q-tail", f"{topic}/all", "--since", "1000000h", "--until-empty", *broker.flags)  # before 1970
    assert (done.status, done.out) == (0, b"a\nb\nc\nd\n")
    assert sorted(broker.channels(topic)) == ["again", "all", "archive"]
    done = shell.run("q-tail", f"{topic}/again", "--since", "10m", *broker.flags)
    assert (done.status, done.out) == (2, b"")
    assert f"{topic}/again exists already" in done.err
    assert broker.bodies(topic, "archive") == [b"d"]


def test_a_past_that_ended_before_now(shell: Shell, make_broker: MakeBroker, broker_kind: str, topic: str) -> None:
    broker = start(make_broker, broker_kind, "--retain=1h")
    broker.create(topic, "archive")
    broker.fill(topic, [b"a"])
    broker.bodies(topic, "archive")
    done = shell.run("q-tail", f"{topic}/new", "--since", "0", "--until-empty", *broker.flags)
    assert (done.status, done.out) == (0, b"")


def test_memory_has_no_past(shell: Shell, make_broker: MakeBroker, broker_kind: str, topic: str) -> None:
    broker = start(make_broker, broker_kind, "--memory")
    broker.create(topic, "archive")
    done = shell.run("q-tail", topic, "--since", "10m", *broker.flags)
    assert (done.status, done.out) == (2, b"")
    assert f"keeps {topic} in memory only" in done.err


def test_a_look_takes_nothing(shell: Shell, broker: Broker, topic: str) -> None:
    if broker.kind == NSQD:
        pytest.skip("nsqd has no words for it")
    broker.create(topic, "archive")
    bodies = [b"%d" % n for n in range(20)] + [b"\xff\0"]
    broker.fill(topic, bodies)
    for _ in range(2):
        done = shell.run("q-tail", f"{topic}/archive", "--peek", *broker.flags)
        assert (done.status, done.lines) == (0, bodies[:10])
    done = shell.run("q-tail", f"{topic}/archive", "--peek", "-n", "100", "--format", "envelope", *broker.flags)
    told = [json.loads(line) for line in done.lines]
    assert [one["attempts"] for one in told] == [0] * 21
    assert told[-1]["body_base64"] == "/wA="
    done = shell.run("q-tail", f"{topic}/archive", "--peek", "--where", ". > 7", "-n", "20", *broker.flags)
    assert done.lines == bodies[8:20]
    done = shell.run("q-tail", f"{topic}/archive", "--peek", "--where", ". > 16", "-n", "2", *broker.flags)
    assert done.lines == bodies[17:19]  # -n counts what is printed
    delivered = broker.drain(topic, "archive")
    assert [one.body for one in delivered] == bodies
    assert [one.attempts for one in delivered] == [1] * 21
    done = shell.run("q-tail", f"{topic}/archive", "--peek", *broker.flags)
    assert (done.status, done.out) == (0, b"")


def test_a_look_at_what_is_not_there(shell: Shell, broker: Broker, topic: str) -> None:
    if broker.kind == NSQD:
        pytest.skip("nsqd has no words for it")
    done = shell.run("q-tail", f"{topic}/archive", "--peek", *broker.flags)
    assert (done.status, done.out) == (2, b"")
    assert f"{topic}/archive does not exist on any broker" in done.err
    assert broker.topic(topic) is None


def test_a_look_into_a_topic_without_a_channel(shell: Shell, broker: Broker, topic: str) -> None:
    """It shows what the first channel would get, and creates none."""
    if broker.kind == NSQD:
        pytest.skip("nsqd has no words for it")
    bodies = [b"%d" % n for n in range(20)]
    broker.fill(topic, bodies)
    done = shell.run("q-tail", f"{topic}/archive", "--peek", "-n", "5", *broker.flags)
    assert (done.status, done.lines) == (0, bodies[:5])
    assert broker.channels(topic) == []
    done = shell.run("q-tail", topic, "--peek", *broker.flags)
    assert done.status == 2
    assert "as in TOPIC/CHANNEL; if the topic has no channel yet, any name will do" in done.err
    broker.create(topic, "other")
    done = shell.run("q-tail", f"{topic}/archive", "--peek", *broker.flags)
    assert f"{topic}/archive does not exist on any broker" in done.err
    assert [one.body for one in broker.drain(topic, "other")] == bodies


@pytest.mark.parametrize("words", [["--since", "1m"], ["--until-empty"], ["--idle-timeout", "1s"]])
def test_a_look_is_one_look(shell: Shell, words: list[str]) -> None:
    done = shell.run("q-tail", "t/c", "--peek", *words)
    assert done.status == 2
    assert f"it cannot be used with {words[0]}" in done.err


def test_a_look_goes_on_until_as_many_match(shell: Shell, broker: Broker, topic: str) -> None:
    if broker.kind == NSQD:
        pytest.skip("nsqd has no words for it")
    broker.create(topic, "archive")
    bodies = [b"%d" % n for n in range(3000)]
    broker.fill(topic, bodies)
    look = [f"{topic}/archive", "--peek", "--where", ". % 1000 == 999"]
    done = shell.run("q-tail", *look, "-n", "2", *broker.flags)
    assert (done.status, done.lines) == (0, [b"999", b"1999"])
    done = shell.run("q-tail", *look, *broker.flags)
    assert (done.status, done.lines) == (0, [b"999", b"1999", b"2999"])
    assert broker.wait_held(topic, "archive", 3000)


def test_since_asks_every_broker_before_it_makes_a_channel(
    shell: Shell, make_broker: MakeBroker, broker_kind: str, topic: str
) -> None:
    one, two = start(make_broker, broker_kind), start(make_broker, broker_kind)
    one.create(topic, "other")
    two.create(topic, "mine")
    done = shell.run("q-tail", f"{topic}/mine", "--since", "10m", *one.flags, *two.flags)
    assert (done.status, done.out) == (2, b"")
    assert f"{topic}/mine exists already" in done.err
    assert one.channels(topic) == ["other"]


class Nonsense(ThreadingHTTPServer):
    """The HTTP API of a q-broker, but for what it answers to /channel/peek."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.peek = b""
        self.flags = ["--nsqd", "127.0.0.1:1", "--nsqd-http-address", f"127.0.0.1:{self.server_port}"]


class _Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Nonsense)
        body = self.server.peek if self.path.startswith("/channel/peek") else b'{"durable": true}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def nonsense() -> Iterator[Nonsense]:
    with Nonsense() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    "answer",
    [
        b"OK", b"[]", b"{}", b'{"messages": null}', b'{"messages": [{}]}', b'{"messages": [5]}', b"\xff",
        b'{"messages": [{"timestamp": "x", "attempts": 1, "id": "0123456789abcdef", "body": "b"}]}',
        b'{"messages": [{"timestamp": 1, "attempts": 70000, "id": "0123456789abcdef", "body": "b"}]}',
        b'{"messages": [{"timestamp": 1, "attempts": 1, "id": "0123456789abcdef", "body": 5}]}',
        b'{"messages": [{"timestamp": 1, "attempts": 1, "id": "0123456789abcdef", "body_base64": "%"}]}',
    ],
)  # fmt: skip
def test_what_no_broker_answers_is_no_traceback(shell: Shell, nonsense: Nonsense, answer: bytes) -> None:
    nonsense.peek = answer
    done = shell.run("q-tail", "events/archive", "--peek", *nonsense.flags)
    assert (done.status, done.out) == (1, b"")
    url = f"http://127.0.0.1:{nonsense.server_port}/channel/peek"
    assert done.err == f"q-tail: {url} answers with JSON that is not q-broker's\n"


@pytest.mark.parametrize("program", ["q-bridge", "q-to-file"])
def test_a_run_that_is_started_again_goes_on_where_its_channel_stands(
    shell: Shell, make_broker: MakeBroker, broker_kind: str, topic: str, program: str
) -> None:
    broker = start(make_broker, broker_kind, "--retain=1h")
    broker.create(topic, "archive")
    broker.fill(topic, [b"a", b"b"])
    broker.bodies(topic, "archive")
    where = ["--to", f"{topic}.copy"] if program == "q-bridge" else ["--output-dir", "out"]
    words = [program, f"{topic}/mine", *where, "--since", "all", "--until-empty", *broker.flags]
    assert shell.run(*words).status == 0
    broker.wait_held(topic, "mine", 0)
    broker.fill(topic, [b"c"])
    done = shell.run(*words)
    assert done.status == 0, done.err
    assert f"{topic}/mine exists already, and goes on where it stands: --since is for new channels" in done.err
    if program == "q-bridge":
        assert sorted(broker.bodies(f"{topic}.copy")) == [b"a", b"b", b"c"]
    else:
        lines = b"".join(path.read_bytes() for path in (shell.home / "out").rglob("*.log")).split()
        assert sorted(lines) == [b"a", b"b", b"c"]
