"""The distributions of this checkout, built once, and an environment in which the wheel is installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from harness.shell import ROOT


def make_dist(checkout: Path, directory: Path) -> dict[str, bytes]:
    """Run `make dist` in `checkout`, with this Python's tools, into `directory`; returns (name → bytes)."""
    environment = {name: value for name, value in os.environ.items() if name != "SOURCE_DATE_EPOCH"}
    words = [
        "make",
        "-C",
        checkout,
        "-o",
        ".venv/.tested",
        "dist",
        f"DIST={directory}",
        f"BIN={Path(sys.executable).parent}",
    ]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.fixture(scope="session")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory in which `make dist` has put the sdist and the wheel."""
    directory = tmp_path_factory.mktemp("made") / "dist"
    make_dist(ROOT, directory)
    return directory


@pytest.fixture(scope="session")
def wheel(dist: Path) -> Path:
    (path,) = dist.glob("*.whl")
    return path


@pytest.fixture(scope="session")
def sdist(dist: Path) -> Path:
    (path,) = dist.glob("*.tar.gz")
    return path


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin directory of an environment that has the wheel, with the dependencies of this Python's environment."""
    environment = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    python = environment / "bin/python"
    (packages,) = environment.glob("lib/python*/site-packages")
    # A path, and not a directory whose .pth files are read: the editable install of this checkout stays invisible.
    (packages / "dependencies.pth").write_text("\n".join(path for path in sys.path if path.endswith("-packages")))
    words = ["install", "-qq", "--no-deps", "--no-index", "--disable-pip-version-check", wheel]
    subprocess.run([sys.executable, "-m", "pip", "--python", python, *words], check=True)
    return environment / "bin"
