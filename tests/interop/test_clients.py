"""Clients that nobody here wrote, each in an environment of its own: they publish and consume through the broker."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from harness.brokers import Broker

from .environments import python_with

HERE = Path(__file__).parent


@pytest.mark.parametrize("requirement", ["gnsq==1.0.2", "ansq==0.3.0"])
def test_a_thousand_messages_go_round(requirement: str, broker: Broker) -> None:
    client = requirement.partition("=")[0]
    done = subprocess.run(
        [python_with(requirement), HERE / f"{client}_roundtrip.py", broker.address, "1000"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    seen = json.loads(done.stdout)
    assert seen["missing"] == 0
    assert seen["answers"] == 500 + 10
    assert seen["again"] > 0
    assert seen["received"] == 1000 + seen["again"]
    broker.wait_held(client, "roundtrip", 0)
    assert "internal error" not in broker.log
    broker.tell(f"/topic/delete?topic={client}")
