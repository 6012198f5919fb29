"""Numbered messages that keep coming while a test goes on. In: how many, in what time. Out: a process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from harness.brokers import Broker

PRODUCE = """
import sys, time
sys.path.insert(0, sys.argv[1])
from harness.brokers import Broker
from pathlib import Path
broker = Broker("any", Path(sys.argv[2]))
broker.port = int(sys.argv[3])
count, pause = int(sys.argv[5]), float(sys.argv[6])
for first in range(0, count, 500):
    broker.fill(sys.argv[4], [b"%07d" % n for n in range(first, min(first + 500, count))])
    time.sleep(pause)
"""


def produce(broker: Broker, topic: str, count: int, seconds: float, room: Path) -> subprocess.Popen[bytes]:
    """Publish `count` numbered messages in about `seconds`, by nothing that is under test here."""
    room.mkdir(exist_ok=True)
    pause = seconds * 500 / count
    words = [str(Path(__file__).parents[1]), str(room), str(broker.port), topic, str(count), str(pause)]
    return subprocess.Popen([sys.executable, "-c", PRODUCE, *words])
