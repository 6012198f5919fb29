"""Imports modules in a thread, so that a slow import does not block the event loop. In: a module's name.

An import of httpx takes 50 ms on an idle machine and most of a second on a busy one. In the event loop it would delay
heartbeats and TOUCHes for as long, and messages in flight would time out and be delivered again.
"""

from __future__ import annotations

import asyncio
import importlib

_loaded: set[str] = set()


async def import_in_thread(name: str) -> None:
    """Import the module `name` in a thread, once for the process; an `import` statement then finds it loaded.

    Raises what the import raises. Concurrent callers wait until the module is loaded, each in a thread.
    """
    if name not in _loaded:
        await asyncio.to_thread(importlib.import_module, name)
        _loaded.add(name)
