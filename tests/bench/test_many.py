"""bench/many.py: every step is measured at every count, and no process is left behind."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench" / "many.py"
STEPS = {"create", "publish", "finish", "stats", "metrics", "end", "start", "empty", "delete topics"}


@pytest.mark.slow
def test_every_step_is_measured_at_every_count() -> None:
    done = subprocess.run(
        [sys.executable, BENCH, "--counts", "5,20"], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    found: dict[str, set[str]] = {}
    for count, step in re.findall(r"^(\d+) +(\w+(?: \w+)*?)  +[\d.]+ +\d+ +[\d.]+$", done.stdout, re.MULTILINE):
        found.setdefault(count, set()).add(step)
    assert found.keys() == {"5", "20"}
    assert all(steps >= STEPS for steps in found.values())
