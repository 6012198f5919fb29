"""What was sent before, over runs, while somebody sets the clock. Every clock here is a number."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from qtools.cli.dedupe import DedupeStage, make_steady_clock
from qtools.errors import StartError
from qtools.expressions.expression import compile_expression
from qtools.flow.dedupe import DUPLICATE, NEW, PENDING, Verdict

WINDOW = 100.0


async def run(path: Path, clock: Callable[[], float], *keys: bytes) -> list[Verdict]:
    """One run that sends what is new."""
    stage = DedupeStage(compile_expression(".id"), path, window=WINDOW, max_keys=1000, clock=clock)
    await stage.start()
    verdicts = await stage.check(keys)
    await stage.commit([key for key, verdict in zip(keys, verdicts, strict=True) if verdict is NEW])
    await stage.close()
    return verdicts


def test_the_two_steps(tmp_path: Path) -> None:
    async def steps() -> None:
        stage = DedupeStage(compile_expression(".id"), tmp_path / "keys", window=WINDOW, max_keys=10)
        await stage.start()
        assert stage.key({"id": 2**64 + 1}, b'{"id":18446744073709551617}') == b"18446744073709551617"
        assert stage.key({}, b"{}") is None
        assert await stage.check([b"a", b"b", b"a"]) == [NEW, NEW, PENDING]
        stage.release([b"b"])
        await stage.commit([b"a"])
        assert await stage.check([b"a", b"b"]) == [DUPLICATE, NEW]
        with pytest.raises(StartError, match="in use by another process"):
            await DedupeStage(compile_expression("."), tmp_path / "keys", window=1, max_keys=1).start()
        await stage.close()
        await stage.close()

    asyncio.run(steps())


def test_a_run_while_the_clock_is_ahead_does_not_stop_later_keys_from_expiring(tmp_path: Path) -> None:
    path = tmp_path / "keys"

    async def runs() -> None:
        assert await run(path, lambda: 1e9, b"early") == [NEW]
        assert await run(path, lambda: 1000.0, b"a", b"early") == [NEW, DUPLICATE]
        assert await run(path, lambda: 1099.0, b"a", b"early") == [DUPLICATE, DUPLICATE]
        assert await run(path, lambda: 1100.0, b"a", b"early") == [NEW, NEW]

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
        await stage.check([b"a"])
        await stage.commit([b"a"])
        wall[0] = 1e9
        assert await stage.check([b"a"]) == [DUPLICATE]
        wall[0] = 0.0
        elapsed[0] += WINDOW
        assert await stage.check([b"a"]) == [NEW]
        await stage.close()

    asyncio.run(one_run())


def test_the_systems_clocks_are_used_without_a_given_one(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    assert make_steady_clock()() == pytest.approx(time.time(), abs=5)
    monkeypatch.delattr(time, "CLOCK_BOOTTIME", raising=False)
    assert make_steady_clock()() == pytest.approx(time.time(), abs=5)
