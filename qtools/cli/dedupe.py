"""--dedupe, for every command that has it. In: values and bodies, then keys. Out: keys, then verdicts.

    keys ─▶ check ─▶ NEW         send the message; `commit` its key once the message is safe, else `release` the key
                     DUPLICATE   a message with the same key is safe already
                     PENDING     a message with the same key is being sent

Each call uses the file of keys (flow/dedupe.py) once, in a thread.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from qtools.cli.worker import Worker
from qtools.flow.dedupe import Dedupe, Verdict
from qtools.flow.dedupe_key import make_key


def _elapsed() -> float:
    """A monotonic clock, s. On Linux it also counts the time while the machine is suspended."""
    boottime: int | None = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boottime is None else time.clock_gettime(boottime)


def make_steady_clock(
    wall: Callable[[], float] = time.time, elapsed: Callable[[], float] = _elapsed
) -> Callable[[], float]:
    """A clock in s since 1970 that reads `wall` once and then follows `elapsed`: setting the system's clock does not
    move it."""
    offset = wall() - elapsed()
    return lambda: offset + elapsed()


class DedupeStage:
    """Keys that the expression `find` returns, kept in the file at `path` for `window` s, at most `max_keys` of them.

    clock: s since 1970, which does not go back within a run; default: `make_steady_clock()`.
    """

    def __init__(
        self,
        find: Callable[[Any], Any],
        path: Path,
        *,
        window: float,
        max_keys: int,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._find = find
        self._worker = Worker("dedupe")
        self._open = partial(Dedupe, path, window=window, max_keys=max_keys)
        self._clock = clock or make_steady_clock()
        self._dedupe: Dedupe | None = None

    async def start(self) -> None:
        """Open the file; StartError when it cannot be used."""
        self._dedupe = await self._worker.call(self._open)

    def key(self, value: Any, body: bytes) -> bytes | None:
        """The key of the message `body`, or None if the expression returns null or nothing.

        value: `body` parsed as JSON with exact integers. EvaluationError when the expression fails.
        """
        return make_key(self._find(value), body)

    async def check(self, keys: Sequence[bytes]) -> list[Verdict]:
        """A verdict for each of `keys`, in order; keys that are NEW are reserved until `commit` or `release`."""
        return await self._worker.call(self._opened.check_and_reserve, keys, self._clock())

    async def commit(self, keys: Sequence[bytes]) -> None:
        """Remember `keys`, which were NEW and whose messages are safe. SinkError when they cannot be written."""
        if keys:
            await self._worker.call(self._opened.commit, keys, self._clock())

    def release(self, keys: Sequence[bytes]) -> asyncio.Future[None]:
        """Drop the reservation of `keys`, whose messages are not safe. It takes effect before any later call."""
        return self._worker.call(self._opened.release, keys)

    async def close(self) -> None:
        """Close the file, if it was opened. Committed keys stay in it."""
        if self._dedupe is not None:
            await self._worker.call(self._dedupe.close)
            self._dedupe = None

    @property
    def _opened(self) -> Dedupe:
        if self._dedupe is None:
            raise ValueError("start() was not called")
        return self._dedupe
