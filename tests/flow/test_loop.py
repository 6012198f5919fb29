"""The one loop: what is acknowledged when, in which order, and that nothing is lost, doubled or left behind."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qtools.errors import (
    InputError,
    MessageRefused,
    NetworkError,
    PartialFailure,
    Postponed,
    QtoolsError,
    SinkClosed,
    SinkError,
)
from qtools.flow.gather import Gather
from qtools.flow.loop import Flow, Totals
from qtools.flow.throttle import Throttle
from qtools.message import Batch
from tests.flow.memory import DEADLINE, Calls, Feed, Hold, Ledger, numbers, until

FAR = 10**9


def refused(*places: int) -> PartialFailure:
    return PartialFailure({place: MessageRefused(f"number {place} is too big") for place in places})


def adds_up(totals: Totals) -> bool:
    return totals.read == totals.finished + totals.refused + totals.requeued


@pytest.fixture(autouse=True)
async def nothing_left() -> Any:
    """Nobody complains, no task is left: neither running nor with an error that nobody has seen."""
    loop = asyncio.get_running_loop()
    complaints: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    before = asyncio.all_tasks()
    yield
    gc.collect()
    await asyncio.sleep(0)
    assert not complaints
    assert asyncio.all_tasks() - before - {asyncio.current_task()} == set()


async def run(flow: Flow) -> Totals:
    async with asyncio.timeout(DEADLINE):
        return await flow.run()


# ── all goes well ───────────────────────────────────────────────────────────────────────────────


async def test_every_batch_is_written_and_then_finished() -> None:
    ledger, sink = Ledger(), Hold()
    flow = Flow(Feed(ledger.batch(1, 2), ledger.batch(3), None), sink)
    running = asyncio.create_task(run(flow))
    await until(lambda: len(sink.writes) == 1)
    assert ledger.told == []
    sink.writes[0].ok()
    await until(lambda: len(sink.writes) == 2)
    assert ledger.finished == [1, 2]
    sink.writes[1].ok()
    totals = await running
    assert ledger.told == [("finish", 1), ("finish", 2), ("finish", 3)]
    assert totals == Totals(read=3, finished=3, finished_bytes=2 + 3 + 4)
    assert sink.most == 1


async def test_an_empty_source_ends_at_once() -> None:
    assert await run(Flow(Feed(None), Hold())) == Totals()


@pytest.mark.parametrize("window", [1, 2, 5])
async def test_no_more_writes_are_under_way_than_the_window_and_all_of_it_is_used(window: int) -> None:
    ledger, sink = Ledger(), Hold()
    flow = Flow(Feed(*(ledger.batch(n) for n in range(8)), None), sink, window=window)
    running = asyncio.create_task(run(flow))
    for done in range(8):
        await until(lambda: len(sink.writes) == min(8, done + window))  # noqa: B023
        await until(lambda: sink.under_way == min(window, 8 - done))  # noqa: B023
        sink.writes[done].ok()
    await running
    assert sink.most == window


async def test_acknowledgements_keep_the_order_of_reading_however_the_writes_end() -> None:
    ledger, sink = Ledger(), Hold()
    flow = Flow(Feed(*(ledger.batch(n) for n in range(4)), None), sink, window=4)
    running = asyncio.create_task(run(flow))
    await until(lambda: len(sink.writes) == 4)
    for place, finished in ((2, []), (1, []), (0, [0, 1, 2]), (3, [0, 1, 2, 3])):
        sink.writes[place].ok()
        await until(lambda: sink.under_way == 3 - [2, 1, 0, 3].index(place))  # noqa: B023
        await asyncio.sleep(0)
        assert ledger.finished == finished
    await running


async def test_nothing_more_is_read_while_the_window_is_full() -> None:
    ledger, sink = Ledger(), Hold()
    source = Feed(*(ledger.batch(n) for n in range(9)), None)
    flow = Flow(source, sink, window=3)
    running = asyncio.create_task(run(flow))
    await until(lambda: len(sink.writes) == 3)
    for _ in range(20):
        await asyncio.sleep(0)
    assert source.given == 3
    flow.stop()
    for writing in sink.writes:
        writing.ok()
    assert await running == Totals(read=3, finished=3, finished_bytes=1 + 2 + 3)


# ── what the sink does not take ─────────────────────────────────────────────────────────────────


async def test_what_a_partial_failure_does_not_name_is_finished() -> None:
    ledger = Ledger()
    asked: list[tuple[list[int], dict[int, QtoolsError]]] = []

    async def write(batch: Batch) -> None:
        raise refused(3, 1)

    def on_refused(failed: Batch, why: dict[int, QtoolsError]) -> bool:
        asked.append((numbers(failed), why))
        return True

    totals = await run(Flow(Feed(ledger.batch(10, 11, 12, 13), None), Calls(write), on_refused=on_refused))
    assert totals == Totals(read=4, finished=2, finished_bytes=1 + 3, refused=2)
    assert ledger.told == [("finish", 10), ("finish", 12), ("finish", 11), ("finish", 13)]
    ((failed, why),) = asked
    assert failed == [11, 13]
    assert sorted(why) == [1, 3]


async def test_refused_messages_that_are_not_settled_go_back_and_the_flow_goes_on() -> None:
    for on_refused in (None, lambda failed, why: False):
        ledger = Ledger()
        first = iter([refused(0)])

        async def write(batch: Batch, first: Iterator[PartialFailure] = first) -> None:
            for error in first:
                raise error

        totals = await run(Flow(Feed(ledger.batch(1, 2), ledger.batch(3), None), Calls(write), on_refused=on_refused))
        assert totals == Totals(read=3, finished=2, finished_bytes=3 + 4, requeued=1)
        assert ledger.told == [("finish", 2), ("requeue", 1), ("finish", 3)]


@pytest.mark.parametrize("settles", [True, False])
async def test_postponed_messages_go_back_each_for_its_time_whatever_becomes_of_refused_ones(settles: bool) -> None:
    ledger = Ledger()
    later = {1: Postponed("full", 500), 2: Postponed("full", 70), 4: Postponed("full", 500)}

    async def write(batch: Batch) -> None:
        raise PartialFailure({**later, 3: MessageRefused("too big")})

    asked: list[list[int]] = []

    def on_refused(failed: Batch, why: dict[int, QtoolsError]) -> bool:
        asked.append(numbers(failed))
        assert list(why) == [3]
        return settles

    totals = await run(Flow(Feed(ledger.batch(0, 1, 2, 3, 4, 5), None), Calls(write), on_refused=on_refused))
    assert asked == [[3]]
    assert ledger.delays == {1: 500, 2: 70, 4: 500}
    assert sorted(ledger.finished) == ([0, 3, 5] if settles else [0, 5])
    assert sorted(ledger.requeued) == ([1, 2, 4] if settles else [1, 2, 3, 4])
    assert (totals.finished, totals.refused, totals.requeued) == (2, settles, 4 - settles)


async def test_nobody_is_asked_about_postponed_messages_alone() -> None:
    ledger = Ledger()

    async def write(batch: Batch) -> None:
        raise PartialFailure({0: Postponed("full", 9)})

    def on_refused(failed: Batch, why: dict[int, QtoolsError]) -> bool:
        raise AssertionError("asked")

    totals = await run(Flow(Feed(ledger.batch(7), None), Calls(write), on_refused=on_refused))
    assert (ledger.told, ledger.delays, adds_up(totals)) == ([("requeue", 7)], {7: 9}, True)


@pytest.mark.parametrize("error", [InputError("message 2 is too big"), KeyError("a defect of ours")])
async def test_a_refusal_that_raises_ends_the_flow_with_what_it_raised(error: Exception) -> None:
    ledger = Ledger()

    async def write(batch: Batch) -> None:
        raise refused(1)

    def on_refused(failed: Batch, why: dict[int, QtoolsError]) -> bool:
        raise error

    flow = Flow(Feed(ledger.batch(1, 2, 3)), Calls(write), on_refused=on_refused)
    with pytest.raises(type(error)) as caught:
        await run(flow)
    assert caught.value is error
    assert (ledger.finished, ledger.requeued) == ([1, 3], [2])
    assert adds_up(flow.totals)


async def test_a_closed_sink_ends_quietly_and_what_it_took_is_finished() -> None:
    ledger = Ledger()

    async def write(batch: Batch) -> None:
        raise SinkClosed("nobody reads", 2)

    totals = await run(Flow(Feed(ledger.batch(1, 2, 3, 4)), Calls(write)))
    assert totals == Totals(read=4, finished=2, finished_bytes=2 + 3, requeued=2, closed=True)
    assert ledger.told == [("finish", 1), ("finish", 2), ("requeue", 3), ("requeue", 4)]


async def test_a_sink_that_fails_ends_the_flow_and_what_it_took_is_finished() -> None:
    ledger = Ledger()

    async def write(batch: Batch) -> None:
        raise SinkError("the disk is full", 1)

    flow = Flow(Feed(ledger.batch(1, 2)), Calls(write))
    with pytest.raises(SinkError, match="the disk is full"):
        await run(flow)
    assert ledger.told == [("finish", 1), ("requeue", 2)]
    assert not flow.totals.closed


@pytest.mark.parametrize("error", [NetworkError("a:1", "gone"), ZeroDivisionError("a defect of ours")])
async def test_any_other_error_gives_the_whole_batch_back_and_is_raised(error: Exception) -> None:
    ledger = Ledger()

    async def write(batch: Batch) -> None:
        raise error

    flow = Flow(Feed(ledger.batch(1, 2)), Calls(write))
    with pytest.raises(type(error)) as caught:
        await run(flow)
    assert caught.value is error
    assert ledger.told == [("requeue", 1), ("requeue", 2)]
    assert adds_up(flow.totals)


async def test_when_a_write_fails_those_behind_it_are_given_back_or_finished_but_not_forgotten() -> None:
    ledger, sink = Ledger(), Hold()
    flow = Flow(Feed(*(ledger.batch(n) for n in range(4))), sink, window=5)
    running = asyncio.create_task(run(flow))
    await until(lambda: len(sink.writes) == 4)
    sink.writes[3].ok()
    sink.writes[2].fail(NetworkError("b:1", "gone as well"))
    sink.writes[0].fail(NetworkError("a:1", "gone"))
    with pytest.raises(NetworkError, match="a:1: gone"):
        await running
    assert sink.writes[1].cancelled
    assert sorted(ledger.told) == [("finish", 3), ("requeue", 0), ("requeue", 1), ("requeue", 2)]
    assert adds_up(flow.totals)


# ── damaged input ───────────────────────────────────────────────────────────────────────────────


async def test_what_was_read_before_the_damage_is_written_and_finished_first() -> None:
    ledger, sink = Ledger(), Hold()
    flow = Flow(Feed(ledger.batch(1), ledger.batch(2), InputError("broken at byte 7", 7)), sink, window=4)
    running = asyncio.create_task(run(flow))
    await until(lambda: len(sink.writes) == 2)
    for _ in range(20):
        await asyncio.sleep(0)
    assert not running.done()
    for writing in sink.writes:
        writing.ok()
    with pytest.raises(InputError, match="broken at byte 7"):
        await running
    assert ledger.told == [("finish", 1), ("finish", 2)]


async def test_what_was_gathered_before_the_damage_is_written_too() -> None:
    ledger, written = Ledger(), []

    async def write(batch: Batch) -> None:
        written.append(numbers(batch))

    source = Feed(ledger.batch(1), ledger.batch(2), InputError("broken at byte 7", 7))
    with pytest.raises(InputError, match="broken at byte 7"):
        await run(Flow(source, Calls(write), gather=Gather(FAR, FAR, 60)))
    assert written == [[1, 2]]
    assert ledger.finished == [1, 2]


async def test_a_write_that_fails_before_the_damage_is_what_is_told() -> None:
    ledger, sink = Ledger(), Hold()
    flow = Flow(Feed(ledger.batch(1), InputError("broken")), sink, window=2)
    running = asyncio.create_task(run(flow))
    await until(lambda: sink.writes)
    sink.writes[0].fail(NetworkError("a:1", "gone"))
    with pytest.raises(NetworkError):
        await running
    assert ledger.requeued == [1]


async def test_a_defect_in_the_source_is_raised_as_it_is() -> None:
    with pytest.raises(ZeroDivisionError):
        await run(Flow(Feed(ZeroDivisionError()), Hold()))


# ── stop ────────────────────────────────────────────────────────────────────────────────────────


async def test_a_stop_while_waiting_for_input_ends_at_once() -> None:
    source = Feed()
    flow = Flow(source, Hold())
    running = asyncio.create_task(run(flow))
    await until(lambda: source.reads)
    flow.stop()
    assert await running == Totals()


async def test_a_stop_before_the_start_reads_at_most_what_is_there() -> None:
    ledger = Ledger()
    flow = Flow(Feed(ledger.batch(1), ledger.batch(2), ledger.batch(3)), Hold(), drain_timeout=0.01)
    flow.stop()
    totals = await run(flow)
    assert totals.read <= 1
    assert adds_up(totals)


async def test_a_stop_lets_the_writes_under_way_end() -> None:
    ledger, sink = Ledger(), Hold()
    source = Feed(ledger.batch(1), ledger.batch(2), ledger.batch(3))
    flow = Flow(source, sink, window=2)
    running = asyncio.create_task(run(flow))
    await until(lambda: len(sink.writes) == 2)
    flow.stop()
    for _ in range(20):
        await asyncio.sleep(0)
    assert not running.done()
    sink.writes[1].ok()
    sink.writes[0].ok()
    totals = await running
    assert ledger.told == [("finish", 1), ("finish", 2)]
    assert totals.requeued == 0
    assert source.given == 2


async def test_a_write_that_never_ends_is_given_back_after_the_drain_timeout_and_what_ended_behind_it_is_finished() -> (
    None
):
    ledger, sink = Ledger(), Hold()
    flow = Flow(Feed(ledger.batch(1), ledger.batch(2)), sink, window=3, drain_timeout=0.05)
    running = asyncio.create_task(run(flow))
    await until(lambda: len(sink.writes) == 2)
    sink.writes[1].ok()
    begun = asyncio.get_running_loop().time()
    flow.stop()
    totals = await running
    assert 0.04 < asyncio.get_running_loop().time() - begun < 2
    assert sink.writes[0].cancelled
    assert (ledger.finished, ledger.requeued) == ([2], [1])
    assert adds_up(totals)


async def test_a_source_that_ended_waits_for_its_writes_until_a_stop() -> None:
    ledger, sink = Ledger(), Hold()
    flow = Flow(Feed(ledger.batch(1), None), sink, drain_timeout=0.01)
    running = asyncio.create_task(run(flow))
    await until(lambda: sink.writes)
    await asyncio.sleep(0.05)  # well beyond the drain timeout, which only a stop starts
    assert not running.done()
    flow.stop()
    await running
    assert ledger.requeued == [1]


async def test_no_write_is_left_when_the_flow_has_ended() -> None:
    """The sink is closed next, and only after its last write has returned."""
    ledger = Ledger()
    ended: list[str] = []

    async def write(batch: Batch) -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await asyncio.sleep(0)
            ended.append("write")

    flow = Flow(Feed(ledger.batch(1)), Calls(write), drain_timeout=0.01)
    running = asyncio.create_task(run(flow))
    await until(lambda: flow.totals.read)
    flow.stop()
    await running
    assert ended == ["write"]


async def test_a_stop_while_throttled_gives_back_what_did_not_pass() -> None:
    ledger, written = Ledger(), []

    async def write(batch: Batch) -> None:
        written.extend(numbers(batch))

    flow = Flow(Feed(ledger.batch(*range(10))), Calls(write), throttle=Throttle(0.001))
    running = asyncio.create_task(run(flow))
    await until(lambda: written)
    flow.stop()
    totals = await running
    assert written == ledger.finished == [0]
    assert ledger.requeued == list(range(1, 10))
    assert totals == Totals(read=10, finished=1, finished_bytes=1, requeued=9)


async def test_what_passes_the_throttle_keeps_its_order() -> None:
    ledger, written = Ledger(), []

    async def write(batch: Batch) -> None:
        written.append(len(batch))

    totals = await run(Flow(Feed(ledger.batch(*range(12)), None), Calls(write), throttle=Throttle(50)))
    assert ledger.finished == list(range(12))
    assert sum(written) == 12
    assert len(written) > 1
    assert totals.finished == 12


async def test_a_stop_while_gathering_gives_back_what_was_gathered() -> None:
    ledger, source = Ledger(), Feed()
    source.put(ledger.batch(1), ledger.batch(2))
    flow = Flow(source, Hold(), gather=Gather(FAR, FAR, 60))
    running = asyncio.create_task(run(flow))
    await until(lambda: source.given == 2 and source.reads == 3)
    flow.stop()
    totals = await running
    assert ledger.told == [("requeue", 1), ("requeue", 2)]
    assert totals == Totals(read=2, requeued=2)


async def test_a_stop_in_the_moment_a_read_ends_forgets_nothing() -> None:
    for steps in range(12):
        ledger, source = Ledger(), Feed()
        source.put(ledger.batch(1))
        flow = Flow(source, Hold(), gather=Gather(FAR, FAR, 60), drain_timeout=0.0)
        running = asyncio.create_task(run(flow))
        await until(lambda: source.reads == 2)  # noqa: B023
        source.put(ledger.batch(2))
        for _ in range(steps):
            await asyncio.sleep(0)
        flow.stop()
        totals = await running
        assert totals.read == source.given
        assert adds_up(totals)
        assert len(ledger.told) == source.given


async def test_the_gathered_is_handed_on_by_count_and_by_age() -> None:
    ledger, sink, source = Ledger(), Hold(), Feed()
    flow = Flow(source, sink, window=9, gather=Gather(3, FAR, 0.05))
    running = asyncio.create_task(run(flow))
    source.put(*(ledger.batch(n) for n in range(4)))
    await until(lambda: len(sink.writes) == 2)
    assert [numbers(writing.batch) for writing in sink.writes] == [[0, 1, 2], [3]]
    source.put(ledger.batch(4), None)
    await until(lambda: len(sink.writes) == 3)
    for writing in sink.writes:
        writing.ok()
    await running
    assert ledger.finished == [0, 1, 2, 3, 4]


async def test_a_source_is_not_read_again_after_its_end() -> None:
    ledger, sink = Ledger(), Hold()
    source = Feed(ledger.batch(1), None)
    flow = Flow(source, sink, gather=Gather(FAR, FAR, 60))
    running = asyncio.create_task(run(flow))
    await until(lambda: sink.writes)
    sink.writes[0].ok()
    await running
    assert source.reads == 2


async def test_a_flow_that_is_cancelled_gives_everything_back_and_reads_no_more() -> None:
    for build in (
        lambda source, sink: Flow(source, sink),
        lambda source, sink: Flow(source, sink, window=3, throttle=Throttle(30)),
        lambda source, sink: Flow(source, sink, window=3, gather=Gather(2, FAR, 60)),
    ):
        ledger, sink, source = Ledger(), Hold(), Feed()
        flow = build(source, sink)
        source.put(*(ledger.batch(n, n + 10) for n in range(3)))
        running = asyncio.create_task(run(flow))
        await until(lambda: sink.writes)  # noqa: B023
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        reads = source.reads
        source.put(ledger.batch(7))
        for _ in range(20):
            await asyncio.sleep(0)
        assert source.reads == reads
        assert sink.under_way == 0
        assert adds_up(flow.totals)
        assert len(ledger.requeued) == len(ledger.told) == flow.totals.read == source.given


# ── the task of the run ─────────────────────────────────────────────────────────────────────────


async def test_with_a_window_of_one_everything_runs_in_one_task() -> None:
    ledger = Ledger()
    tasks: set[asyncio.Task[Any] | None] = set()
    before = asyncio.all_tasks()

    async def write(batch: Batch) -> None:
        tasks.add(asyncio.current_task())
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == before

    for gather in (None, Gather(2, FAR, 60)):
        await Flow(Feed(ledger.batch(1), ledger.batch(2), ledger.batch(3), None), Calls(write), gather=gather).run()
    assert tasks == {asyncio.current_task()}
    assert ledger.finished == [1, 2, 3] * 2


@pytest.mark.parametrize("window", [1, 3])
async def test_a_stop_leaves_no_cancellation_behind(window: int) -> None:
    ledger, sink, source = Ledger(), Hold(), Feed()
    flow = Flow(source, sink, window=window, drain_timeout=0.01)

    async def run_and_go_on() -> int:
        await flow.run()
        await asyncio.sleep(0)
        task = asyncio.current_task()
        assert task is not None
        return task.cancelling()

    running = asyncio.create_task(run_and_go_on())
    source.put(ledger.batch(1))
    await until(lambda: sink.writes)
    flow.stop()
    assert await running == 0
    assert ledger.requeued == [1]


@pytest.mark.parametrize("window", [1, 3])
async def test_a_cancellation_beside_a_stop_is_raised(window: int) -> None:
    for stop_first in (True, False):
        ledger, sink, source = Ledger(), Hold(), Feed()
        flow = Flow(source, sink, window=window)
        running = asyncio.create_task(flow.run())
        await until(lambda: source.reads)  # noqa: B023
        if stop_first:
            flow.stop()
        running.cancel()
        flow.stop()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert ledger.told == []


@pytest.mark.parametrize("window", [1, 3])
async def test_a_stop_by_the_sink_and_by_the_source(window: int) -> None:
    ledger = Ledger()

    async def write(batch: Batch) -> None:
        flow.stop()
        await asyncio.sleep(0)

    flow = Flow(Feed(ledger.batch(1), ledger.batch(2), ledger.batch(3)), Calls(write), window=window)
    totals = await run(flow)
    assert 1 <= totals.finished == totals.read <= window

    class Stopping(Feed):
        async def read(self) -> Batch | None:
            flow.stop()
            return await super().read()

    flow = Flow(Stopping(), Hold(), window=window)
    assert await run(flow) == Totals()


@pytest.mark.parametrize("window", [1, 3])
async def test_a_write_that_cancels_itself_is_given_back_and_the_flow_goes_on(window: int) -> None:
    ledger = Ledger()

    async def write(batch: Batch) -> None:
        if numbers(batch) == [1]:
            raise asyncio.CancelledError

    await run(Flow(Feed(ledger.batch(1), ledger.batch(2), None), Calls(write), window=window))
    assert ledger.told == [("requeue", 1), ("finish", 2)]


# ── anything at all ─────────────────────────────────────────────────────────────────────────────

outcomes = st.sampled_from(["ok", "ok", "ok", "late", "never", "partial", "closed", "sink", "network", "defect"])
scripts = st.fixed_dictionaries(
    {
        "sizes": st.lists(st.integers(1, 6), max_size=8),
        "end": st.sampled_from(["end", "open", "damage"]),
        "outcomes": st.lists(outcomes, min_size=8, max_size=8),
        "cuts": st.lists(st.integers(0, 5), min_size=8, max_size=8),
        "window": st.integers(1, 4),
        "throttle": st.sampled_from([None, 40.0, 5000.0]),
        "gather": st.sampled_from([None, (3, 0.0), (4, 0.002), (FAR, 0.002)]),
        "on_refused": st.sampled_from([None, "settle", "back", "raise"]),
        "stop_after": st.one_of(st.none(), st.integers(0, 60)),
        "cancel": st.booleans(),
    }
)


async def play(script: dict[str, Any]) -> None:
    ledger, sink, source = Ledger(), Hold(), Feed()
    count = 0
    for size in script["sizes"]:
        source.put(ledger.batch(*range(count, count + size)))
        count += size
    if script["end"] != "open":
        source.put(None if script["end"] == "end" else InputError("damage"))

    def on_refused(failed: Batch, why: dict[int, QtoolsError]) -> bool:
        assert len(failed) == len(why)
        if script["on_refused"] == "raise":
            raise InputError("refused")
        return bool(script["on_refused"] == "settle")

    throttle, gather = script["throttle"], script["gather"]
    flow = Flow(
        source,
        sink,
        window=script["window"],
        throttle=None if throttle is None else Throttle(throttle),
        gather=None if gather is None else Gather(gather[0], FAR, gather[1]),
        on_refused=None if script["on_refused"] is None else on_refused,
        drain_timeout=0.002,
    )
    running = asyncio.create_task(run(flow))
    played = 0
    late = []
    endings: dict[str, Callable[[int, int], BaseException]] = {
        "partial": lambda size, cut: refused(*range(min(cut, size - 1), size)),
        "closed": lambda size, cut: SinkClosed("closed", min(cut, size)),
        "sink": lambda size, cut: SinkError("full", min(cut, size)),
        "network": lambda size, cut: NetworkError("a:1", "gone"),
        "defect": lambda size, cut: ZeroDivisionError(),
    }
    turn = 0
    while not running.done():
        while played < len(sink.writes):
            writing, outcome = sink.writes[played], script["outcomes"][played % 8]
            if outcome == "ok":
                writing.ok()
            elif outcome == "late":
                late.append(writing)
            elif outcome != "never":
                writing.fail(endings[outcome](len(writing.batch), script["cuts"][played % 8]))
            played += 1
        if turn % 5 == 4 and late:
            ended = late.pop()
            if not ended.end.done():
                ended.ok()
        stop_after = script["stop_after"]
        if turn == (60 if stop_after is None else stop_after):
            if script["cancel"] and stop_after is not None:
                running.cancel()
            else:
                flow.stop()
        turn += 1
        await asyncio.sleep(0 if turn < 200 else 0.0005)
    with contextlib.suppress(InputError, SinkError, NetworkError, ZeroDivisionError, asyncio.CancelledError):
        running.result()
    totals = flow.totals
    assert adds_up(totals)
    assert totals.read == source.given
    assert sorted(number for _, number in ledger.told) == list(range(totals.read))
    assert len(ledger.requeued) == totals.requeued
    assert sink.most <= script["window"]
    assert sink.under_way == 0
    for writing in sink.writes:
        if not writing.end.done():
            writing.end.cancel()
        elif not writing.end.cancelled():
            writing.end.exception()


@given(scripts)
@settings(max_examples=150, deadline=None)
def test_whatever_happens_all_that_was_read_is_finished_refused_or_given_back_once(script: dict[str, Any]) -> None:
    complaints: list[dict[str, Any]] = []

    async def whole() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        await play(script)
        gc.collect(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(whole())
    assert not complaints
