"""q-bridge on a real Kafka: dead letters whose topic does not exist, redrives, tombstones, dry runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from harness.brokers import Broker
from harness.shell import Shell

from tests.engines.kafka.test_envelopes import consume, produce

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def url(kafka: str) -> str:
    return f"kafka://{kafka}"


def create(shell: Shell, url: str, topic: str) -> None:
    """As a user does it: an empty input creates the topic."""
    done = shell.run("q-pipe", topic, "-b", url, "--create-topics", "partitions=2", "-q", input=b"", timeout=60)
    assert (done.status, done.err) == (0, "")


def test_an_empty_input_creates_a_topic(shell: Shell, url: str, topic: str) -> None:
    create(shell, url, topic)
    done = shell.run("q-pipe", topic, "-b", url, "-q", input=b"1\n", timeout=60)
    assert (done.status, done.err) == (0, "")
    done = shell.run("q-pipe", f"{topic}.b", "-b", url, "--create-topics", "replicas=9", input=b"", timeout=60)
    assert done.status == 3, done.err
    assert f"topic {topic}.b: " in done.err_lines[0]


def test_the_cause_comes_before_the_missing_topic(
    shell: Shell, url: str, topic: str, make_broker: Callable[..., Broker]
) -> None:
    broker = make_broker()
    produce(url.partition("//")[2], topic, [(b"k", b'{"t":"zzz"}', [])])
    done = shell.run("q-bridge", f"{url}/{topic}/a", "--to", f"{topic}.\\(.t)", "--until-empty", timeout=60)
    assert done.status == 1
    assert f"a message cannot be delivered: to {topic}.zzz: " in done.err
    assert f"topic {topic}.dead: there is no such topic" in done.err
    produce(url.partition("//")[2], f"{topic}.gone", [(b"k", None, [])])
    to = ["--to", f"nsq://{broker.address}/{topic}", "--until-empty"]
    done = shell.run("q-bridge", f"{url}/{topic}.gone/b", *to, timeout=60)
    assert done.status == 1
    assert "a message cannot be delivered: to " in done.err
    assert "empty" in done.err
    assert done.err.count("NSQ has no keys and no headers: those of the messages are left out") == 1


def test_a_seed_message_is_skipped_and_a_topic_without_letters_is_left(shell: Shell, url: str, topic: str) -> None:
    create(shell, url, topic)
    create(shell, url, f"{topic}.dead")
    shell.run("q-pipe", f"{topic}.dead", "-b", url, input=b"seed\n", timeout=60)
    shell.run("q-pipe", topic, "-b", url, input=b"bad\n", timeout=60)
    done = shell.run("q-bridge", "--redrive", f"{topic}.dead", "-b", url, timeout=60)
    assert (done.status, "these are no dead letters" in done.err) == (1, True)
    assert ".dead.dead" not in done.err
    done = shell.run("q-bridge", f"{url}/{topic}/h", "--to", topic + ".x", "--create-topics", "default",
                     "--where", ".a", "--until-empty", timeout=60)  # fmt: skip
    assert "1 dead-lettered" in done.err
    for routed in ("1 routed, 1 dropped", "0 routed"):
        done = shell.run("q-bridge", "--redrive", f"{topic}.dead", "-b", url, timeout=60)
        assert (done.status, routed in done.err) == (0, True), done.err
    done = shell.run("q-tail", f"{url}/{topic}/check", "--until-empty", timeout=60)
    assert done.lines == [b"bad", b"bad"]


def test_a_dry_run_and_an_explanation_begin_with_the_oldest_message(shell: Shell, url: str, topic: str) -> None:
    create(shell, url, topic)
    shell.run("q-pipe", topic, "-b", url, "--key", '"k"', input=b'{"t":1}\n{"t":2}\n', timeout=60)
    words = ["q-bridge", f"{url}/{topic}", "--to", "out.\\(.t)"]
    done = shell.run(*words, "--dry-run", "--until-empty", timeout=60)
    assert (done.status, done.lines) == (0, [b'goes to out.1\t{"t":1}', b'goes to out.2\t{"t":2}']), done.err
    done = shell.run(*words, "--explain", timeout=60)
    assert done.lines[0] == b'{"t":1}'
    done = shell.run(*words, "--dry-run", "--since", "0s", "--until-empty", timeout=60)
    assert (done.status, done.lines) == (0, []), done.err


def test_tombstones_survive_select_and_schemas(shell: Shell, url: str, topic: str, tmp_path: Path) -> None:
    schema = str(tmp_path / "user.avsc")
    fields = [{"name": "id", "type": "int"}]
    Path(schema).write_text(json.dumps({"type": "record", "name": "user", "fields": fields}))
    for name in (".avro", ".json", ".again"):
        create(shell, url, topic + name)
    kafka = url.partition("//")[2]
    produce(kafka, topic, [(b"a", b'{"id":1}', []), (b"a", None, [])])
    words = ["--to", f"{topic}.json", "--select", ".", "--where", ".id != 7", "--until-empty"]
    assert shell.run("q-bridge", f"{url}/{topic}/g", *words, timeout=60).status == 0
    assert consume(kafka, f"{topic}.json", 2) == [(b"a", b'{"id":1}', []), (b"a", None, [])]
    codec = ["avro", "--schema", schema]
    lines = shell.run("q-tail", f"{url}/{topic}/h", "-f", "envelope", "--until-empty", timeout=60).out
    done = shell.run(
        "q-pipe", f"{topic}.avro", "-b", url, "-f", "envelope", "--encode", *codec, input=lines, timeout=60
    )
    assert done.status == 0, done.err
    assert consume(kafka, f"{topic}.avro", 2) == [(b"a", b"\x02", []), (b"a", None, [])]
    tail = ["q-tail", f"{url}/{topic}.avro/g", "--decode", *codec, "-f", "envelope", "--until-empty"]
    lines = shell.run(*tail, timeout=60).out
    assert [json.loads(line)["body"] for line in lines.splitlines()] == ['{"id":1}', None]
    done = shell.run(
        "q-pipe", f"{topic}.again", "-b", url, "-f", "envelope", "--encode", *codec, input=lines, timeout=60
    )
    assert consume(kafka, f"{topic}.again", 2) == [(b"a", b"\x02", []), (b"a", None, [])], done.err
