"""contrib/docker/Dockerfile: its steps run here without a container engine, in an empty directory."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
from harness.shell import ROOT, Shell

TEXT = (ROOT / "contrib/docker/Dockerfile").read_text(encoding="utf-8")


def steps(instruction: str) -> list[str]:
    return re.findall(rf"^{instruction} (.*)$", TEXT, re.MULTILINE)


def test_the_image_has_a_user_and_a_healthcheck() -> None:
    assert steps("USER") == ["10001"]
    assert len(steps("HEALTHCHECK")) == 1
    assert "--uid 10001" in TEXT
    assert len(steps("FROM")) == 2


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_steps_make_an_environment_whose_healthcheck_answers(wheel: Path, tmp_path: Path, shell: Shell) -> None:
    """/opt/qtools and /tmp of the image are below tmp_path; the packages come from the registry."""
    (tmp_path / wheel.name).write_bytes(wheel.read_bytes())
    made = TEXT.partition("\nFROM python:3.13-slim\n")[0]
    for step in re.findall(r"^RUN (.*)$", made, re.MULTILINE):
        here = step.replace("/tmp/", "TMP/").replace("/opt/qtools", f"{tmp_path}/qtools").replace("TMP", f"{tmp_path}")
        done = subprocess.run(["sh", "-c", here], capture_output=True, text=True, check=False)
        if "Retrying" in done.stderr:
            pytest.skip("no package registry is reached")
        assert done.returncode == 0, done.stderr
    path = tmp_path / "qtools/bin"
    environ = {"PYTHONPATH": "", "QTOOLS_AUTOSTART": "0"}
    words = ["--tcp-address=127.0.0.1:0", "--http-address=127.0.0.1:0", f"--data-path={shell.home}"]
    broker = shell.start("q-broker", *words, argv=[str(path / "q-broker")], environ=environ)
    broker.wait_err("HTTP: listening on ")
    address = broker.err.partition("HTTP: listening on ")[2].split()[0]
    check = json.loads(steps("HEALTHCHECK")[0].partition("CMD ")[2])
    python = [str(path / check[0])]
    url = {"QTOOLS_HEALTH_URL": f"http://{address}/ping"}
    assert shell.run("check", *check[1:], argv=python, environ=environ | url).status == 0
    assert shell.run(
        "check", *check[1:], argv=python, environ=environ | {"QTOOLS_HEALTH_URL": f"http://{address}/none"}
    ).status
