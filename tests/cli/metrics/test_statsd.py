"""What a statsd is told: lines to the byte, datagrams in a real socket, and a name that cannot be resolved."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qtools.cli import logs
from qtools.cli.metrics.histogram import Histogram
from qtools.cli.metrics.metrics_format import Family, counter, gauge
from qtools.cli.metrics.statsd import MAX_DATAGRAM, Deltas, StatsdExporter, datagrams, expand_prefix


def test_counters_are_told_as_what_was_added() -> None:
    deltas = Deltas("p.")
    found = [deltas.lines([counter("qtools_tail_read_total", "", value)]) for value in (5,)]
    deltas.mark_sent()
    for value in (5, 12):
        found.append(deltas.lines([counter("qtools_tail_read_total", "", value)]))
        deltas.mark_sent()
    assert found == [["p.qtools.tail.read:5|c"], [], ["p.qtools.tail.read:7|c"]]


def test_what_was_not_told_is_in_the_next_lines() -> None:
    deltas = Deltas("")
    assert deltas.lines([counter("x_total", "", 5)]) == ["x:5|c"]
    assert deltas.lines([counter("x_total", "", 8)]) == ["x:8|c"]
    deltas.mark_sent()
    assert deltas.lines([counter("x_total", "", 9)]) == ["x:1|c"]


@pytest.mark.parametrize(
    ("value", "lines"),
    [
        (3, ["g:3|g"]),
        (0.25, ["g:0.25|g"]),
        (1e-9, ["g:0|g"]),
        (-2, ["g:0|g", "g:-2|g"]),
        (float("nan"), []),
        (float("inf"), []),
    ],
)
def test_gauges(value: float, lines: list[str]) -> None:
    assert Deltas("").lines([gauge("g", "", value)]) == lines


def test_labels_follow_the_name_and_can_break_nothing() -> None:
    family = Family(
        "qtools_bridge_messages_total",
        "counter",
        "",
        [({"outcome": "routed", "route": "big: purchases|x\n"}, 1), ({"outcome": "routed", "route": ""}, 2)],
    )
    assert Deltas("").lines([family]) == [
        "qtools.bridge.messages.routed.big_purchases_x_:1|c",
        "qtools.bridge.messages.routed._:2|c",
    ]


def test_a_histogram_is_told_as_count_mean_and_quantile_of_what_was_added() -> None:
    deltas, histogram = Deltas(""), Histogram((0.1, 1.0))
    family = [Family("qtools_pipe_publish_seconds", "histogram", "", [])]

    def lines() -> list[str]:
        family[0] = Family(family[0].name, "histogram", "", [({}, histogram.value())])
        made = deltas.lines(family)
        deltas.mark_sent()
        return made

    assert lines() == []
    histogram.observe(0.05, 3)
    base = "qtools.pipe.publish_seconds"
    assert lines() == [f"{base}.count:3|c", f"{base}.mean:0.05|g", f"{base}.p99:0.099|g"]
    histogram.observe(0.5)
    assert lines()[:2] == [f"{base}.count:1|c", f"{base}.mean:0.5|g"]
    assert lines() == []


def test_the_prefix_has_the_host_where_nsqd_has_it() -> None:
    assert expand_prefix("nsq.%s", "host.example.org") == "nsq.host_example_org."
    assert expand_prefix("team.", "h") == "team."
    assert expand_prefix("", "h") == ""


@given(st.lists(st.integers(1, 2000).map("x".__mul__), max_size=60))
def test_datagrams_hold_all_lines_in_order_and_are_short(lines: list[str]) -> None:
    packets = datagrams(lines)
    assert b"\n".join(packets).decode() == "\n".join(lines)
    for packet in packets:
        assert len(packet) <= MAX_DATAGRAM or b"\n" not in packet
    for one, another in pairwise(packets):
        assert len(one) + 1 + len(another.split(b"\n")[0]) > MAX_DATAGRAM  # none could have been spared


class Things:
    count = 0
    broken = False

    def collect(self) -> Iterable[Family]:
        if self.broken:
            raise KeyError("a defect")
        return [counter("things_total", "", self.count)]


@pytest.fixture
def receiving() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.bind(("127.0.0.1", 0))
        made.settimeout(10)
        yield made


async def until(question: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not question():  # noqa: ASYNC110 - what is waited for is not ours to announce
            await asyncio.sleep(0.001)


async def heard(receiving: socket.socket) -> bytes:
    return await asyncio.to_thread(receiving.recv, 65536)


async def test_metrics_are_sent_at_every_interval(receiving: socket.socket) -> None:
    things = Things()
    things.count = 3
    statsd = StatsdExporter("localhost", receiving.getsockname()[1], "", 0.05, things.collect)
    statsd.start()
    assert await heard(receiving) == b"things:3|c"
    things.count = 7
    assert await heard(receiving) == b"things:4|c"
    await statsd.close()


async def test_metrics_are_sent_at_the_end_without_waiting_for_the_interval(receiving: socket.socket) -> None:
    things = Things()
    statsd = StatsdExporter("localhost", receiving.getsockname()[1], "", 1000, things.collect)
    statsd.start()
    things.count = 8
    await statsd.close()
    assert await heard(receiving) == b"things:8|c"


async def test_what_cannot_be_resolved_is_said_once_and_tried_again(
    receiving: socket.socket, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.set_up("q-test")
    things = Things()
    things.count = 3
    asked = []
    known = False
    real = socket.getaddrinfo

    def getaddrinfo(host: str, *words: object, **more: object) -> object:
        asked.append(host)
        if not known:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return real("127.0.0.1", *words, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    statsd = StatsdExporter("statsd.invalid", receiving.getsockname()[1], "", 0.01, things.collect)
    statsd.start()
    await until(lambda: len(asked) >= 4)
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "cannot send to statsd at statsd.invalid:" in told
    assert "Name or service not known; trying again" in told
    known = True
    assert await heard(receiving) == b"things:3|c"  # nothing that was counted meanwhile is lost
    await statsd.close()


async def test_a_defect_in_what_is_counted_ends_nothing(receiving: socket.socket) -> None:
    told: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["exception"]))
    things = Things()
    things.broken = True
    statsd = StatsdExporter("127.0.0.1", receiving.getsockname()[1], "", 0.01, things.collect)
    statsd.start()
    await until(lambda: bool(told))
    things.count, things.broken = 2, False
    assert await heard(receiving) == b"things:2|c"
    await statsd.close()
    assert isinstance(told[0], KeyError)


async def test_metrics_are_sent_on_where_no_process_listens() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as gone:
        gone.bind(("127.0.0.1", 0))
        port = gone.getsockname()[1]
    collected = 0

    def collect() -> Iterable[Family]:
        nonlocal collected
        collected += 1
        return [counter("things_total", "", collected)]

    statsd = StatsdExporter("127.0.0.1", port, "", 0.01, collect)
    statsd.start()
    await until(lambda: collected >= 5)  # the first packet is refused, and the exporter goes on
    await statsd.close()
