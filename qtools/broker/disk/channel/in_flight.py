"""Frames of what clients have in flight. In: runs as they are delivered. Out: nothing; the oldest lose their frames.

A message that is requeued or times out is sent again from memory if its frames are there, and is else read from the
disk. One message that is in flight keeps the frames of its whole block in memory, so a client that finishes most
messages and holds a few of each block would fill it: frames are therefore kept for the runs that were delivered last,
up to TOTAL bytes over all channels.
"""

from __future__ import annotations

from collections import deque

from qtools.broker.core.block import MessageRange

TOTAL = 16 * 1024 * 1024  # bytes of frames, and of the runs themselves
RUN = 256  # bytes that a run and its place here take


class InFlight:
    """What all channels of a store share."""

    __slots__ = ("_bytes", "_last", "_runs")

    def __init__(self) -> None:
        self._runs: deque[tuple[MessageRange, int]] = deque()
        self._bytes = 0
        self._last = 0  # the number of the block that came last

    def add(self, run: MessageRange) -> None:
        """`run` is on its way to a client, and keeps its frames until TOTAL bytes came after it."""
        block = run.block
        size = RUN
        if block.seq != self._last:  # else its frames are counted with the run before
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
