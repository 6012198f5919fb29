"""Modules that take long to import, imported without holding up the event loop. In: a module's name. Out: it is loaded.

An import of httpx takes 50 ms on an idle machine and most of a second on a busy one. In the event loop it would stop
heartbeats and TOUCHes for as long, and messages that are held would be delivered again elsewhere.
"""

from __future__ import annotations

import asyncio
import importlib

_loaded: set[str] = set()


async def import_in_thread(name: str) -> None:
    """Import the module `name` in a thread, once for the process; an `import` statement then finds it loaded.

    Raises what the import raises. Callers that come while the import is under way wait for it, each in a thread.
    """
    if name not in _loaded:
        await asyncio.to_thread(importlib.import_module, name)
        _loaded.add(name)
