"""What was sent before, over runs, while somebody sets the clock. Every clock here is a number."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qtools.cli.dedupe import Classified, DedupeStage, make_steady_clock
from qtools.cli.worker import Worker
from qtools.errors import SinkError, StartError
from qtools.expressions.expression import compile_expression
from qtools.flow.dedupe import Dedupe

WINDOW = 100.0


async def run(path: Path, clock: Callable[[], float], *keys: bytes) -> list[bytes]:
    """One run that sends what is new, and returns the keys of that."""
    stage = DedupeStage(compile_expression(".id"), path, window=WINDOW, max_keys=1000, clock=clock)
    await stage.start()
    classified = await stage.classify(dict(enumerate(keys)))
    await stage.settle(classified)
    await stage.close()
    return list(classified.new.values())


def test_the_two_steps(tmp_path: Path) -> None:
    async def steps() -> None:
        stage = DedupeStage(compile_expression(".id"), tmp_path / "keys", window=WINDOW, max_keys=10)
        await stage.start()
        assert stage.key({"id": 2**64 + 1}, b'{"id":18446744073709551617}') == b"18446744073709551617"
        assert stage.key({}, b"{}") is None
        classified = await stage.classify({0: b"a", 2: b"b", 3: b"a", 5: b"b"})
        assert classified == Classified({0: b"a", 2: b"b"}, [], {3: b"a", 5: b"b"})
        assert await stage.settle(classified, {2, 7}) == (1, [5])  # b was not sent, so the other b comes again
        classified = await stage.classify({0: b"a", 1: b"b"})
        assert classified == Classified({1: b"b"}, [0], {})
        await stage.release(classified)
        classified = await stage.classify({0: b"b"})
        assert classified == Classified({0: b"b"})
        assert await stage.settle(classified) == (0, [])
        with pytest.raises(StartError, match="in use by another process"):
            await DedupeStage(compile_expression("."), tmp_path / "keys", window=1, max_keys=1).start()
        await stage.close()
        await stage.close()

    asyncio.run(steps())


@pytest.mark.parametrize("equal", [False, True])
def test_a_batch_uses_the_file_twice_in_a_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, equal: bool) -> None:
    calls: list[str] = []

    async def count() -> None:
        stage = DedupeStage(compile_expression(".id"), tmp_path / "keys", window=WINDOW, max_keys=10)
        await stage.start()
        worker_call = Worker.call

        def counted(self: Worker, function: Any, *arguments: Any) -> Any:
            calls.append(function.__name__)
            return worker_call(self, function, *arguments)

        monkeypatch.setattr(Worker, "call", counted)
        classified = await stage.classify({0: b"a", 1: b"b", 2: b"a" if equal else b"c"})
        await stage.settle(classified, {1})
        assert len(calls) == 2
        await stage.settle(await stage.classify({}))
        assert len(calls) == 2
        await stage.close()

    asyncio.run(count())


def test_keys_that_cannot_be_written_are_released(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail() -> None:
        stage = DedupeStage(compile_expression(".id"), tmp_path / "keys", window=WINDOW, max_keys=10)
        await stage.start()
        classified = await stage.classify({0: b"a"})
        with monkeypatch.context() as patch:
            patch.setattr(Dedupe, "commit", commit_fails)
            with pytest.raises(SinkError, match="disk full"):
                await stage.settle(classified)
        assert await stage.classify({0: b"a"}) == classified  # new again, and not pending for ever
        await stage.close()

    def commit_fails(*arguments: object) -> None:
        raise SinkError("disk full")

    asyncio.run(fail())


def test_a_run_while_the_clock_is_ahead_does_not_stop_later_keys_from_expiring(tmp_path: Path) -> None:
    path = tmp_path / "keys"

    async def runs() -> None:
        assert await run(path, lambda: 1e9, b"early") == [b"early"]
        assert await run(path, lambda: 1000.0, b"a", b"early") == [b"a"]
        assert await run(path, lambda: 1099.0, b"a", b"early") == []
        assert await run(path, lambda: 1100.0, b"a", b"early") == [b"a", b"early"]

    asyncio.run(runs())


def test_a_clock_that_is_set_in_mid_run_changes_nothing(tmp_path: Path) -> None:
    wall, elapsed = [5000.0], [70.0]
    clock = make_steady_clock(lambda: wall[0], lambda: elapsed[0])
    assert clock() == 5000.0
    for wall[0] in (1e9, 0.0):
        assert clock() == 5000.0
    elapsed[0] += 99.0
    assert clock() == 5099.0

    async def one_run() -> None:
        stage = DedupeStage(compile_expression(".id"), tmp_path / "keys", window=WINDOW, max_keys=10, clock=clock)
        await stage.start()
        assert await stage.settle(await stage.classify({0: b"a"})) == (0, [])
        wall[0] = 1e9
        assert await stage.settle(await stage.classify({0: b"a"})) == (1, [])
        wall[0] = 0.0
        elapsed[0] += WINDOW
        assert await stage.settle(await stage.classify({0: b"a"})) == (0, [])
        await stage.close()

    asyncio.run(one_run())


def test_the_systems_clocks_are_used_without_a_given_one(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    assert make_steady_clock()() == pytest.approx(time.time(), abs=5)
    monkeypatch.delattr(time, "CLOCK_BOOTTIME", raising=False)
    assert make_steady_clock()() == pytest.approx(time.time(), abs=5)
