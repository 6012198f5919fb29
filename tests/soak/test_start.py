"""How a run begins and ends, on the engine in memory: probes that do not arrive, publishes that fail."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Sequence
from typing import Any

import pytest

from qtools.cli.run import Signals
from qtools.engines.contract import PublisherOptions
from qtools.errors import NetworkError, StartError
from qtools.flow.contract import GroupAttributes, Refused
from qtools.names import Subscription
from qtools.soak import app
from qtools.soak.app import soak
from qtools.soak.options import SoakOptions
from tests.engines.memory import MemoryEngine, MemoryPublisher

OWN = "soak-own"


def options_of(engine: MemoryEngine, **more: Any) -> SoakOptions:
    made = {"subscription": Subscription(OWN, OWN), "topic": OWN, "count": 20_000, "as_json": True, "settle": 0.3}
    return SoakOptions(engine=engine, to_engine=engine, run=b"12345678", **(made | more))


async def test_a_run_in_memory_removes_its_topic(capsys: pytest.CaptureFixture[str]) -> None:
    engine = MemoryEngine()
    assert await soak(options_of(engine, ordered=True, no_duplicates=True), Signals()) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["read"], result["lost"], result["out_of_order"]) == (20_000, 0, 0)
    assert engine.all == {}


async def test_keys_go_round(capsys: pytest.CaptureFixture[str]) -> None:
    engine = MemoryEngine()
    assert await soak(options_of(engine, keys=7, count=5_000, keep=True), Signals()) == 0
    keys = engine.topic(OWN).keys
    assert [key for key in keys if key is not None] == [b"%d" % (number % 7) for number in range(5_000)]


@pytest.mark.parametrize("moves", [True, False])
async def test_a_path_that_is_closed_is_no_loss(monkeypatch: pytest.MonkeyPatch, moves: bool) -> None:
    monkeypatch.setattr(app, "START_TIMEOUT", 0.2)
    engine = MemoryEngine()
    options = options_of(engine, topic="in", subscription=Subscription("out", "own"), moves=moves, is_own_topic=False)
    with pytest.raises(StartError, match="nothing that was published to in of memory has arrived at out/own") as caught:
        await soak(options, Signals())
    assert ("is the program running that moves the messages?" in str(caught.value)) is moves
    assert "own" not in engine.topic("out").channels


class UnsurePublisher(MemoryPublisher):
    """After the probes, each third publish fails; of these each second one has reached the topic."""

    calls = 0

    async def publish(
        self,
        groups: Sequence[tuple[str, Sequence[bytes]]],
        delay_ms: int | None = None,
        *,
        attributes: GroupAttributes | None = None,
    ) -> Refused:
        self.calls += len(groups[0][1]) > 1
        fails = self.calls % 3 == 2
        if not fails or self.calls % 2:
            await super().publish(groups, delay_ms, attributes=attributes)
        if fails:
            raise NetworkError("memory", "the connection was lost")
        return {}


class UnsureEngine(MemoryEngine):
    def publisher(self, options: PublisherOptions | None = None) -> MemoryPublisher:
        return UnsurePublisher(self, options or PublisherOptions())


async def test_what_was_not_confirmed_is_not_lost(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("qtools.soak.publishing.next_delay", lambda failures: 0.0)
    assert await soak(options_of(UnsureEngine(), count=18_000), Signals()) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["sent"], result["confirmed"], result["unconfirmed"]) == (18_000, 12_000, 6_000)
    assert (result["unconfirmed_delivered"], result["lost"], result["read"]) == (3_000, 0, 15_000)
    assert caplog.messages == ["1,000 messages not confirmed: memory: the connection was lost"]


async def test_a_run_in_which_nothing_was_confirmed_has_failed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qtools.soak.publishing.next_delay", lambda failures: 0.0)
    monkeypatch.setattr(UnsurePublisher, "calls", 1)
    assert await soak(options_of(UnsureEngine(), count=500), Signals()) == 1
    assert json.loads(capsys.readouterr().out)["faults"] == ["no message was confirmed"]


class StuckPublisher(MemoryPublisher):
    """As if the broker did not answer."""

    def __init__(self, engine: StuckEngine, options: PublisherOptions) -> None:
        super().__init__(engine, options)
        self._called = engine.called

    async def publish(
        self,
        groups: Sequence[tuple[str, Sequence[bytes]]],
        delay_ms: int | None = None,
        *,
        attributes: GroupAttributes | None = None,
    ) -> Refused:
        self._called.set()
        await asyncio.Event().wait()
        return {}


class StuckEngine(MemoryEngine):
    def __init__(self) -> None:
        super().__init__()
        self.called = asyncio.Event()

    def publisher(self, options: PublisherOptions | None = None) -> MemoryPublisher:
        return StuckPublisher(self, options or PublisherOptions())


async def test_a_signal_while_the_first_message_is_not_confirmed(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    engine, signals = StuckEngine(), Signals()
    run = asyncio.create_task(soak(options_of(engine), signals))
    await engine.called.wait()
    signals.handle(signal.SIGTERM)
    async with asyncio.timeout(5):
        assert await run == 0
    assert capsys.readouterr().out == ""
    assert caplog.messages == ["ended before the test had begun"]


async def test_a_first_message_that_is_never_confirmed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "START_TIMEOUT", 0.2)
    with pytest.raises(StartError, match="soak-own of memory: a message was not confirmed within"):
        await soak(options_of(StuckEngine()), Signals())
