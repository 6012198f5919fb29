"""contrib/: systemd accepts the units, their commands accept the arguments, and the metrics of the alerts exist."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import MakeBroker
from harness.brokers import Q_BROKER
from harness.shell import ROOT, Shell

from qtools.cli.metrics.metric_sets import prefix_of

UNITS = sorted((ROOT / "contrib/systemd").glob("*.service"))
BIN = Path(sys.executable).parent
SYSTEMD = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze on PATH")
RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((ROOT / "contrib/prometheus/qtools.rules.yml").read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
]


def test_there_are_units() -> None:
    assert [path.stem for path in UNITS] == ["q-bridge", "q-broker", "q-exec", "q-pubsub-http", "q-to-file"]


@SYSTEMD
def test_systemd_finds_no_fault(tmp_path: Path) -> None:
    for path in UNITS:
        (tmp_path / path.name).write_text(path.read_text().replace("/usr/local/bin/", f"{BIN}/"))
    words = ["systemd-analyze", "verify", "--man=no", *tmp_path.glob("*.service")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@SYSTEMD
@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_little_is_exposed(path: Path) -> None:
    """systemd's scale ends at 10.0 (100 here), which is what a service without any hardening has."""
    words = ["systemd-analyze", "security", "--offline=true", "--threshold=20", path]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_the_arguments_of_the_example_exist(path: Path, shell: Shell) -> None:
    found = re.search(r"^#   ARGUMENTS=(.*)$", path.read_text(), re.MULTILINE)
    assert found is not None
    arguments = shlex.split(found[1].partition(" -- ")[0])
    done = shell.run(path.stem, *arguments, "--help")
    assert done.status == 0, done.err


def metrics_in(expression: str) -> set[str]:
    """The names of metrics in an expression of Prometheus; a choice of commands in a name gives one name for each."""
    names = set(re.findall(r"\b(?:qtools|q_broker|nsq)_[a-z_]+\b(?!\()", re.sub(r'"[^"]*"', "", expression)))
    for choice in re.findall(r'__name__=~"([^"]*)"', expression):
        found = re.fullmatch(r"(\w+)\(([a-z_|]+)\)(\w+)", choice)
        assert found is not None, choice
        names |= {f"{found[1]}{command}{found[3]}" for command in found[2].split("|")}
    return names


def test_the_names_are_found_in_an_expression() -> None:
    assert metrics_in('rate({__name__=~"qtools_(tail|to_file)_x"}[5m]) > 0 and deriv(nsq_y[5m]) > 0') == {
        "qtools_tail_x", "qtools_to_file_x", "nsq_y",
    }  # fmt: skip


def documented() -> set[str]:
    """The metrics that docs/operations.md lists, with the names of the commands that have them."""
    page = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
    cells = [line.split(" | ")[0] for line in page.splitlines() if line.startswith("| `")]
    names = {re.sub(r"\{.*", "", name) for cell in cells for name in re.findall(r"`([a-z_]+(?:\{[a-z,]+\})?)`", cell)}
    shared = {
        f"{prefix_of(command)}_{name}" for command in ("q-tail", "q-bridge", "q-to-file", "q-exec") for name in names
    }
    return shared | {f"qtools_{name}" for name in names}


@pytest.mark.parametrize("broker_kind", [Q_BROKER], indirect=True)
def test_each_metric_of_an_alert_exists(make_broker: MakeBroker, shell: Shell, topic: str) -> None:
    broker = make_broker()
    sent = shell.run("q-pipe", topic, *broker.flags, input=b"a\n")
    assert sent.status == 0, sent.err
    assert shell.run("q-tail", f"{topic}/me", "-n", "1", *broker.flags).status == 0
    with urllib.request.urlopen(f"http://{broker.http}/metrics") as answer:
        scraped = set(re.findall(r"^# TYPE (\S+)", answer.read().decode(), re.MULTILINE))
    known = documented() | scraped
    for rule in RULES:
        names = metrics_in(rule["expr"])
        assert names, rule
        assert names <= known, rule["alert"]


def test_the_page_explains_each_alert() -> None:
    page = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
    for rule in RULES:
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert f"`{rule['alert']}`" in page
