"""What README.md and docs/ show is what happens.

A `console` block is a session: its lines that begin with `$ ` are commands; what follows is what they print, stdout and
stderr together, `…` standing for anything. The blocks of a page run in order, in one home, as a reader would who types
them in. Of the other blocks the commands, the configurations and the programs are checked.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from manual.markdown import PAGES, blocks, flags_in, steps, text

SCRIPTS = Path(sys.executable).parent
# tests/pubsub_http/test_documented.py runs these against a gateway.
ELSEWHERE = {"q-pubsub-http"}
SESSIONS = [page for page in PAGES if steps(page) and page not in ELSEWHERE]


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


def run(command: str, home: dict[str, str]) -> str:
    return subprocess.run(
        ["bash", "-c", command],
        env=home,
        cwd=home["HOME"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=60,
        text=True,
        check=False,
    ).stdout


def matches(printed: str, shown: str) -> bool:
    return re.fullmatch(".*?".join(re.escape(part) for part in shown.split("…")), printed, re.DOTALL) is not None


@pytest.mark.skipif(not (SCRIPTS / "q-pipe").exists(), reason="the commands are not installed beside this Python")
@pytest.mark.parametrize("page", SESSIONS)
def test_every_session_prints_what_the_page_says(page: str, home: dict[str, str]) -> None:
    for command, expected in steps(page):
        if command.startswith("duckdb ") and not (SCRIPTS / "duckdb").exists():
            continue
        printed = run(command, home)
        assert matches(printed, expected), f"$ {command}\n{printed}"


def test_there_are_sessions_on_every_page_that_needs_them() -> None:
    commands = {"q-pipe", "q-tail", "q-bridge", "q-to-file", "q-exec", "q-admin", "q-broker", "qtools", "qtools-soak"}
    subjects = {"concepts", "expressions", "formats", "install", "operations", "recipes", "routes", "schemas"}
    assert set(SESSIONS) == {"README"} | commands | subjects
    assert sum(len(steps(page)) for page in SESSIONS) > 80


def test_the_check_of_a_session_can_fail(home: dict[str, str]) -> None:
    assert matches(run("echo 3 messages", home), "3 mess…\n")
    assert not matches(run("echo 4 messages", home), "3 mess…\n")
    assert not matches(run("echo 3 messages; echo more", home), "3 messages\n")


# ── the flags of every command line that is shown ──


SUBCOMMANDS = "verify|replay|status|stop|check|topics|show|top|create|delete|empty|pause|unpause"


def help_of(*words: str) -> str:
    return subprocess.run([SCRIPTS / words[0], *words[1:], "--help"], capture_output=True, text=True, check=True).stdout


def command_lines(markdown: str) -> Iterator[tuple[list[str], set[str]]]:
    """(command, its flags) of each command in the code of a page, up to a pipe, a semicolon or the end of the line."""
    shown = "\n".join(re.findall(r"^```(?:console|sh|ini|text)\n(.*?)^```$", markdown, re.MULTILINE | re.DOTALL))
    shown += "\n" + "\n".join(re.findall(r"`(q(?:tools|-[a-z-]+) [^`]*)`", markdown))
    shown += "\n" + "\n".join(re.findall(r"args: \[(q-.*)\]", markdown)).replace(",", "")
    for line in shown.replace("\\\n", " ").splitlines():
        if re.match(r"q-[a-z-]+( \w+)?: ", line):
            continue  # what a command prints
        line = re.sub(r"'[^']*'|\"[^\"]*\"", "''", line)
        for found in re.finditer(
            r"(?:^|[\s/=(])(q-(?:pipe|tail|bridge|to-file|exec|admin|pubsub-http|broker))((?: [^|;&#>]*)?)", line
        ):
            command = [found[1]]
            if (word := re.match(rf" ({SUBCOMMANDS})\b", found[2])) is not None:
                command.append(word[1])
            yield command, flags_in(found[2].partition(" -- ")[0])  # what follows is the command of q-exec


def test_every_command_line_has_flags_that_exist() -> None:
    known: dict[tuple[str, ...], set[str]] = {}
    seen = 0
    for page in PAGES:
        for command, flags in command_lines(text(page)):
            key = tuple(command)
            if key not in known:
                known[key] = flags_in(help_of(*command))
            assert flags <= known[key], f"{page}: {' '.join(command)}"
            seen += bool(flags)
    assert seen > 80


def test_the_flags_of_a_command_line_are_found() -> None:
    shown = "a | q-tail x --nsqd h:1 --where '.a | --no' \\\n  -n 2 | q-pipe --deep"
    page = f"```sh\n{shown}\n```\nand `q-to-file verify --json`"
    assert list(command_lines(page)) == [
        (["q-tail"], {"--nsqd", "--where"}),
        (["q-pipe"], {"--deep"}),
        (["q-to-file", "verify"], {"--json"}),
    ]


# ── configurations and programs ──


@pytest.mark.parametrize("page", [page for page in PAGES if any("[[route]]" in each for each in blocks(page, "toml"))])
def test_routes_files_hold_what_their_tests_say(page: str, home: dict[str, str]) -> None:
    for block in blocks(page, "toml"):
        Path(home["HOME"], "routes.toml").write_text(block, encoding="utf-8")
        tests = len(tomllib.loads(block)["test"])
        assert f"{tests} test" in (told := run("q-bridge --check routes.toml", home)), told
        assert told.endswith(", all right\n")


def test_the_token_file_is_accepted(tmp_path: Path) -> None:
    from qtools.pubsub_http.api.tokens import read_tokens

    (block,) = blocks("q-pubsub-http", "toml")
    path = tmp_path / "tokens.toml"
    path.write_text(block, encoding="utf-8")
    path.chmod(0o600)
    assert read_tokens(str(path)) is not None


def test_json_is_json() -> None:
    found = [json.loads(block) for page in PAGES for block in blocks(page, "json")]
    assert len(found) == 3


@pytest.mark.skipif(shutil.which("logrotate") is None, reason="no logrotate on PATH")
def test_logrotate_accepts_its_configuration(tmp_path: Path) -> None:
    (block,) = blocks("q-pipe", "logrotate")
    path = tmp_path / "app"
    path.write_text(block.replace("/var/log/app", str(tmp_path)), encoding="utf-8")
    path.chmod(0o644)
    (tmp_path / "app.log").touch()
    done = subprocess.run(
        ["logrotate", "-d", "-s", tmp_path / "state", path], capture_output=True, text=True, check=False
    )
    assert (done.returncode, "error" in done.stderr) == (0, False), done.stderr


def test_the_program_that_reads_an_archive(home: dict[str, str]) -> None:
    (program,) = blocks("q-to-file", "python")
    name = "<TOPIC>.<HOST>.2026-11-23_08.msgpack.gz"
    run(f"echo hello | q-pipe -q events && q-to-file -q events --until-empty --output archive --format msgpack --gzip"
        f" --host-identifier web1 --filename-format '{name}'", home)  # fmt: skip
    printed = subprocess.run(
        [sys.executable, "-c", program], cwd=home["HOME"], capture_output=True, text=True, check=True
    ).stdout
    assert re.fullmatch(r"events \d{19} b'hello'\n", printed), printed
