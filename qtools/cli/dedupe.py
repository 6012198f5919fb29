"""--dedupe, one stage for every command that has this flag. In: the keys of a batch. Out: which messages to send.

    keys ─▶ classify ─▶ NEW         send the message; its key is reserved until `settle` or `release`
                        DUPLICATE   finish the message unsent: a message with the same key is safe already
                        PENDING     neither: an earlier message of the batch has the same key

    settle: the keys of messages that are safe are remembered; those of the others are released. A message that was
    PENDING is a duplicate if the earlier one is safe; otherwise it has to come again.

One batch at a time. A batch uses the file of keys (flow/dedupe.py) twice, in `classify` and in `settle`, each time with
one call in a thread. A batch without keys does not use it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from qtools.cli.worker import Worker
from qtools.expressions.expression import NO_VARIABLES, Expression
from qtools.flow.dedupe import NEW, PENDING, Dedupe
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


@dataclass(slots=True)
class Classified:
    """A batch after `classify`, by the indices of its messages. new: the keys of the messages to send. duplicates: the
    messages to finish unsent. pending: the keys of the messages about which `settle` decides."""

    new: dict[int, bytes] = field(default_factory=dict)
    duplicates: list[int] = field(default_factory=list)
    pending: dict[int, bytes] = field(default_factory=dict)


class DedupeStage:
    """Keys that the expression `key` returns, kept in the file at `path` for `window` s, at most `max_keys` of them.

    clock: s since 1970, which does not go back within a run; default: `make_steady_clock()`.
    """

    def __init__(
        self,
        key: Expression,
        path: Path,
        *,
        window: float,
        max_keys: int,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._expression = key
        self._worker = Worker("dedupe")
        self._open = partial(Dedupe, path, window=window, max_keys=max_keys)
        self._clock = clock or make_steady_clock()
        self._dedupe: Dedupe | None = None

    async def start(self) -> None:
        """Open the file; StartError when it cannot be used."""
        self._dedupe = await self._worker.call(self._open)

    def key(self, value: Any, body: bytes, variables: Sequence[Any] = NO_VARIABLES) -> bytes | None:
        """The key of the message `body`, or None if the expression returns null or nothing.

        value: `body` parsed as JSON with exact integers, if the expression reads it. variables: those of the message.
        EvaluationError when the expression fails.
        """
        key = self._expression
        return make_key(key.evaluate(value, variables), body if key.reads_body else b"")

    async def classify(self, keys: Mapping[int, bytes]) -> Classified:
        """Decide about the messages of a batch. keys: index → key; a message without a key is always sent.

        SinkError when the file cannot be written (the clock was set back).
        """
        classified = Classified()
        if not keys:
            return classified
        verdicts = await self._worker.call(self._opened.check_and_reserve, list(keys.values()), self._clock())
        for (place, key), verdict in zip(keys.items(), verdicts, strict=True):
            if verdict is NEW:
                classified.new[place] = key
            elif verdict is PENDING:
                classified.pending[place] = key
            else:
                classified.duplicates.append(place)
        return classified

    async def settle(self, classified: Classified, unsent: Container[int] = ()) -> tuple[int, list[int]]:
        """Remember the keys of the messages that were sent, and release those of the messages at the indices `unsent`.

        Returns the number of duplicates, and the indices of the messages that were PENDING and have to be requeued.
        SinkError if the keys cannot be written; then all of them are released.
        """
        safe = [key for place, key in classified.new.items() if place not in unsent]
        released = [key for place, key in classified.new.items() if place in unsent]
        if classified.new:
            await self._worker.call(self._settle, safe, released, self._clock())
        remembered = set(safe)
        again = [place for place, key in classified.pending.items() if key not in remembered]
        return len(classified.duplicates) + len(classified.pending) - len(again), again

    def _settle(self, safe: list[bytes], released: list[bytes], now: float) -> None:
        dedupe = self._opened
        dedupe.release(released)
        if safe:
            try:
                dedupe.commit(safe, now)
            except BaseException:
                dedupe.release(safe)
                raise

    async def release(self, classified: Classified) -> None:
        """Release all keys of a batch of which nothing is known to be safe."""
        if classified.new:
            await self._worker.call(self._opened.release, list(classified.new.values()))

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
