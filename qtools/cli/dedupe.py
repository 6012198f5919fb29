"""--dedupe, for every command that has it: keys and verdicts. In: values and bodies, then keys. Out: verdicts.

    keys ─▶ check ─▶ NEW         to be sent; `commit` its key once it is safe, `release` it where it is not
                     DUPLICATE   an equal one is safe
                     PENDING     an equal one is under way

The file of keys (flow/dedupe.py) is asked in a thread, once a call.
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
    """s of a clock that nobody sets; on Linux it goes on while the machine is suspended."""
    boottime: int | None = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boottime is None else time.clock_gettime(boottime)


def make_steady_clock(
    wall: Callable[[], float] = time.time, elapsed: Callable[[], float] = _elapsed
) -> Callable[[], float]:
    """A clock in s since 1970 that is read from `wall` once and then follows `elapsed`: setting the system's clock
    does not move it."""
    offset = wall() - elapsed()
    return lambda: offset + elapsed()


class DedupeStage:
    """Keys by the expression `find`, kept in the file at `path` for `window` s, at most `max_keys` of them.

    clock: s since 1970, never set back within a run; default: the system's time at `start`, and what has passed since.
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
        """The key of the message `body`, whose JSON is `value` with every integer exact; None where it has none.

        EvaluationError where the expression fails.
        """
        return make_key(self._find(value), body)

    async def check(self, keys: Sequence[bytes]) -> list[Verdict]:
        """A verdict for each of `keys`, in order; those that are NEW are reserved from now on."""
        return await self._worker.call(self._opened.check_and_reserve, keys, self._clock())

    async def commit(self, keys: Sequence[bytes]) -> None:
        """Remember `keys`, which were NEW and whose messages are safe. SinkError where the disk does not take them."""
        if keys:
            await self._worker.call(self._opened.commit, keys, self._clock())

    def release(self, keys: Sequence[bytes]) -> asyncio.Future[None]:
        """Forget the reservation of `keys`: their messages are not safe. This happens before any later call."""
        return self._worker.call(self._opened.release, keys)

    async def close(self) -> None:
        """Close the file, if it was opened. What was committed stays."""
        if self._dedupe is not None:
            await self._worker.call(self._dedupe.close)
            self._dedupe = None

    @property
    def _opened(self) -> Dedupe:
        if self._dedupe is None:
            raise ValueError("the keys are not open")
        return self._dedupe
