"""Long work that lets the event loop run in between. In: a generator that yields where it may pause. Out: its result.

With 10,000 topics /stats takes some tenths of a second. Without pauses no client would be served for that time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator
from typing import TypeVar

Result = TypeVar("Result")
Steps = Generator[None, None, Result]

SLICE = 0.01  # s


def in_one(steps: Steps[Result]) -> Result:
    """Run a generator to its end without pauses. Returns its result."""
    try:
        while True:
            next(steps)
    except StopIteration as end:
        result: Result = end.value
        return result


async def in_slices(steps: Steps[Result]) -> Result:
    """Run a generator to its end, and let the event loop run after each SLICE. Returns its result."""
    clock = time.perf_counter
    until = clock() + SLICE
    try:
        while True:
            next(steps)
            if clock() >= until:
                await asyncio.sleep(0)
                until = clock() + SLICE
    except StopIteration as end:
        result: Result = end.value
        return result
