"""Environments for clients that nobody here wrote, each with what it needs and nothing of ours.

In: what to install. Out: a Python. Made once under the tests' own environment, by whichever test process is first.
"""

from __future__ import annotations

import fcntl
import subprocess
import sys
from pathlib import Path

import pytest

# Beside what `make test` runs in, so that `make clean` takes it away.
ROOM = (Path(sys.prefix) if sys.prefix != sys.base_prefix else Path(__file__).parents[2] / ".venv") / "interop"
PATIENCE = 300.0  # seconds for a registry


def python_with(requirement: str) -> str:
    """A Python that has `requirement`; the test is skipped, with pip's reason, where it cannot be had."""
    name = requirement.partition("=")[0].rstrip("<>~!")
    place, marker = ROOM / name, ROOM / f"{name}.made"
    python = place / "bin" / "python"
    ROOM.mkdir(parents=True, exist_ok=True)
    with (ROOM / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not marker.exists() or marker.read_text() != requirement or not python.exists():
            marker.unlink(missing_ok=True)
            # Without pip, which takes longer to install than a client: the pip of our own environment installs that.
            venv = [sys.executable, "-m", "venv", "--clear", "--without-pip", str(place)]
            subprocess.run(venv, check=True, capture_output=True)
            try:
                pip = [
                    sys.executable,
                    "-m",
                    "pip",
                    "--python",
                    str(python),
                    "--no-input",
                    "--disable-pip-version-check",
                ]
                done = subprocess.run(
                    [*pip, "install", "-q", requirement],
                    capture_output=True,
                    text=True,
                    timeout=PATIENCE,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                pytest.skip(f"pip did not install {requirement} within {PATIENCE:g} s")
            if done.returncode:
                told = [line for line in done.stderr.splitlines() if line.startswith("ERROR:")] or ["no reason given"]
                pytest.skip(f"pip cannot install {requirement}: {told[-1]}")
            marker.write_text(requirement)
    return str(python)
