"""The one loop: what is acknowledged when and in which order, and what the sink or the source does not give."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

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
from qtools.message import Batch
from tests.flow.flows import FAR, adds_up, refused, run
from tests.flow.memory import Calls, Feed, Hold, Ledger, numbers, until

pytestmark = pytest.mark.usefixtures("nothing_left")


# ── all goes well ─────────────────────────────────────────────────────────────────────────────────


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


# ── what the sink does not take ───────────────────────────────────────────────────────────────────


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


# ── damaged input ─────────────────────────────────────────────────────────────────────────────────


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
