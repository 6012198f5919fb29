"""Numbered messages under load, while the server or the reader is killed or frozen: none that was confirmed is lost."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from pathlib import Path

import pytest
from harness.nats import NEW, OLD, NatsServer, why_no_nats
from harness.shell import Shell

ROUNDS = 10
PAUSE = 1.5  # s between two faults: time itself is what this is about
SETTINGS = ("ack_wait=5s", "ping_interval=1s")


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", [NEW, OLD])
@pytest.mark.parametrize("fault", ["kill", "freeze", "kill the reader"])
def test_nothing_that_was_confirmed_is_missing(tmp_path: Path, shell: Shell, kind: str, fault: str) -> None:
    if reason := why_no_nats(kind):
        pytest.skip(reason)
    server = NatsServer(kind, tmp_path / "nats")
    server.start()
    words = [
        f"nats://{server.address}/soak",
        "--create-topics",
        "default",
        "--rate",
        "4000",
        "--json",
        "--separate-reader",
    ]
    for setting in SETTINGS:
        words += ["--engine-option", setting]
    try:
        running = shell.start("qtools", "soak", *words, "--duration", "10m")
        running.wait_err("reader")
        for _ in range(ROUNDS):
            time.sleep(PAUSE)
            if fault == "kill":
                server.kill()
                server.start()
            elif fault == "freeze":
                server.freeze()
                time.sleep(PAUSE)
                server.thaw()
            else:
                kill_reader(running.err)
        running.signal(signal.SIGINT)
        done = running.wait(150)
    finally:
        server.thaw()
        server.close()
    found = json.loads(done.out)
    assert (found["lost"], found["corrupted"], found["unconfirmed"]) == (0, 0, 0), done.err
    assert found["confirmed"] > 1000


def kill_reader(err: str) -> None:
    """The newest reader, by its id in the log."""
    pid = int(re.findall(r"(?:process|pid) (\d+)", err)[-1])
    os.kill(pid, signal.SIGKILL)
