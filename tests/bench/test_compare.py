"""bench/compare.py: it measures what it says, believes no run without counting, and leaves no process behind."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest
from harness.kafka import why_not

BENCH = Path(__file__).parents[2] / "bench"
PROGRAMS = Path(sys.executable).parent
MARK = "QTOOLS_TEST_MARK"


SECTIONS = "pipe, tail, bridge, archive, broker, kafka, nats, rabbitmq, redis, start"


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module("measure.events")


@pytest.fixture
def rounds(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module("measure.rounds")


def compare(*arguments: str, mark: str = "") -> subprocess.Popen[str]:
    # Without what else is on PATH: an nsqd there would be measured instead of q-broker.
    env = os.environ | {"PATH": "/usr/bin:/bin", MARK: mark}
    env.pop("QTOOLS_NSQD_BIN", None)
    return subprocess.Popen(
        [sys.executable, BENCH / "compare.py", *arguments],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.parametrize(("count", "size"), [(1, 300), (7, 190), (25_000, 190)])
def test_events_have_the_asked_size_on_average_to_the_byte(events: ModuleType, count: int, size: int) -> None:
    lines = events.make_events(count, size)
    assert len(lines) == len(set(lines)) == count
    assert sum(map(len, lines)) == count * size
    assert all(json.loads(line)["messageId"] and b"\n" not in line for line in lines)


def test_events_smaller_than_a_record_are_refused(events: ModuleType) -> None:
    with pytest.raises(Exception, match="records of 50 bytes cannot be made: the least is 1"):
        events.make_events(100, 50)


def test_a_ratio_is_taken_within_a_round_and_without_runs_that_were_wrong(rounds: ModuleType) -> None:
    def series(name: str, ours: bool, *seconds: float) -> object:
        made = rounds.Series(name, 100, ours)
        made.runs = [rounds.Run(100, rounds.Took(abs(s), 0.0, 0), None, "lost one" if s < 0 else "") for s in seconds]
        return made

    (ratio,) = rounds.ratios([series("a", True, 1, 2, -0.001), series("b", False, 3, 10, 5)])
    assert (ratio.ours, ratio.theirs, ratio.pairs) == ("a", "b", 2)
    assert (ratio.least, ratio.middle, ratio.most) == pytest.approx((3, 4, 5))


def test_running_is_what_is_left_without_the_start(rounds: ModuleType) -> None:
    made = rounds.Series("a", 1001, True)
    made.runs = [rounds.Run(1001, rounds.Took(1.5, 1.0, 0), None, "")]
    made.starts = [rounds.Run(1, rounds.Took(0.5, 0.25, 0), None, "")]
    assert made.rate() == pytest.approx(1001 / 1.5)
    assert made.rate_running() == pytest.approx(1000)
    assert made.cpu_running() == pytest.approx(750)


@pytest.mark.slow
def test_a_small_comparison_with_the_embedded_broker(tmp_path: Path) -> None:
    told = tmp_path / "told.json"
    out, err = (
        bench := compare("pipe", "tail", "archive", "broker", "--rounds", "1", "--count", "3000", "--json", str(told))
    ).communicate(timeout=100)
    assert bench.returncode == 0, out + err
    assert err == ""
    assert "not here, so not compared: nsqd, to_nsq, nsq_tail, nsq_to_nsq, nsq_to_file" in out
    tables = json.loads(told.read_text())["tables"]
    names = [[series["name"] for series in table["series"]] for table in tables]
    archives = [[f"q-to-file, {compression}"] for compression in ("none", "gzip", "zstd")]
    brokers = ["q-broker, --sync full", "q-broker, --sync normal", "q-broker, --memory"]
    assert names == [["q-pipe"], ["q-tail"], *archives, brokers, brokers]
    for series in [series for table in tables for series in table["series"]]:
        assert series["messages"] == 3000
        assert series["rate"] > 1000
        assert series["cpu_per_million"] > 0
        assert 10e6 < series["peak_bytes"] < 500e6
        assert series["start_seconds"] > 0
        if "q-to-file" in series["name"]:
            assert series["messages_per_sync"] > 1


@pytest.mark.slow
def test_a_small_comparison_on_kafka(tmp_path: Path) -> None:
    if reason := why_not():
        pytest.skip(reason)
    told = tmp_path / "told.json"
    bench = compare("kafka", "--rounds", "1", "--count", "3000", "--json", str(told))
    out, err = bench.communicate(timeout=200)
    assert bench.returncode == 0, out + err
    tables = json.loads(told.read_text())["tables"]
    ours = [[series["name"] for series in table["series"] if series["name"].startswith("q-")] for table in tables]
    assert ours == [
        ["q-pipe"], ["q-tail, in a group"], ["q-bridge, Kafka to q-broker", "q-bridge, q-broker to Kafka"],
    ]  # fmt: skip
    assert all(series["messages"] == 3000 and series["rate"] > 300 for table in tables for series in table["series"])


@pytest.mark.parametrize("named", [True, False])
def test_without_a_kafka_its_section_is_left_out_unless_it_is_named(
    named: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for program in ("git", "python3"):
        (tmp_path / program).symlink_to(shutil.which(program) or "/bin/true")
    monkeypatch.syspath_prepend(str(BENCH))
    module = importlib.import_module("compare")
    monkeypatch.setenv("PATH", str(tmp_path))  # no Java
    monkeypatch.setattr(module, "SECTIONS", {"kafka": module.SECTIONS["kafka"]})
    given = module.parse(["--count", "10", "--slow-count", "10", "--size", "300", *(["kafka"] if named else [])])
    if named:
        with pytest.raises(Exception, match="no Java on PATH, to run Apache Kafka: name a running Kafka with --kafka"):
            module.compare(given, tmp_path)
    else:
        assert module.compare(given, tmp_path) == []


def test_a_run_that_lost_a_message_is_named_and_fails(tmp_path: Path) -> None:
    for name in ("q-pipe", "q-bridge", "q-to-file", "q-broker"):
        (tmp_path / name).symlink_to(PROGRAMS / name)
    liar = tmp_path / "q-tail"
    liar.write_text(f'#!/bin/sh\n"{PROGRAMS}/q-tail" "$@" | sed \'$d\'\n')
    liar.chmod(0o755)
    bench = compare("tail", "--rounds", "1", "--count", "500", "--qtools-bin", str(tmp_path))
    out, err = bench.communicate(timeout=100)
    assert bench.returncode == 1, out + err
    assert "NOT COUNTED: 2 runs of q-tail (499 of 500 messages; 0 of 1 messages)" in out


def test_a_bridge_is_ended_when_all_is_moved_and_counted_by_topic() -> None:
    bench = compare("bridge", "--rounds", "1", "--count", "500")
    out, err = bench.communicate(timeout=100)
    assert bench.returncode == 0, out + err
    for name in ("q-bridge  ", "q-bridge --where", *(f"q-bridge, {count} routes" for count in (10, 20, 200))):
        assert f"\n  {name}" in out
    assert "NOT COUNTED" not in out


@pytest.mark.parametrize(
    ("arguments", "status", "line"),
    [
        (["pope"], 2, f"compare.py: error: no section 'pope': there are {SECTIONS}"),
        (["--rounds", "0"], 2, "compare.py: error: argument --rounds: invalid positive value: '0'"),
        (["--nsqd", "/no/such"], 1, "compare.py: no program /no/such: name an nsqd with --nsqd or QTOOLS_NSQD_BIN"),
        (["--size", "50"], 1, "compare.py: records of 50 bytes cannot be made: the least is"),
    ],
)
def test_what_cannot_be_done_ends_in_one_line(arguments: list[str], status: int, line: str) -> None:
    bench = compare(*arguments)
    _, err = bench.communicate(timeout=60)
    assert bench.returncode == status
    assert err.splitlines()[-1].startswith(line)


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc to see all processes")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_leaves_no_process(number: signal.Signals) -> None:
    mark = f"{os.getpid()}-{time.monotonic_ns()}"
    bench = compare("pipe", "--rounds", "50", "--count", "5000", mark=mark)
    deadline = time.monotonic() + 30
    while len(marked(mark)) < 4:  # compare.py, the broker, the launcher, q-pipe
        assert bench.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    bench.send_signal(number)
    _, err = bench.communicate(timeout=30)
    assert bench.returncode == 130
    assert err == "compare.py: interrupted\n"
    deadline = time.monotonic() + 1  # what was killed may need a moment to be gone; what was forgotten stays longer
    while (left := marked(mark)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert left == []


def marked(mark: str) -> list[int]:
    """The processes that have our mark in their environment, and have not ended."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}={mark}".encode() in (process / "environ").read_bytes().split(b"\0"):
                found.append(int(process.name))
        except OSError:
            continue  # it has ended, or is somebody else's
    return found
