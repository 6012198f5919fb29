"""How the loop ends: by a stop, a cancellation, or the end of its source; nothing is forgotten or left behind."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from qtools.flow.gather import Gather
from qtools.flow.loop import Flow, Totals
from qtools.flow.throttle import Throttle
from qtools.message import Batch
from tests.flow.flows import FAR, adds_up, run
from tests.flow.memory import Calls, Feed, Hold, Ledger, numbers, until

pytestmark = pytest.mark.usefixtures("nothing_left")


# ── stop ──────────────────────────────────────────────────────────────────────────────────────────


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


# ── the task of the run ───────────────────────────────────────────────────────────────────────────


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
