"""The budget sheds the largest holders first, and only as much as it has to."""

from __future__ import annotations

import pytest

from qtools.web.memory_budget import KEEP, WORTH_ENDING, MemoryBudget, default_limit

MB = 1 << 20


class Clients:
    """A holder of some clients, each with what it holds; `may_end` says whether they can be ended."""

    def __init__(self, *sizes: int, may_end: bool = True) -> None:
        self.sizes = list(sizes)
        self.may_end = may_end

    def memory(self) -> int:
        return sum(self.sizes)

    def shed(self) -> str | None:
        if not self.sizes or not self.may_end:
            return None
        self.sizes.remove(max(self.sizes))
        return "ended a client"


async def budget_of(limit: int, *holders: Clients) -> MemoryBudget:
    budget = MemoryBudget(limit)
    for holder in holders:
        budget.add(holder)
    budget.look()
    budget.close()
    return budget


async def test_within_the_limit_nothing_is_ended() -> None:
    clients = Clients(4 * MB, 6 * MB)
    budget = await budget_of(10 * MB, clients)
    assert (budget.used, budget.shed, budget.is_exhausted) == (10 * MB, 0, False)


async def test_beyond_it_the_largest_are_ended_until_there_is_some_room(caplog: pytest.LogCaptureFixture) -> None:
    small, large = Clients(1 * MB, 1 * MB), Clients(2 * MB, 5 * MB, 3 * MB)
    budget = await budget_of(10 * MB, small, large)
    assert (small.sizes, large.sizes) == ([1 * MB, 1 * MB], [2 * MB, 3 * MB])
    assert (budget.used, budget.shed, budget.is_exhausted) == (7 * MB, 1, False)
    assert budget.used <= 10 * MB * KEEP
    assert caplog.messages == ["ended a client: 12,582,912 bytes are held for clients, --max-memory is 10,485,760"]


async def test_where_nothing_can_be_ended_it_is_exhausted() -> None:
    waiting, idle = Clients(12 * MB, may_end=False), Clients(WORTH_ENDING - 1)
    budget = await budget_of(10 * MB, waiting, idle)
    assert budget.is_exhausted
    assert idle.sizes  # a client that holds next to nothing is not to blame
    waiting.sizes = [1]
    budget.look()
    assert not budget.is_exhausted


async def test_much_at_once_is_looked_at_at_once() -> None:
    clients = Clients()
    budget = MemoryBudget(10 * MB)
    budget.add(clients)
    clients.sizes += [6 * MB, 7 * MB]
    budget.note(MB // 2)
    assert budget.shed == 0
    budget.note(MB)
    assert budget.shed == 1
    budget.remove(clients)
    budget.close()


def test_the_default_is_a_quarter_of_the_memory_there_is() -> None:
    with open("/proc/meminfo") as file:
        total = int(next(line for line in file if line.startswith("MemTotal")).split()[1]) * 1024
    assert 0 < default_limit() <= total // 4
