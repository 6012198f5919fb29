"""Names of headers that confluent-kafka would cut off, or would end the process for, are refused."""

from __future__ import annotations

import orjson
import pytest
from harness.shell import Shell

from qtools.engines.kafka.publish.refusals import HeaderNames

NUL = "the name of its header 'a\\x00b' has a NUL byte, which Kafka's client library does not accept"


def test_names() -> None:
    names = HeaderNames()
    for _ in range(2):
        assert names.fault([("trace", b"\0"), ("ä", None), ("", b""), ("n" * 70_000, b"")]) == ""
        assert names.fault([("trace", b"1"), ("a\0b", b"1")]) == NUL
        assert names.fault([("\udcff", b"1")]) == "the name of its header '\\udcff' is not UTF-8"


def test_a_name_on_the_command_line(shell: Shell) -> None:
    for name in ("a\udcff", "a\nb"):
        done = shell.run("q-pipe", "events", "-b", "kafka://127.0.0.1:1", "--header", f"{name}=.x", input=b"{}\n")
        assert done.status == 2
        assert "the name has a control character, or is not UTF-8" in done.err


@pytest.mark.slow
def test_a_name_in_an_envelope(shell: Shell, kafka: str, topic: str) -> None:
    url = f"kafka://{kafka}"
    lines = [
        orjson.dumps({"body": str(number), "headers": {name: "1"}}) for number, name in enumerate(["x", "a\0b", ""])
    ]
    words = ["q-pipe", topic, "-b", url, "--format", "envelope", "--create-topics", "default"]
    done = shell.run(*words, input=b"\n".join(lines))
    assert done.status == 1
    assert NUL in done.err
    done = shell.run(*words, "--on-oversize", "skip", input=b"\n".join(lines))
    assert done.status == 0, done.err
    assert NUL in done.err
    found = shell.run("q-tail", f"{url}/{topic}/own", "--until-empty", "-q", "--format", "envelope", timeout=60)
    names = [next(iter(orjson.loads(line)["headers"])) for line in found.lines]
    assert set(names) == {"x", ""}
