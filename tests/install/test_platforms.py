"""The base installation has wheels, and needs no compiler, on the platforms that docs/install.md names."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from harness.shell import ROOT, Shell
from packaging.requirements import Requirement

PYTHONS = ["3.11", "3.12", "3.13", "3.14"]
GLIBC = ["manylinux_2_28", "manylinux_2_27", "manylinux_2_26", "manylinux_2_24", "manylinux_2_17", "manylinux2014"]
MUSL = ["musllinux_1_2", "musllinux_1_1"]
PLATFORMS = {
    f"{name}-{machine}": [f"{tag}_{machine}" for tag in tags]
    for name, tags in {"glibc": GLIBC, "musl": MUSL}.items()
    for machine in ("x86_64", "aarch64")
} | {f"macos-{machine}": [f"macosx_14_0_{machine}"] for machine in ("arm64", "x86_64")}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EVERYWHERE = ["fast", "snappy", "redis", "nats", "schemas"]  # the extras that have wheels for all platforms
WITHOUT_MUSL = ["regex", "kafka"]


def resolve(requirements: list[str], platform: str, python: str, directory: Path) -> str:
    """What pip finds amiss with `requirements`, and what they require, on `platform`; "" if it would install wheels."""
    environment = {"python_version": python, "python_full_version": f"{python}.0"}
    chosen = [
        f"{parsed.name}{parsed.specifier}"
        for parsed in map(Requirement, requirements)
        if parsed.marker is None or parsed.marker.evaluate(environment)  # pip asks the markers of its own Python
    ]
    tags = [word for tag in PLATFORMS[platform] for word in ("--platform", tag)]
    words = ["install", "-q", "--dry-run", "--ignore-installed", "--only-binary=:all:", "--target", directory, *tags]
    done = subprocess.run(
        [sys.executable, "-m", "pip", *words, "--python-version", python, *chosen],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if "Retrying" in done.stderr:
        pytest.skip("no package registry is reached")
    return done.stderr if done.returncode else ""


@pytest.mark.slow
@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("platform", PLATFORMS)
def test_the_base_installation_has_wheels(platform: str, python: str, tmp_path: Path) -> None:
    assert resolve(PROJECT["dependencies"], platform, python, tmp_path) == ""


@pytest.mark.slow
@pytest.mark.parametrize("platform", PLATFORMS)
def test_most_extras_have_wheels(platform: str, tmp_path: Path) -> None:
    extras = [requirement for extra in EVERYWHERE for requirement in PROJECT["optional-dependencies"][extra]]
    assert resolve(extras, platform, PYTHONS[-1], tmp_path) == ""


@pytest.mark.slow
@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("extra", WITHOUT_MUSL)
def test_two_extras_have_wheels_except_for_musl(extra: str, platform: str, tmp_path: Path) -> None:
    """If this fails for musl, there are wheels now: docs/install.md can say so."""
    fault = resolve(PROJECT["optional-dependencies"][extra], platform, PYTHONS[-2], tmp_path)
    assert ("No matching distribution found" in fault) == platform.startswith("musl"), fault


@pytest.fixture
def without_re2(shell: Shell) -> dict[str, str]:
    """The environment of an installation without the extra `regex`."""
    (shell.home / "modules").mkdir()
    (shell.home / "modules/re2.py").write_text("raise ModuleNotFoundError(\"No module named 're2'\", name='re2')\n")
    return {"PYTHONPATH": f"{shell.home / 'modules'}:{ROOT}"}


def test_a_pattern_without_its_extra_ends_with_what_to_install(shell: Shell, without_re2: dict[str, str]) -> None:
    words = ["events/me", "--nsqd-tcp-address=127.0.0.1:1", "--where", '.type | test("^a")']
    done = shell.run("q-tail", *words, environ=without_re2)
    assert (done.status, done.out) == (2, b"")
    (line,) = done.err_lines
    assert "column 9: test(…) needs one more package: pip install 'qtools-cli[regex]'" in line


def test_other_expressions_do_not_need_the_extra(shell: Shell, without_re2: dict[str, str]) -> None:
    sent = shell.run(
        "q-pipe", "events", "--where", '.type | startswith("a")', input=b'{"type":"ab"}\n', environ=without_re2
    )
    assert sent.status == 0, sent.err
    read = shell.run("q-tail", "events/me", "-n", "1", environ=without_re2)
    assert (read.status, read.out) == (0, b'{"type":"ab"}\n'), read.err
