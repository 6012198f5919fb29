"""What the client's tests share."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any

import pytest


@pytest.fixture
async def tidy() -> AsyncIterator[None]:
    """Nobody complains, and no task is left over: neither running nor with an error that nobody has seen."""
    loop = asyncio.get_running_loop()
    complaints: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    before = asyncio.all_tasks()
    yield
    for _ in range(5):  # what was closed comes to its end
        await asyncio.sleep(0)
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    gc.collect()
    assert not complaints
    assert not {task for task in left if not task.get_coro().__qualname__.startswith("Web.")}  # type: ignore[union-attr]
