"""q-pipe --routes: lines to the topics that a routes file says; what cannot be routed is told with its line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from harness.brokers import Broker
from harness.shell import Done, Shell

pytestmark = pytest.mark.forks

ROUTES = r"""
[[route]]
when = '.type == "purchase" and .amount > 100'
to = "T.big"
select = '{amount}'
last = true

[[route]]
when = '.type'
to = 'T.\(.type)'
"""
DEFAULT = "\n[default]\nto = 'T.rest'\n"

LINES = [json.dumps({"type": "purchase" if n % 2 else "look", "amount": n}).encode() for n in range(200)]
OTHER = b'{"n":1}'


@pytest.fixture
def routes(tmp_path: Path, topic: str) -> Path:
    path = tmp_path / "routes.toml"
    path.write_text((ROUTES + DEFAULT).replace("T.", f"{topic}."))
    return path


def pipe(shell: Shell, broker: Broker, routes: Path, lines: list[bytes], *words: str) -> Done:
    return shell.run(
        "q-pipe", "--routes", routes, *words, *broker.flags, input=b"".join(line + b"\n" for line in lines)
    )


def test_each_line_goes_where_the_file_says(shell: Shell, broker: Broker, topic: str, routes: Path) -> None:
    done = pipe(shell, broker, routes, [*LINES, OTHER])
    assert (done.status, done.out) == (0, b""), done.err
    assert "201 messages (" in done.err
    assert f" by {routes}" in done.err
    assert broker.bodies(f"{topic}.big") == [b'{"amount":%d}' % n for n in range(101, 200, 2)]
    assert broker.bodies(f"{topic}.look") == LINES[::2]
    assert broker.bodies(f"{topic}.purchase") == LINES[1:101:2]
    assert broker.bodies(f"{topic}.rest") == [OTHER]


def test_files_and_what_goes_nowhere(shell: Shell, broker: Broker, topic: str, routes: Path, tmp_path: Path) -> None:
    routes.write_text(ROUTES.replace("T.", f"{topic}."))
    for name in ("one", "two"):
        (tmp_path / name).write_bytes(b"\n".join([*LINES[:10], OTHER]))
    words = ["--routes", routes, tmp_path / "one", tmp_path / "two", "--where", ".amount != 0", *broker.flags]
    done = shell.run("q-pipe", *words)
    assert done.status == 0, done.err
    assert "18 messages (" in done.err
    assert "; 4 went nowhere" in done.err  # two by --where, two by the routes
    assert broker.bodies(f"{topic}.look") == LINES[2:10:2] * 2


BAD = b'{"type":"a b"}'


def test_one_that_cannot_be_routed_is_the_end_and_says_how_to_go_on(
    shell: Shell, broker: Broker, topic: str, routes: Path
) -> None:
    lines = [*LINES[:4], BAD, *LINES[4:8]]
    done = pipe(shell, broker, routes, lines)
    assert done.status == 1
    assert "stdin: message 5: route 'route 2': topic name " in done.err_lines[0]
    assert "--on-error skip" in done.err_lines[0]
    assert "confirmed: 4 messages, " in done.err_lines[1]
    assert broker.bodies(f"{topic}.look") == [LINES[0], LINES[2]]
    skip = str(sum(len(line) + 1 for line in lines[:5]))
    assert pipe(shell, broker, routes, lines, "--skip-bytes", skip).status == 0
    assert broker.bodies(f"{topic}.purchase") == LINES[1:8:2]


def test_or_is_left_out_or_passed_on(shell: Shell, broker: Broker, topic: str, routes: Path) -> None:
    lines = [*LINES[:4], BAD, b"no json", *LINES[4:8]]
    done = pipe(shell, broker, routes, lines, "--on-error", "skip")
    assert done.status == 0
    assert "stdin: message 6: it is not JSON" in done.err
    assert "8 messages (" in done.err_lines[-1]
    assert "; 2 that could not be routed left out" in done.err_lines[-1]
    done = pipe(shell, broker, routes, lines, "--on-error", "pass")
    assert done.status == 0
    assert "10 messages (" in done.err_lines[-1]
    assert broker.bodies(f"{topic}.rest") == [BAD, b"no json"]


def test_one_over_the_limit_is_named(shell: Shell, broker: Broker, topic: str, routes: Path) -> None:
    big = json.dumps({"type": "look", "x": "x" * (1 << 20)}).encode()
    done = pipe(shell, broker, routes, [LINES[0], big, LINES[2]])
    assert done.status == 1
    assert "stdin: message 2 was not sent: it has " in done.err_lines[0]
    done = pipe(shell, broker, routes, [LINES[0], big, LINES[2]], "--on-oversize", "skip")
    assert done.status == 0
    assert broker.bodies(f"{topic}.look")[-2:] == [LINES[0], LINES[2]]


def test_one_over_the_limit_before_one_that_cannot_be_routed(
    shell: Shell, broker: Broker, topic: str, routes: Path
) -> None:
    big = json.dumps({"type": "look", "x": "x" * (1 << 20)}).encode()
    done = pipe(shell, broker, routes, [LINES[0], big, BAD, LINES[2]], "--on-oversize", "skip")
    assert done.status == 1
    assert "message 2 was not sent: " in done.err_lines[0]
    assert "message 3: route 'route 2': " in done.err_lines[1]
    assert re.search(r"confirmed: [12] messages?, ", done.err_lines[-1])  # as the blocks were cut
    assert broker.bodies(f"{topic}.look") == [LINES[0]]


def test_a_checkpoint_is_of_its_routes(shell: Shell, broker: Broker, topic: str, routes: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"".join(line + b"\n" for line in LINES[:4]))
    words = ["--checkpoint", tmp_path / "pos", "--routes", routes, source, *broker.flags]
    assert shell.run("q-pipe", *words).status == 0
    with source.open("ab") as more:
        more.write(LINES[4] + b"\n")
    done = shell.run("q-pipe", *words)
    assert done.status == 0
    assert "1 message (" in done.err_lines[-1]
    assert broker.bodies(f"{topic}.look") == LINES[:5:2]
    done = shell.run("q-pipe", topic, "--checkpoint", tmp_path / "pos", source, *broker.flags)
    assert (done.status, "is of another run" in done.err) == (2, True)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--routes", "nothing.toml"], "cannot read the routes file nothing.toml"),
        (["--routes", "R", "--select", ".x"], "in a routes file each route has a select of its own"),
        (["--routes", "R", "./no-such-file"], "cannot read ./no-such-file"),
        (["--on-error", "skip", "topic"], "--on-error goes with"),
        (["a b"], "invalid value for 'TOPIC': topic name 'a b' has ' '"),
    ],
)
def test_what_cannot_be(shell: Shell, routes: Path, words: list[str], told: str) -> None:
    done = shell.run("q-pipe", *[str(routes) if word == "R" else word for word in words], input=b"x\n")
    assert done.status == 2
    assert told in done.err
    assert len(done.err_lines) == 1


def test_pass_needs_a_default(shell: Shell, routes: Path) -> None:
    routes.write_text(ROUTES)
    done = shell.run("q-pipe", "--routes", routes, "--on-error", "pass", input=b"x\n")
    assert (done.status, "needs a [default] with a fixed topic" in done.err) == (2, True)


def test_a_topic_beside_routes_is_taken_for_a_file(shell: Shell, routes: Path) -> None:
    done = shell.run("q-pipe", "shop", "--routes", routes, input=b"{}\n")
    assert (done.status, done.err) == (
        2,
        "q-pipe: with --routes there is no TOPIC; 'shop' is taken for a file, and there is none (see q-pipe --help)\n",
    )
