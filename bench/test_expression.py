"""What a filter expression costs on a parsed message, and the filter pass on a raw one, parsing included.

Run: pytest bench/test_expression.py; each test says its ns a message.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from qtools.expressions.expression import compile_expression
from qtools.flow.filter import Filter
from qtools.message import Batch

EVENT = {"type": "purchase", "amount": 150, "messageId": "m-1", "user": {"name": "Ada", "tags": ["new", "vip"]}}
ROUNDS = 1000


@pytest.fixture
def measure(
    benchmark: BenchmarkFixture, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> Iterator[Callable[[str], Any]]:
    """Evaluate an expression ROUNDS times, and say what one of them cost."""

    def run(text: str) -> Any:
        evaluate = compile_expression(text).evaluate
        places = range(ROUNDS)

        def many() -> None:
            for _ in places:
                evaluate(EVENT)

        benchmark(many)
        return evaluate(EVENT)

    yield run
    if benchmark.stats is not None:
        cost = benchmark.stats.stats.min / ROUNDS * 1e9
        benchmark.extra_info["ns"] = round(cost, 1)
        with capsys.disabled():
            print(f"\n{request.node.name:75} {cost:8.1f} ns", end="")


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ('.type == "purchase"', True),
        ('.type == "purchase" and .amount > 100', True),
        ('.type == "refund" or (.amount > 100 and .user.name == "Ada")', True),
        ('"events.\\(.type)"', "events.purchase"),
        ("{id: .messageId, amount}", {"id": "m-1", "amount": 150}),
        ('.user.tags | any(. == "vip")', True),
        ('.type | startswith("pur")', True),
        ('.type | test("^pur(chase)?$")', True),
    ],
)
def test_evaluate(measure: Callable[[str], Any], text: str, result: Any) -> None:
    assert measure(text) == result


class Nowhere:
    """The origin of messages that nothing acknowledges."""

    topic = "events"
    address = ""
    is_lost = False

    def finish(self, ids: Sequence[Any]) -> None: ...
    def requeue(self, ids: Sequence[Any], delay_ms: int) -> None: ...
    def touch(self, ids: Sequence[Any]) -> None: ...


BODIES = [
    b'{"n": %6d, "type": "%s", "amount": %d, "text": "%s"}' % (n, b"purchase" if n % 2 else b"view", n, b"x" * 120)
    for n in range(ROUNDS)
]
BATCH = Batch.of_bodies(Nowhere(), BODIES)


@pytest.mark.parametrize(
    ("where", "select", "passed"),
    [
        ('.type == "purchase"', None, 500),
        ('.type == "purchase" and .amount > 500', None, 250),
        (None, "{n, amount}", 1000),
        ('$topic == "events" and .amount > 500', None, 499),
        ('$topic == "events"', None, 1000),
    ],
)
def test_filter_pass(
    benchmark: BenchmarkFixture,
    capsys: pytest.CaptureFixture[str],
    where: str | None,
    select: str | None,
    passed: int,
) -> None:
    compiled = [None if text is None else compile_expression(text) for text in (where, select)]
    rules = Filter(*compiled)
    places, _, _ = benchmark(rules.run, BATCH)
    assert len(places) == passed
    if benchmark.stats is not None:
        with capsys.disabled():
            print(f"\n{where or select:75} {benchmark.stats.stats.min / ROUNDS * 1e9:8.1f} ns", end="")
