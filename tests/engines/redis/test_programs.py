"""The programs with a real server, as a user runs them: in, out, between engines, over crashes."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

import httpx
import orjson
import pytest
from harness.brokers import Q_BROKER, Broker
from harness.shell import Shell
from harness.waiting import wait_until

from tests.engines.clusters.redis import RedisCluster
from tests.engines.redis.test_groups import ask

COUNT = 5000
BINARY = [bytes([value]) * 3 for value in range(256) if value not in b"\n"]


def numbered(count: int, start: int = 0) -> bytes:
    return b"".join(b'{"n":%d,"user":"u%d"}\n' % (number, number % 17) for number in range(start, start + count))


def test_there_and_back_between_engines(shell: Shell, redis: RedisCluster, topic: str, tmp_path: Path) -> None:
    """Lines → Redis → NSQ → Redis → lines: every byte value, in order where there is one connection."""
    broker = Broker(Q_BROKER, tmp_path / "broker", ["--memory"])
    broker.start()
    try:
        url, nsq = redis.url, f"nsq://{broker.address}"
        lines = numbered(COUNT) + b"\n".join(BINARY) + b"\n"
        done = shell.run("q-pipe", topic, "-b", url, "--create-topics", "default", input=lines)
        assert done.status == 0, done.err
        assert shell.run("q-bridge", f"{url}/{topic}/out", "--to", f"{nsq}/there", "--until-empty").status == 0
        back = ["q-bridge", f"{nsq}/there/back", "--to", f"{url}/{topic}.back", "--create-topics", "default"]
        done = shell.run(*back, "--until-empty")
        assert done.status == 0, done.err
        done = shell.run("q-tail", f"{url}/{topic}.back/own", "--until-empty", "-q")
        assert sorted(done.out.split(b"\n")) == sorted(lines.split(b"\n"))
    finally:
        broker.close()


def test_a_bridge_from_a_server_to_itself_is_refused(shell: Shell, redis: RedisCluster, topic: str) -> None:
    shell.run("q-pipe", topic, "-b", redis.url, "--create-topics", "default", input=b"a\n")
    other = redis.url.replace("127.0.0.1", "localhost")
    done = shell.run("q-bridge", f"{redis.url}/{topic}/own", "--to", f"{other}/{topic}")
    assert done.status == 2
    assert topic in done.err
    to = ["--to", f"{other}/{topic}?db=2", "--create-topics", "default"]
    done = shell.run("q-bridge", f"{redis.url}/{topic}/own", *to, "--until-empty")  # another data set
    assert done.status == 0, done.err


def test_look_filter_and_archive(shell: Shell, redis: RedisCluster, topic: str, tmp_path: Path) -> None:
    ask(redis, "XADD", topic, "*", "temperature", 20, "place", "north")
    ask(redis, "XADD", topic, "*", "body", '{"temperature": 30}', "key", "k", "trace", "7")
    where = f"{redis.url}/{topic}/own"
    done = shell.run("q-tail", where, "--peek", "-n", "1", "-q")
    assert (done.status, done.out) == (0, b'{"temperature":"20","place":"north"}\n'), done.err
    words = ["--where", '$key == "k" and $headers.trace == "7"', "--format", "envelope", "--since", "1h"]
    done = shell.run("q-tail", f"{redis.url}/{topic}", *words, "-n", "1", "-q")
    (envelope,) = map(orjson.loads, done.lines)
    assert (envelope["key"], envelope["headers"], envelope["attempts"]) == ("k", {"trace": "7"}, 1)
    done = shell.run("q-to-file", where, "--output-dir", tmp_path / "archive", "--until-empty", "--format", "envelope")
    assert done.status == 0, done.err
    ask(redis, "XGROUP", "CREATE", f"{topic}.again", "own", "$", "MKSTREAM")
    done = shell.run("q-to-file", "replay", tmp_path / "archive", f"{redis.url}/{topic}.again")
    assert done.status == 0, done.err
    fields = [entry[1] for entry in ask(redis, "XRANGE", f"{topic}.again", "-", "+")]
    assert fields[1][2:4] == [b"key", b"k"]
    assert shell.run("q-tail", where, "--until-empty", "-q").out == b""  # the archive has finished them


def test_the_gateway(shell: Shell, redis: RedisCluster, topic: str) -> None:
    shell.run("q-pipe", topic, "-b", redis.url, "--create-topics", "default", input=b"")
    running = shell.start("q-pubsub-http", "--http-address", "127.0.0.1:0", "--broker", redis.url)
    wait_until(lambda: "serving http" in running.err or not running.is_running, what=lambda: running.err)
    found = re.search(r"serving (http://\S+)", running.err)
    assert found, running.err
    with httpx.Client(base_url=found[1], timeout=60, trust_env=False) as client:
        assert client.post(f"/pub?topic={topic}&key=k&header=a:1", content=b"x").status_code == 200
        assert client.post(f"/mpub?topic={topic}", content=b"y\nz\n").status_code == 200
        query = {"topic": topic, "channel": "own", "format": "envelope", "until_empty": "true"}
        found_bodies = [json.loads(line) for line in client.get("/sub", params=query).content.splitlines()]
        assert [each["body"] for each in found_bodies] == ["x", "y", "z"]
        assert (found_bodies[0]["key"], found_bodies[0]["headers"]) == ("k", {"a": "1"})
    running.reap()


def test_dead_letters(shell: Shell, redis: RedisCluster, topic: str) -> None:
    """A message that no destination takes is tried again, and then published with the reason."""
    shell.run("q-pipe", topic, "-b", redis.url, "--create-topics", "default", input=b'{"n":1}\nnot json\n{"n":2}\n')
    words = ["--where", ".n > 0", "--on-error", "dead-letter", "--create-topics", "default"]
    done = shell.run("q-bridge", f"{redis.url}/{topic}/own", "--to", f"{topic}.copy", *words, "--until-empty")
    assert done.status == 0, done.err
    assert ask(redis, "XLEN", f"{topic}.copy") == 2
    ((_, fields),) = ask(redis, "XRANGE", f"{topic}.dead", "-", "+")
    letter = json.loads(fields[1])
    assert (letter["body"], letter["topic"]) == ("not json", topic)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("fault", ["kill", "freeze", "kill the programs"])
def test_numbered_messages_under_faults(shell: Shell, valkey: RedisCluster, fault: str, tmp_path: Path) -> None:
    """q-pipe and q-tail at work, ten faults: none of what was confirmed is missing."""
    (tmp_path / "lines").write_bytes(numbered(100_000))
    url, options = valkey.url, ["--engine-option", "msg_timeout=2s"]
    shell.run("q-pipe", "events", "-b", url, "--create-topics", "default", input=b"")
    pipe = ["q-pipe", "events", tmp_path / "lines", "-b", url, "--rate", "6000", "--checkpoint", tmp_path / "where"]
    tail = ["q-tail", f"{url}/events/own", "-q", *options]
    sender, reader = shell.start(*pipe), shell.start(*tail)
    printed = b""
    for _ in range(10):
        seen = reader.out.count(b"\n")
        wait_until(lambda: reader.out.count(b"\n") > seen + 2000 or not sender.is_running, 60)  # noqa: B023
        if fault == "kill the programs":
            for each in (sender, reader):
                each.signal(signal.SIGKILL)
                each.wait()
            printed += reader.out[: reader.out.rfind(b"\n") + 1]
            sender, reader = shell.start(*pipe), shell.start(*tail)
        elif fault == "kill":
            valkey.kill()
            valkey.start()
        else:
            valkey.freeze()
            wait_until(lambda: True, 1)
            valkey.thaw()
    done = sender.wait(120)
    assert done.status == 0, done.err
    wait_until(lambda: ask(valkey, "XPENDING", "events", "own")[0] == 0, 60)
    rest = shell.run("q-tail", f"{url}/events/own", "--until-empty", "-q", *options, timeout=120)
    reader.signal(signal.SIGTERM)
    printed += reader.wait(60).out + rest.out
    numbers = [json.loads(line)["n"] for line in printed.splitlines()]
    assert set(numbers) == set(range(100_000))
    assert len(numbers) - len(set(numbers)) < 60_000
