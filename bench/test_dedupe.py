"""What remembering keys costs a message. Run: pytest bench/test_dedupe.py; each test says its ns per message.

A batch has 1000 keys of 32 bytes; a million are known before. With 10 million: pytest -m slow tests/flow/test_dedupe.py
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from qtools.flow.dedupe import DUPLICATE, NEW, Dedupe

COUNT = 1000
KNOWN = 1_000_000

Measure = Callable[..., Any]


def batch(number: int) -> list[bytes]:
    return [b"message %024d" % each for each in range(number * COUNT, (number + 1) * COUNT)]


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dedupe]:
    """A million keys; one more batch and the oldest goes."""
    made = Dedupe(tmp_path_factory.mktemp("dedupe") / "keys", window=1e9, max_keys=KNOWN)
    for number in range(KNOWN // COUNT):
        keys = batch(number)
        made.check_and_reserve(keys, 0.0)
        made.commit(keys, 0.0)
    yield made
    made.close()


@pytest.fixture
def measure(
    benchmark: BenchmarkFixture, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> Iterator[Measure]:
    """Time a call that sees to COUNT keys, and say what one of them cost."""
    yield benchmark.pedantic
    if benchmark.stats is not None:
        cost = benchmark.stats.stats.median / COUNT * 1e9
        benchmark.extra_info["ns_per_message"] = round(cost, 1)
        with capsys.disabled():
            print(f"\n{request.node.name:45} {cost:8.1f} ns per message", end="")


def test_duplicates(measure: Measure, known: Dedupe) -> None:
    keys = batch(KNOWN // COUNT - 1)
    verdicts = measure(known.check_and_reserve, (keys, 0.0), rounds=200)
    assert verdicts == [DUPLICATE] * COUNT


numbers = count(KNOWN // COUNT)


def test_new_ones_checked_committed_and_the_oldest_forgotten(measure: Measure, known: Dedupe) -> None:
    def both(keys: list[bytes]) -> int:
        verdicts = known.check_and_reserve(keys, 0.0)
        known.commit(keys, 0.0)
        return verdicts.count(NEW)

    assert measure(both, setup=lambda: ((batch(next(numbers)),), {}), rounds=500) == COUNT
    assert known.size == KNOWN


def test_new_ones_checked_and_released(measure: Measure, known: Dedupe) -> None:
    keys = batch(10**9)

    def both() -> None:
        known.check_and_reserve(keys, 0.0)
        known.release(keys)

    measure(both, rounds=200)
    assert known.reserved == 0
