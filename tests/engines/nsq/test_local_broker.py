"""The private local broker: found, started, or said why not."""

from __future__ import annotations

import logging
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from qtools.engines.nsq import local_broker as module
from qtools.engines.nsq.address import local_address
from qtools.engines.nsq.connect import connect
from qtools.engines.nsq.local_broker import autostart_allowed, start_local_broker
from qtools.errors import StartError
from tests.engines.nsq.scripted import settings


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.delenv("QTOOLS_AUTOSTART", raising=False)
    return tmp_path


@pytest.mark.parametrize(
    ("value", "allowed"),
    [
        (None, True),
        ("1", True),
        ("yes", True),
        ("", True),
        ("0", False),
        ("no", False),
        ("False", False),
        (" OFF ", False),
    ],
)
def test_the_environment_may_forbid_to_start_it(value: str | None, allowed: bool) -> None:
    assert autostart_allowed({} if value is None else {"QTOOLS_AUTOSTART": value}) is allowed


async def test_where_it_is_forbidden_that_is_told_with_what_to_do(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QTOOLS_AUTOSTART", "0")
    with pytest.raises(StartError, match=r"QTOOLS_AUTOSTART=0 .*give --broker URL .*, or run q-broker"):
        await connect(local_address(), settings())
    assert os.listdir(home) == []


REAL = subprocess.Popen


def instead(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Let another program stand in for the broker's process."""
    monkeypatch.setattr(
        module.subprocess, "Popen", lambda command, **given: REAL([sys.executable, "-c", code], **given)
    )


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("print('error the disk is full')", "the local broker could not start: the disk is full"),
        ("pass", "the local broker could not start: see {}"),
        ("print('what?')", "the local broker could not start: see {}"),
        ("raise SystemExit(3)", "the local broker could not start: see {}"),
    ],
)
async def test_a_broker_that_does_not_start_says_why_or_where_that_stands(
    home: Path, monkeypatch: pytest.MonkeyPatch, code: str, told: str
) -> None:
    instead(monkeypatch, code)
    log = home / ".local/state/qtools/broker.log"
    with pytest.raises(StartError) as caught:
        await start_local_broker()
    assert str(caught.value) == told.format(log)
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    assert stat.S_IMODE(log.parent.stat().st_mode) == 0o700


async def test_a_broker_that_says_nothing_is_given_up(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "START_TIMEOUT", 0.1)
    instead(monkeypatch, "import sys; sys.stdin.read(); import time; time.sleep(1)")
    with pytest.raises(StartError, match="see "):
        await start_local_broker()


async def test_what_was_started_is_said_and_what_runs_already_is_not(
    home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    instead(monkeypatch, "print('running 7')")
    await start_local_broker()
    assert not caplog.records
    instead(monkeypatch, "print('ready 7')")
    await start_local_broker()
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith(
        f"started the local broker (pid 7, data in {home}/.local/state/qtools/broker)"
    )


async def test_a_place_that_cannot_be_used_is_named(home: Path) -> None:
    (home / ".local").write_text("in the way")
    with pytest.raises(StartError, match=f"cannot use {home}/.local/state/qtools"):
        await start_local_broker()


async def test_a_log_that_cannot_be_written_is_named(home: Path) -> None:
    (home / ".local/state/qtools/broker.log").mkdir(parents=True)
    with pytest.raises(StartError, match=f"cannot write the local broker's log {home}/.*: Is a directory"):
        await start_local_broker()
