"""The frames of messages in flight. In: ranges as they are delivered. Out: nothing; the oldest ranges lose their
frames.

A message that is requeued or times out is delivered again from memory if its frames are there, and is read from disk
otherwise. One message in flight keeps the frames of its whole block in memory. A client that finishes most messages,
but not a few of each block, would fill the memory. So frames are kept only for the ranges that were delivered last, up
to TOTAL bytes over all channels.
"""

from __future__ import annotations

from collections import deque

from qtools.broker.core.block import MessageRange

TOTAL = 16 * 1024 * 1024  # bytes of frames, and of the ranges themselves
RUN = 256  # bytes that a range and its entry here take


class InFlight:
    """The ranges in flight of all channels of a store."""

    __slots__ = ("_bytes", "_last", "_runs")

    def __init__(self) -> None:
        self._runs: deque[tuple[MessageRange, int]] = deque()
        self._bytes = 0
        self._last = 0  # the number of the last block

    def add(self, run: MessageRange) -> None:
        """Add `run`, which is being delivered. It keeps its frames until TOTAL bytes were added after it."""
        block = run.block
        size = RUN
        if block.seq != self._last:  # otherwise its frames are counted already
            size += len(block.frames)
            self._last = block.seq
        runs = self._runs
        runs.append((run, size))
        self._bytes += size
        while self._bytes > TOTAL and len(runs) > 1:
            old, size = runs.popleft()
            self._bytes -= size
            if old.left:
                old.block = old.block.cold()

    def __repr__(self) -> str:
        return f"<InFlight {len(self._runs)} runs, {self._bytes} bytes>"
