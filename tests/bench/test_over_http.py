"""bench/over_http.py: it measures what it says, and a name it does not know is told."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench" / "over_http.py"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "QTOOLS_NSQD_BIN"}
    environment["PATH"] = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    return subprocess.run(
        [sys.executable, BENCH, *arguments], env=environment, capture_output=True, text=True, timeout=100, check=False
    )


@pytest.mark.skipif(
    not Path(sys.executable).with_name("q-pubsub-http").exists(), reason="the commands are not installed"
)
@pytest.mark.slow
def test_every_figure_has_its_runs(tmp_path: Path) -> None:
    told = tmp_path / "told.json"
    done = run("mpub", "sub", "idle", "--rounds", "2", "--count", "10000", "--json", str(told))
    assert done.returncode == 0, done.stderr
    rows = json.loads(told.read_text())
    assert len(rows) == 8
    for row in rows:
        assert len(row["runs"]) == (1 if row["unit"] == "bytes" else 2)
        assert min(row["runs"]) > 100
        assert row["what"] in done.stdout


@pytest.mark.skipif(shutil.which("wrk", path="/usr/bin:/bin") is None, reason="no wrk in /usr/bin")
@pytest.mark.slow
def test_the_brokers_are_held_against_each_other(tmp_path: Path) -> None:
    told = tmp_path / "told.json"
    done = run("broker", "--rounds", "1", "--count", "1000", "--json", str(told))
    assert done.returncode == 0, done.stderr
    first, *others = json.loads(told.read_text())
    assert first["what"].endswith("--memory")  # there is no nsqd
    assert [row["what"].rpartition(" ")[2] for row in others] == ["full", "normal"]
    assert all(" of q-broker, --memory (" in row["beside"] for row in others)


def test_an_unknown_section() -> None:
    done = run("hub")
    assert done.returncode == 2
    assert "there are broker, pub, mpub, sub, idle" in done.stderr
