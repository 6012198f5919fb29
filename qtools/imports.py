"""Imports slow modules: in a thread, so that they do not block the event loop, and without what is not needed. In: a
module's name.

An import of httpx takes 100 ms on an idle machine and most of a second on a busy one. In the event loop it would delay
heartbeats and TOUCHes for as long, and messages in flight would time out and be delivered again.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import sys

# What httpx imports later, at the first client and the first request, which are made in the event loop.
_IMPORTED_LATER = {"httpx": ("httpcore", "anyio", "anyio._backends._asyncio")}

# What httpx and httpcore import where it is installed, and do not need here: the command line of httpx (with rich and
# pygments), and another event loop. Both take longer than the rest.
_NOT_NEEDED = {"httpx": ("httpx._main", "trio")}

_loaded: set[str] = set()


async def import_in_thread(name: str) -> None:
    """Import the module `name` in a thread, once for the process; an `import` statement then finds it loaded.

    Raises what the import raises. Concurrent callers wait until the module is loaded, each in a thread.
    """
    if name not in _loaded:
        await asyncio.to_thread(import_without_extras, name)
        _loaded.add(name)


def import_without_extras(name: str) -> None:
    """Import the module `name` now, without what it would import beside it and is not needed here."""
    left_out = [module for module in _NOT_NEEDED.get(name, ()) if module not in sys.modules]
    for module in left_out:
        sys.modules[module] = None  # type: ignore[assignment]  # an import of it fails, as where it is not installed
    try:
        importlib.import_module(name)
        for module in _IMPORTED_LATER.get(name, ()):
            with contextlib.suppress(ImportError):  # another version of httpx may not have it
                importlib.import_module(module)
    finally:
        for module in left_out:
            sys.modules.pop(module, None)
