"""A client that nobody here wrote: pynsq publishes and consumes through q-broker."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from broker.running import running
from harness.certificates import Certificates

SCRIPT = Path(__file__).with_name("pynsq_roundtrip.py")


@pytest.mark.parametrize("upgrades", ["", "deflate", "snappy", "tls", "tls,snappy"])
def test_pynsq_publishes_and_consumes_a_thousand_messages(upgrades: str, certificates: Certificates) -> None:
    # With TLS required, it cannot be that it was left out.
    flags = (*certificates.server_flags, "--tls-required") if "tls" in upgrades else ()
    with running(*flags) as broker:
        host, port = broker.tcp
        done = subprocess.run(
            [sys.executable, SCRIPT, f"{host}:{port}", "1000", upgrades, str(certificates.ca)],
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
