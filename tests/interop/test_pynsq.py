"""A client that nobody here wrote: pynsq publishes and consumes through q-broker."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from broker.running import running

SCRIPT = Path(__file__).with_name("pynsq_roundtrip.py")


@pytest.mark.parametrize("packing", ["", "deflate", "snappy"])
def test_pynsq_publishes_and_consumes_a_thousand_messages(packing: str) -> None:
    with running() as broker:
        host, port = broker.tcp
        done = subprocess.run(
            [sys.executable, SCRIPT, f"{host}:{port}", "1000", packing],
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
        assert not [line for line in broker.log if "internal error" in line]
