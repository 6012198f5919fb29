"""The first messages are tried: where each of them fails the run ends, and none that is held is finished."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from qtools.cli import trial as module
from qtools.cli.trial import FIRST, Trial
from qtools.errors import EvaluationError, QtoolsError
from qtools.message import Batch


class Origin:
    topic = "t"
    address = "a"

    def finish(self, ids: Sequence[bytes]) -> None: ...
    def requeue(self, ids: Sequence[bytes], delay_ms: int) -> None: ...
    def touch(self, ids: Sequence[bytes]) -> None: ...


class Fed:
    """A source that hands over what a test feeds it; None is the end."""

    def __init__(self) -> None:
        self.batches: asyncio.Queue[Batch | None] = asyncio.Queue()
        self.empty = asyncio.Event()  # set when a read finds nothing fed

    def feed(self, *bodies: bytes) -> None:
        self.batches.put_nowait(Batch.of_bodies(Origin(), list(bodies)))

    def end(self) -> None:
        self.batches.put_nowait(None)

    async def read(self) -> Batch | None:
        if self.batches.empty():
            self.empty.set()
        return await self.batches.get()

    async def close(self) -> None: ...


async def failures(batch: Batch) -> dict[int, EvaluationError]:
    return {place: EvaluationError(f"no {body!r}") for place, body in enumerate(batch.bodies) if body == b"bad"}


async def read(trial: Trial) -> list[bytes] | None:
    async with asyncio.timeout(5):
        batch = await trial.read()
    return None if batch is None else list(batch.bodies)


async def test_a_batch_with_an_answer_goes_on_at_once_with_what_was_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSE_SECONDS", 1000.0)
    fed = Fed()
    trial = Trial(fed, failures)
    fed.feed(b"bad", b"bad")
    reading = asyncio.create_task(read(trial))
    await asyncio.sleep(0)
    fed.feed(b"bad", b"good")
    assert await reading == [b"bad", b"bad", b"bad", b"good"]
    for _ in range(3):  # the trial is over
        fed.feed(*[b"bad"] * FIRST)
        assert await read(trial) == [b"bad"] * FIRST
    fed.end()
    assert await read(trial) is None


async def test_a_thousand_failures_are_the_end_and_none_was_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSE_SECONDS", 1000.0)
    fed = Fed()
    for _ in range(10):
        fed.feed(*[b"bad"] * 100)
    trial = Trial(fed, failures)
    with pytest.raises(
        QtoolsError, match=r"failed on each of the first 1,000 messages; on the first one: no b'bad'\. Stopping"
    ) as it:
        await read(trial)
    assert (it.value.exit_status, trial.requeued) == (1, 1000)


async def test_one_less_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0.05)
    fed = Fed()
    trial = Trial(fed, failures)
    fed.feed(*[b"bad"] * (FIRST - 1))
    assert await read(trial) == [b"bad"] * (FIRST - 1)  # nothing else comes: a person who waits is not kept waiting
    fed.feed(b"bad")
    with pytest.raises(QtoolsError, match="failed on each of the first 1,000 messages"):
        await read(trial)


async def test_the_end_hands_on_what_is_held() -> None:
    fed = Fed()
    trial = Trial(fed, failures)
    fed.feed(b"bad")
    fed.end()
    assert await read(trial) == [b"bad"]
    fed.end()
    assert await read(trial) is None


@pytest.mark.parametrize("most", [1, 2])
async def test_no_more_is_held_than_may_be_in_flight(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(module, "PAUSE_SECONDS", 1000.0)
    fed = Fed()
    fed.feed(b"bad")
    fed.feed(b"bad")
    assert await read(Trial(fed, failures, most=most)) == [b"bad"] * most


async def test_nor_more_bytes_than_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSE_SECONDS", 1000.0)
    monkeypatch.setattr(module, "MOST_BYTES", 6)
    fed = Fed()
    fed.feed(b"bad")
    fed.feed(b"bad")
    assert await read(Trial(fed, failures)) == [b"bad", b"bad"]


async def test_a_stop_while_it_holds_leaves_nothing_running() -> None:
    fed = Fed()
    trial = Trial(fed, failures)
    fed.feed(b"bad")
    reading = asyncio.create_task(trial.read())
    async with asyncio.timeout(5):
        await fed.empty.wait()  # the first batch is buffered, and the second read is under way
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert len(asyncio.all_tasks()) == 1
