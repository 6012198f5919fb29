"""Whatever a source and a sink do, all that was read is finished, refused or given back once."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qtools.errors import (
    InputError,
    NetworkError,
    QtoolsError,
    SinkClosed,
    SinkError,
)
from qtools.flow.gather import Gather
from qtools.flow.loop import Flow
from qtools.flow.throttle import Throttle
from qtools.message import Batch
from tests.flow.flows import FAR, adds_up, refused, run
from tests.flow.memory import Feed, Hold, Ledger

pytestmark = pytest.mark.usefixtures("nothing_left")


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
            if writing.end.done():
                pass  # the flow has given it up
            elif outcome == "ok":
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
