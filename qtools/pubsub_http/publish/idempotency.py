"""Answers by Idempotency-Key. In: a key, a body, and how to execute the request. Out: the new or the earlier answer.

A request whose key was answered within the window gets the answer of the first request and is not executed again. One
that arrives while the first is in progress waits for it, however long that takes. A request that failed is forgotten,
so that it can be tried again. The keys are in memory only: a restart of the gateway forgets them.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from typing import TypeVar

from qtools.web.request_body import Refusal

MOST = 100_000  # answered keys: beyond it the oldest are forgotten early. Connections bound those in progress
LONGEST = 255  # characters of a key

Answer = TypeVar("Answer")
Key = tuple[str, ...]


class _Seen:
    __slots__ = ("digest", "done", "until")

    def __init__(self, digest: bytes, done: asyncio.Future[object]) -> None:
        self.digest = digest
        self.done = done
        self.until = 0.0  # loop time, once it is answered


class Idempotency:
    """window: s for which a key is remembered, from its answer on."""

    def __init__(self, window: float, most: int = MOST) -> None:
        self.repeated = 0
        self._window = window
        self._most = most
        self._under_way: dict[Key, _Seen] = {}
        self._answered: dict[Key, _Seen] = {}  # in the order of their answers
        self._loop = asyncio.get_running_loop()

    async def once(self, key: Key, body: bytes, do: Callable[[], Awaitable[Answer]]) -> tuple[Answer, bool]:
        """The answer of `do` for `key`, and whether it is an earlier one.

        Refusal 422 when the same key came with another body.
        """
        self._forget()
        digest = hashlib.blake2b(body, digest_size=16).digest()
        while (seen := self._under_way.get(key) or self._answered.get(key)) is not None:
            if seen.digest != digest:
                raise Refusal(
                    422, "IDEMPOTENCY_KEY_REUSED", "this Idempotency-Key came before with another body: use a new one"
                )
            await asyncio.wait((seen.done,))
            if seen.done.exception() is None:
                self.repeated += 1
                return seen.done.result(), True  # type: ignore[return-value]
            # It failed, and another request that waited may be trying again already.
        done: asyncio.Future[object] = self._loop.create_future()
        seen = self._under_way[key] = _Seen(digest, done)
        try:
            answer = await do()
        except BaseException as error:
            del self._under_way[key]
            done.set_exception(error if isinstance(error, Exception) else RuntimeError("given up"))
            done.exception()  # marks it as retrieved: perhaps no other request waits for it
            raise
        self._answered[key] = self._under_way.pop(key)
        seen.until = self._loop.time() + self._window
        done.set_result(answer)
        return answer, False

    def _forget(self) -> None:
        """Forget answers that are older than the window, and the oldest ones when there are more than `most`."""
        now = self._loop.time()
        while self._answered:
            key = next(iter(self._answered))
            if self._answered[key].until > now and len(self._answered) < self._most:
                return
            del self._answered[key]

    def __len__(self) -> int:
        return len(self._answered) + len(self._under_way)
