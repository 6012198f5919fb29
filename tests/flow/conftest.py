"""What the tests of the flow share."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest


@pytest.fixture
async def nothing_left() -> Any:
    """After the test no task is left, nor an error that was not retrieved, and the event loop has logged none."""
    loop = asyncio.get_running_loop()
    complaints: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    before = asyncio.all_tasks()
    yield
    gc.collect()
    await asyncio.sleep(0)
    assert not complaints
    assert asyncio.all_tasks() - before - {asyncio.current_task()} == set()
