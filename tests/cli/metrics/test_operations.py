"""What is counted, as Prometheus' own parser reads it; and what Operations starts and closes."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from qtools import __version__
from qtools.cli import logs
from qtools.cli.metrics.histogram import Histogram
from qtools.cli.metrics.metric_sets import flow_families, messages_by_outcome, prefix_of
from qtools.cli.metrics.metrics_format import Family, counter, exposition, gauge, process_families
from qtools.cli.metrics.operations import Operations, OperationsOptions
from qtools.cli.types import Endpoint
from qtools.errors import StartError
from qtools.flow.loop import Totals

Read = dict[tuple[str, frozenset[tuple[str, str]]], float]


def read(text: str) -> Read:
    """(name, labels) → value, by prometheus_client."""
    found: Read = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found
            found[key] = sample.value
    return found


def plain(name: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return name, frozenset()


# ── the text ──


def test_the_page_to_the_byte() -> None:
    latency = Histogram((0.1, 1.0))
    for value, count in ((0.1, 2), (0.5, 1), (3.0, 4)):
        latency.observe(value, count)
    families = [
        Family("q_messages_total", "counter", "Messages.", [({"outcome": "a"}, 1204), ({"outcome": "b"}, 0)]),
        gauge("q_lag_seconds", "Lag.", 0.25),
        Family("q_publish_seconds", "histogram", "Latency.", [({"to": "x"}, latency.value())]),
    ]
    assert exposition(families) == (
        "# HELP q_messages_total Messages.\n"
        "# TYPE q_messages_total counter\n"
        'q_messages_total{outcome="a"} 1204\n'
        'q_messages_total{outcome="b"} 0\n'
        "# HELP q_lag_seconds Lag.\n"
        "# TYPE q_lag_seconds gauge\n"
        "q_lag_seconds 0.25\n"
        "# HELP q_publish_seconds Latency.\n"
        "# TYPE q_publish_seconds histogram\n"
        'q_publish_seconds_bucket{to="x",le="0.1"} 2\n'
        'q_publish_seconds_bucket{to="x",le="1"} 3\n'
        'q_publish_seconds_bucket{to="x",le="+Inf"} 7\n'
        'q_publish_seconds_sum{to="x"} 12.7\n'
        'q_publish_seconds_count{to="x"} 7\n'
    )


def test_nothing_is_an_empty_page() -> None:
    assert exposition([]) == ""
    assert read(exposition([Family("q_total", "counter", "None yet.", [])])) == {}


labels = st.dictionaries(
    st.from_regex(r"[a-z][a-z_0-9]{0,8}", fullmatch=True).filter(lambda name: name != "le"),
    st.text(st.characters(codec="utf-8"), max_size=20),
    max_size=3,
)
numbers = st.one_of(st.integers(-(2**62), 2**62), st.floats(allow_nan=False))


@given(st.lists(st.tuples(labels, numbers), max_size=5, unique_by=lambda one: tuple(sorted(one[0].items()))))
def test_whatever_labels_hold_is_read_as_it_was(samples: list[tuple[dict[str, str], float]]) -> None:
    text = exposition([Family("q_things", "gauge", 'It has a \\ and a\nnewline and "quotes".', samples)])
    found = {key: float(value) for key, value in read(text).items()}
    assert found == {("q_things", frozenset(each.items())): float(value) for each, value in samples}


def test_a_label_that_is_no_utf_8_does_no_harm() -> None:
    text = exposition([Family("q_files", "gauge", "Files.", [({"name": "a\udcff"}, 1)])])
    text.encode()
    assert read(text) == {("q_files", frozenset({("name", "a\\udcff")})): 1.0}


def test_not_a_number_is_told_as_such() -> None:
    value = read(exposition([gauge("q_x", "X.", float("nan"))]))[plain("q_x")]
    assert value != value


def test_families_of_one_name_stand_together_with_one_head() -> None:
    text = exposition([
        Family("q_a", "gauge", "A.", [({"side": "source"}, 1)]),
        gauge("q_b", "B.", 2),
        Family("q_a", "gauge", "A.", [({"side": "destination"}, 3)]),
    ])  # fmt: skip
    assert text.count("# TYPE q_a ") == text.count("# HELP q_a ") == 1
    assert text.index("source") < text.index("destination") < text.index("q_b")


@pytest.mark.parametrize(
    ("name", "kind"), [("q_things", "counter"), ("q things", "gauge"), ("", "gauge"), ("0q", "gauge"), ("q", "meter")]
)
def test_a_family_that_cannot_be_is_found_where_it_is_made(name: str, kind: str) -> None:
    with pytest.raises(ValueError, match=r"ends in _total|not a valid metric family"):
        Family(name, kind, "")


# ── histograms ──


@given(st.lists(st.tuples(st.floats(0, 20, allow_nan=False), st.integers(1, 50)), max_size=30))
def test_a_histogram_counts_as_prometheus_does(seen: list[tuple[float, int]]) -> None:
    histogram = Histogram()
    for value, count in seen:
        histogram.observe(value, count)
    found = read(exposition([Family("q_s", "histogram", "S.", [({}, histogram.value())])]))
    assert found[plain("q_s_count")] == sum(count for _, count in seen)
    assert found[plain("q_s_sum")] == pytest.approx(sum(value * count for value, count in seen))
    buckets = {key: value for key, value in found.items() if key[0] == "q_s_bucket"}
    assert len(buckets) == 15
    for (_, labels), value in buckets.items():
        bound = float(dict(labels)["le"])
        assert value == sum(count for each, count in seen if each <= bound)


def test_a_quantile_lies_within_its_bucket() -> None:
    histogram = Histogram((1.0, 2.0, 4.0))
    assert histogram.value().quantile(0.99) == 0.0
    histogram.observe(0.5, 90)
    histogram.observe(3.0, 10)
    assert histogram.value().quantile(0.9) == pytest.approx(1.0)
    assert histogram.value().quantile(0.95) == pytest.approx(3.0)
    before = histogram.value()
    histogram.observe(9.0)
    assert histogram.value().since(before).quantile(0.5) == 4.0
    assert histogram.value().since(before).total == 1


# ── what commands share ──


def test_the_shared_names() -> None:
    assert prefix_of("q-to-file") == "qtools_to_file"
    totals = Totals(read=10, finished=7, finished_bytes=70, refused=1, requeued=2)
    found = read(exposition(flow_families("q-pipe", totals, empty=3)))
    outcomes = {dict(labels)["outcome"]: value for (name, labels), value in found.items() if labels}
    assert outcomes == {"finished": 7, "refused": 1, "requeued": 2, "empty": 3}
    assert found[plain("qtools_pipe_read_total")] == 10
    assert found[plain("qtools_pipe_bytes_total")] == 70
    assert messages_by_outcome("q-x", {"a": 1}).name == "qtools_x_messages_total"


def test_the_process_is_described_by_its_usual_names() -> None:
    found = read(exposition(process_families("q-test")))
    (about,) = [dict(labels) for name, labels in found if name == "qtools_build_info"]
    assert (about["command"], about["version"]) == ("q-test", __version__)
    assert found[plain("process_cpu_seconds_total")] > 0
    assert found[plain("process_max_fds")] > 10
    if Path("/proc/self/stat").exists():
        assert 5e6 < found[plain("process_resident_memory_bytes")] < found[plain("process_virtual_memory_bytes")]
        assert time.time() - 3600 < found[plain("process_start_time_seconds")] < time.time()
        held = [os.open(os.devnull, os.O_RDONLY) for _ in range(5)]
        more = read(exposition(process_families("q-test")))[plain("process_open_fds")]
        for fd in held:
            os.close(fd)
        assert more - found[plain("process_open_fds")] == 5


# ── Operations ──


@pytest.fixture(autouse=True)
def _talk(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("q-test")


def operations(where: Endpoint | None) -> Operations:
    options = OperationsOptions(metrics_address=where)
    return Operations(options, "q-test", lambda: [counter("q_things_total", "Things.", 7)], lambda: "")


async def test_nothing_asked_for_is_nothing_done(capsys: pytest.CaptureFixture[str]) -> None:
    made = operations(None)
    await made.start()
    assert made.address == ""
    await made.close()
    assert capsys.readouterr().err == ""


async def test_a_port_that_the_system_chose_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    made = operations(Endpoint("127.0.0.1", 0))
    await made.start()
    assert capsys.readouterr().err == f"q-test: metrics at http://{made.address}/metrics\n"
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"http://{made.address}/metrics")
    assert read(answer.text)[plain("q_things_total")] == 7
    await made.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(made.address.rpartition(":")[2])))


async def test_a_unix_socket_is_private_and_gone_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "metrics.sock"
    made = operations(Endpoint(path=str(path)))
    await made.start()
    assert path.stat().st_mode & 0o777 == 0o600
    async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=str(path))) as client:
        answer = await client.get("http://metrics/healthz")
    assert (answer.status_code, answer.text) == (200, "ok\n")
    await made.close()
    assert not path.exists()


async def test_an_address_that_is_taken_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            StartError, match=f"127.0.0.1:{port}: address already in use; choose another with --metrics-address"
        ):
            await operations(Endpoint("127.0.0.1", port)).start()
