"""One limit for the memory that a process holds for its clients. In: holders of memory. Out: the slowest clients ended.

    every LOOK_SECONDS: if the sum of memory() over all holders is above the limit, the holder with the most memory ends
    clients (`shed`) until the sum is below KEEP × limit, or no client is left to end

A limit for each client does not bound a process: three hundred clients that read nothing hold three hundred times that
limit. The holders are asked at intervals instead of reporting every byte, which costs nothing on hot paths. `note`
checks at once when much has arrived since the last check.
"""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path
from typing import Protocol

log = logging.getLogger("qtools.web")

LOOK_SECONDS = 0.1
# Part of the limit that may be in use after clients were ended; else each check would end one more.
KEEP = 0.8
NOTED = 0.1  # part of the limit that may arrive between two checks
WORTH_ENDING = 64 * 1024  # bytes: a client that holds less is not the cause
OVERHEAD = 100  # bytes that a message or an id takes in memory beside its own bytes
SHARE = 4  # the default limit is this part of the machine's memory


class MemoryHolder(Protocol):
    """Something that holds memory for clients."""

    def memory(self) -> int:
        """About how many bytes it holds now. It may remove itself from the budget."""

    def shed(self) -> str | None:
        """End the slowest of its clients. Returns what was done, for the log; None when no client can be ended."""


class MemoryBudget:
    """limit: bytes that all holders together may hold. used: bytes at the last check. shed: clients that were ended."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self.shed = 0
        self._holders: set[MemoryHolder] = set()
        self._noted = 0  # bytes that have arrived since the last check
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    def add(self, holder: MemoryHolder) -> None:
        """Count the memory of `holder`, until it is removed."""
        self._holders.add(holder)
        if self._timer is None:
            self._timer = self._loop.call_later(LOOK_SECONDS, self._look)

    def remove(self, holder: MemoryHolder) -> None:
        self._holders.discard(holder)

    def note(self, size: int) -> None:
        """Note that `size` bytes arrived. After many of them this checks at once: one turn of a busy event loop may
        read as much as the whole limit from its sockets."""
        self._noted += size
        if self._noted > self.limit * NOTED:
            self.look()

    @property
    def is_exhausted(self) -> bool:
        """Whether clients that need more memory have to wait, or are refused."""
        return self.used > self.limit

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def look(self) -> None:
        """Compare the memory of all holders with the limit now, and end clients if it is exceeded."""
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
    """A quarter of the memory that this process may use, in bytes: that of the machine, or of its control group."""
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
    """The files with the memory limit of the control group: cgroups(7), versions 2 and 1."""
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
