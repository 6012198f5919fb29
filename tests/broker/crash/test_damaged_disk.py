"""Pages of the database that the disk has destroyed: the broker says what is missing, and delivers the rest."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from harness.brokers import Q_BROKER, Broker
from harness.shell import Shell

PAGE = 16384


def destroy(path: Path, count: int) -> None:
    """So many pages, all over the second half of the file, where the blocks are."""
    pages = path.stat().st_size // PAGE
    with path.open("r+b") as file:
        for nth in range(count):
            file.seek((pages // 2 + nth * pages // 2 // count) * PAGE)
            file.write(os.urandom(PAGE))


@pytest.mark.parametrize("count", [20_000, pytest.param(200_000, marks=pytest.mark.slow)])
def test_what_is_missing_is_told_everywhere_and_the_rest_is_delivered(count: int, tmp_path: Path, shell: Shell) -> None:
    broker = Broker(Q_BROKER, tmp_path / "broker")
    broker.start()
    try:
        broker.create("t", "c")
        bodies = [b"%d %s" % (n, os.urandom(250).hex().encode()) for n in range(count)]
        for start in range(0, count, 2000):
            broker.fill("t", bodies[start : start + 2000])
        broker.stop()
        destroy(broker.room / "messages.db", 3)
        done = shell.run("q-broker", "check", broker.room)
        assert done.status == 1
        broker.start()
        status, answer = broker.ask("GET", "/ping")
        assert status == 500
        assert answer.startswith(b"NOK - ")
        assert b" messages of t cannot be read: see " in answer
        found = broker.bodies("t", "c")
        missing = set(bodies) - set(found)
        assert 0 < len(missing) < count / 2
        assert not set(found) - set(bodies)
        told = json.loads(broker.ask("GET", "/stats?format=json")[1])
        assert sum(one["messages"] for one in told["damaged"] if one["topic"] == "t") == len(missing)
        metrics = broker.ask("GET", "/metrics")[1].decode()
        assert f'q_broker_damaged_messages{{topic="t"}} {len(missing)}\n' in metrics
        assert "q_broker_healthy 0\n" in metrics
        assert "topic t: " in broker.log
        assert "Traceback" not in broker.log
        (broker.room / "damaged").rename(tmp_path / "seen")
        assert broker.ask("GET", "/ping") == (200, b"OK")
        broker.stop()
        broker.start()
        assert broker.ask("GET", "/ping") == (200, b"OK")
        assert shell.run("q-broker", "check", broker.room).status == 0
    finally:
        broker.close()


def test_a_page_that_is_destroyed_while_the_broker_runs(tmp_path: Path) -> None:
    """What is finished cannot be written any more; a restart repairs the database, and nothing comes again."""
    broker = Broker(Q_BROKER, tmp_path / "broker")
    broker.start()
    try:
        broker.create("t", "c")
        bodies = [b"%d %s" % (n, os.urandom(250).hex().encode()) for n in range(20_000)]
        for start in range(0, len(bodies), 1000):
            broker.fill("t", bodies[start : start + 1000])
        broker.stop()
        broker.start()  # so that the log has been written back, and no page is in memory
        destroy(broker.room / "messages.db", 4)
        found = broker.bodies("t", "c")
        missing = set(bodies) - set(found)
        assert not set(found) - set(bodies)
        status, answer = broker.ask("GET", "/ping")
        assert (status, answer[:6]) == (500, b"NOK - ")
        broker.stop()
        broker.start()
        again = broker.bodies("t", "c")
        assert set(again) <= missing
        assert list((broker.room / "damaged").glob("messages.db-*"))
        told = json.loads(broker.ask("GET", "/stats?format=json")[1])["damaged"]
        assert sum(one["messages"] for one in told if one["topic"] == "t") >= len(missing - set(again))
        broker.fill("t", [b"one more"])
        assert broker.bodies("t", "c") == [b"one more"]
        assert "Traceback" not in broker.log
    finally:
        broker.close()
