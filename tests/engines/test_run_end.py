"""A run that ends by itself, for an engine that is asked what is left."""

from __future__ import annotations

import asyncio

import pytest

from qtools.engines import run_end
from qtools.engines.contract import EndConditions
from qtools.engines.run_end import PolledRunEnd
from qtools.errors import NetworkError
from qtools.names import Subscription

HERE = Subscription("events", "own")


class Source(PolledRunEnd):
    """left: messages that are not finished, in all and of those that were there at the start."""

    in_flight = 0

    def __init__(self, ends: EndConditions, left: int = 0, left_of_start: int = 0) -> None:
        super().__init__(ends, "broker:1")
        self.subscriptions = [HERE]
        self.received = 0
        self.left, self.left_of_start = left, left_of_start
        self.begun = True
        self.asked = 0
        self.looks = 0  # how often the loop has begun anew
        self.error: NetworkError | None = None
        self.is_ended = False

    def end(self) -> None:
        self.is_ended = True

    def has_begun(self) -> bool:
        self.looks += 1
        return self.begun

    async def is_finished(self, *, at_start: bool) -> bool:
        self.asked += 1
        if self.error is not None:
            raise self.error
        return not (self.left_of_start if at_start else self.left)

    async def until_asked(self, times: int) -> None:
        while self.asked < times:  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0.002)

    async def until_looked(self) -> None:
        """Return when the loop has seen what is the case now."""
        seen = self.looks + 2
        while self.looks < seen:  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0.002)


class Clock:
    """In place of the module `time`."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(run_end, "ASK_INTERVAL", 0.001)
    monkeypatch.setattr(run_end, "time", made)
    return made


async def test_without_a_condition_nothing_ends() -> None:
    source = Source(EndConditions())
    assert not await source.wait_for_end()
    assert not source.is_ended


async def test_until_empty_waits_for_what_is_left_and_what_is_in_flight() -> None:
    source = Source(EndConditions(until_empty=True), left=1)
    ending = asyncio.create_task(source.wait_for_end())
    await source.until_asked(2)
    assert not ending.done()
    source.in_flight, source.left = 1, 0
    await source.until_looked()
    asked = source.asked
    await source.until_looked()
    assert (ending.done(), source.asked) == (False, asked)  # while a message is in flight nothing is asked
    source.in_flight = 0
    assert await ending
    assert source.is_ended


async def test_until_now_leaves_what_came_later() -> None:
    source = Source(EndConditions(until_now=True), left=9, left_of_start=1)
    ending = asyncio.create_task(source.wait_for_end())
    await source.until_asked(2)
    assert not ending.done()
    source.left_of_start = 0
    assert await ending
    assert source.left == 9


async def test_idle_timeout_counts_from_the_begin_and_from_each_message(clock: Clock) -> None:
    source = Source(EndConditions(idle_timeout=5.0))
    source.begun = False
    ending = asyncio.create_task(source.wait_for_end())
    await source.until_looked()
    clock.now += 60
    await source.until_looked()
    source.begun = True
    await source.until_looked()
    for _ in range(3):
        clock.now += 4.9
        await source.until_looked()
        assert not ending.done()
        source.received += 1
        await source.until_looked()
    source.in_flight = 1
    clock.now += 60
    await source.until_looked()
    source.in_flight = 0
    await source.until_looked()
    assert not ending.done()
    clock.now += 5.0
    assert await ending
    assert source.asked == 0


async def test_a_broker_that_is_away_is_asked_again_for_a_while(clock: Clock) -> None:
    source = Source(EndConditions(until_empty=True))
    source.error = NetworkError("broker:1", "is away")
    ending = asyncio.create_task(source.wait_for_end())
    await source.until_asked(1)
    clock.now += run_end.AWAY
    await source.until_asked(source.asked + 2)
    source.error = None
    assert await ending
    source = Source(EndConditions(until_empty=True))
    source.error = NetworkError("broker:1", "is away")
    ending = asyncio.create_task(source.wait_for_end())
    await source.until_asked(1)
    clock.now += run_end.AWAY + 1
    with pytest.raises(NetworkError, match="is away"):
        await ending
    assert source.is_ended


async def test_what_counts_is_drained() -> None:
    source = Source(EndConditions(), left=1)
    assert await source.is_drained_on(lambda *_: False, "--complete-marker")
    assert not source.asked
    seen: list[tuple[Subscription, str]] = []

    def counts(subscription: Subscription, address: str) -> bool:
        seen.append((subscription, address))
        return True

    assert not await source.is_drained_on(counts, "--complete-marker")
    assert seen == [(HERE, "broker:1")]
    waiting = asyncio.create_task(source.wait_until_empty())
    await source.until_asked(3)
    assert not waiting.done()
    source.left = 0
    await waiting
    assert await source.is_drained_on(counts, "--complete-marker")
