"""One budget for the memory that a process holds for its clients. In: holders, a limit. Out: the slowest clients ended.

    every LOOK_SECONDS:  sum of memory() over all holders > limit ─▶ the holder with the most sheds, until it is under
                                                                     KEEP × limit, or none can shed any more

Limits of each client do not bound a process: three hundred clients that read nothing are three hundred times what one
may hold. The holders are asked now and then instead of being told of every byte: this costs a busy process nothing on
its hot paths. `note` looks at once when much has come since the last look.
"""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path
from typing import Protocol

log = logging.getLogger("qtools.web")

LOOK_SECONDS = 0.1
# Part of the limit that is left after shedding: else each look would end one client more.
KEEP = 0.8
NOTED = 0.1  # part of the limit that may come between two looks
WORTH_ENDING = 64 * 1024  # bytes: a client that holds less is not what is wrong
OVERHEAD = 100  # bytes that a message or an id needs in memory beside its own
SHARE = 4  # the default limit is this part of the machine's memory


class MemoryHolder(Protocol):
    """Something that holds memory for clients."""

    def memory(self) -> int:
        """Bytes that it holds now, about. It may remove itself from the budget."""

    def shed(self) -> str | None:
        """Give up what the slowest of its clients holds; what was done, for the log, or None when nothing can be."""


class MemoryBudget:
    """limit: bytes that all holders together may hold."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0  # bytes, at the last look
        self.shed = 0  # how often a client was ended
        self._holders: set[MemoryHolder] = set()
        self._noted = 0  # bytes since the last look
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    def add(self, holder: MemoryHolder) -> None:
        """Count what `holder` holds, until it is removed."""
        self._holders.add(holder)
        if self._timer is None:
            self._timer = self._loop.call_later(LOOK_SECONDS, self._look)

    def remove(self, holder: MemoryHolder) -> None:
        self._holders.discard(holder)

    def note(self, size: int) -> None:
        """`size` bytes came for clients. After many of them this looks at once: one turn of a busy event loop may read
        as much from its sockets as the whole limit."""
        self._noted += size
        if self._noted > self.limit * NOTED:
            self.look()

    @property
    def is_exhausted(self) -> bool:
        """Whether clients that want more memory have to wait, or to be refused."""
        return self.used > self.limit

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def look(self) -> None:
        """Hold what there is against the limit now."""
        self._noted = 0
        held = {holder: holder.memory() for holder in tuple(self._holders)}
        used = sum(held.values())
        if used > self.limit:
            for holder in sorted(held, key=held.__getitem__, reverse=True):
                while used > self.limit * KEEP and held[holder] >= WORTH_ENDING and (what := holder.shed()) is not None:
                    self.used = used
                    self.ended(what)
                    left = min(holder.memory(), held[holder])
                    used -= held[holder] - left
                    held[holder] = left
        self.used = used

    def ended(self, what: str) -> None:
        """Count, and log, that a client was ended for its memory."""
        self.shed += 1
        log.warning("%s: %s bytes are held for clients, --max-memory is %s", what, f"{self.used:,}", f"{self.limit:,}")

    def _look(self) -> None:
        self.look()
        self._timer = self._loop.call_later(LOOK_SECONDS, self._look) if self._holders else None
        if self._timer is None:
            self.used = 0


def default_limit() -> int:
    """A quarter of the memory that this process may have, in bytes: of the machine's, or of its control group's."""
    most = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in _group_files():
        try:
            text = Path(path).read_text().strip()
        except OSError:
            continue
        if text.isdigit():
            most = min(most, int(text))
    return most // SHARE


def _group_files() -> list[str]:
    """Where Linux says how much memory a control group may have: cgroups(7), versions 2 and 1."""
    files = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return files
    for line in lines:
        group = line.rpartition(":")[2].strip("/")
        if line.startswith("0::") and group:
            files.append(f"/sys/fs/cgroup/{group}/memory.max")
    return files
