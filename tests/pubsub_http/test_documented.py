"""The examples of docs/q-pubsub-http.md do what they say: the curl commands and the Python program."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from harness.gateway import Gateway

PAGE = (Path(__file__).parents[2] / "docs/q-pubsub-http.md").read_text(encoding="utf-8")
ADDRESS = "127.0.0.1:8080"


def block(kind: str) -> str:
    found = re.findall(rf"^```{kind}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert len(found) == 1, kind
    return str(found[0])


def served(text: str, gateway: Gateway, topic: str) -> str:
    """`text` as it is at this gateway, with a topic of its own."""
    return text.replace(ADDRESS, gateway.url.removeprefix("http://")).replace("letters", topic)


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl on PATH")
def test_what_curl_prints(gateway: Gateway, topic: str) -> None:
    steps = [step.partition("\n")[::2] for step in re.split(r"^\$ ", block("console"), flags=re.MULTILINE)[1:]]
    assert len(steps) > 4
    for command, printed in steps:
        done = subprocess.run(
            ["bash", "-c", served(command, gateway, topic).replace("curl ", "curl -s ")],
            capture_output=True, timeout=30, check=True, text=True,
        )  # fmt: skip
        assert done.stdout.rstrip("\n") == printed.rstrip("\n"), command


def test_the_python_program(gateway: Gateway, topic: str) -> None:
    program = served(block("python"), gateway, topic)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=30, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "from Python\n"), done.stderr
    gateway.broker.wait_held(topic, "py", 0)


def test_every_parameter_of_sub_is_explained() -> None:
    from qtools.pubsub_http.api.routes import SUBSCRIBE

    for parameter in SUBSCRIBE.parameters:
        assert f"`{parameter.name}`" in PAGE or parameter.name == "topic"
