"""What README shows is what happens: its `console` blocks are run, and its flag tables name every flag.

A block's lines that begin with `$ ` are commands; what follows is what they print, stdout and stderr together, `…`
standing for anything. The blocks run in order, in one home, as a reader would who types them in.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SCRIPTS = Path(sys.executable).parent
MODULES = [
    "qtools.pipe",
    "qtools.tail",
    "qtools.bridge",
    "qtools.to_file",
    "qtools.to_file verify",
    "qtools.to_file replay",
    "qtools.broker",
    "qtools.pubsub_http",
]


def steps() -> list[tuple[str, str]]:
    """(command, what it prints) of all console blocks."""
    found: list[tuple[str, str]] = []
    for block in re.findall(r"^```console\n(.*?)^```", README, re.MULTILINE | re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, printed = part.partition("\n")
            found.append((command, printed))
    return found


@pytest.fixture
def home() -> Iterator[dict[str, str]]:
    directory = tempfile.mkdtemp(prefix="q-", dir="/tmp")  # a socket's path must be short
    environment = {name: value for name, value in os.environ.items() if not name.startswith("QTOOLS_")}
    environment |= {
        "HOME": directory,
        "XDG_STATE_HOME": f"{directory}/state",
        "XDG_RUNTIME_DIR": directory,
        "PATH": f"{SCRIPTS}:{os.environ['PATH']}",
        "LC_ALL": "C.UTF-8",
    }
    yield environment
    subprocess.run(["q-broker", "stop", "--force"], env=environment, capture_output=True, check=False)
    shutil.rmtree(directory)


@pytest.mark.skipif(not (SCRIPTS / "q-pipe").exists(), reason="the commands are not installed beside this Python")
def test_every_console_block_prints_what_readme_says(home: dict[str, str]) -> None:
    assert len(steps()) > 10
    for command, expected in steps():
        ran = subprocess.run(
            ["bash", "-c", command],
            env=home,
            cwd=home["HOME"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=60,
            text=True,
            check=False,
        )
        pattern = ".*?".join(re.escape(part) for part in expected.split("…"))
        assert re.fullmatch(pattern, ran.stdout, re.DOTALL), f"$ {command}\n{ran.stdout}"


def flags_of(module: str) -> set[str]:
    """The flags of a command, "qtools.tail", or of one within a command, "qtools.to_file verify"."""
    printed = subprocess.run(
        [sys.executable, "-m", *module.split(), "--help"], capture_output=True, text=True, check=True
    ).stdout
    return set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", printed.partition("Options:")[2].partition("Examples:")[0]))


@pytest.mark.parametrize("module", MODULES)
def test_every_flag_is_explained(module: str) -> None:
    flags = flags_of(module)
    assert len(flags) > 8
    assert {flag for flag in flags if f"`{flag}" not in README and f"{flag}`" not in README} == set()


def test_readme_explains_no_flag_that_does_not_exist() -> None:
    known = set().union(*(flags_of(module) for module in MODULES))
    rows = [line for line in README.splitlines() if line.startswith("| `-")]
    assert len(rows) > 20
    named = {flag for line in rows for flag in re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", line.split(" | ")[0])}
    assert named - known == set()
