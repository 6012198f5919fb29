"""Keys of requests that were answered. In: a key and what came with it. Out: whether to do it, or the answer there was.

A request with a key that was seen within the window is answered as the first was, and not done again; one that comes
while the first is under way waits for it. What failed is forgotten, so that it can be tried again. Kept in memory: who
restarts the gateway starts anew.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from typing import TypeVar

from qtools.web.bodies import Refusal

MOST = 100_000  # keys; the oldest go before their time
LONGEST = 255  # characters of a key

Answer = TypeVar("Answer")
Key = tuple[str, ...]


class _Seen:
    __slots__ = ("digest", "done", "until")

    def __init__(self, digest: bytes, done: asyncio.Future[object], until: float) -> None:
        self.digest = digest
        self.done = done
        self.until = until


class Idempotency:
    """window: s for which a key is remembered, from its request on."""

    def __init__(self, window: float, most: int = MOST) -> None:
        self.repeated = 0
        self._window = window
        self._most = most
        self._seen: dict[Key, _Seen] = {}  # in the order they came
        self._loop = asyncio.get_running_loop()

    async def once(self, key: Key, body: bytes, do: Callable[[], Awaitable[Answer]]) -> tuple[Answer, bool]:
        """What `do` answered for `key`, now or before, and whether it was before.

        422 when the same key came with another body.
        """
        self._forget()
        digest = hashlib.blake2b(body, digest_size=16).digest()
        seen = self._seen.get(key)
        while seen is not None:
            if seen.digest != digest:
                raise Refusal(
                    422, "IDEMPOTENCY_KEY_REUSED", "this Idempotency-Key came before with another body: use a new one"
                )
            await asyncio.wait((seen.done,))
            if seen.done.exception() is None:
                self.repeated += 1
                return seen.done.result(), True  # type: ignore[return-value]
            seen = self._seen.get(key)  # somebody else who waited may be trying again already
        done: asyncio.Future[object] = self._loop.create_future()
        self._seen[key] = _Seen(digest, done, self._loop.time() + self._window)
        try:
            answer = await do()
        except BaseException as error:
            self._seen.pop(key, None)
            done.set_exception(error if isinstance(error, Exception) else RuntimeError("given up"))
            done.exception()  # nobody else may be waiting
            raise
        done.set_result(answer)
        return answer, False

    def _forget(self) -> None:
        """Let go of what is older than the window, and of the oldest when there are too many."""
        now = self._loop.time()
        while self._seen:
            key = next(iter(self._seen))
            if self._seen[key].until > now and len(self._seen) < self._most:
                return
            del self._seen[key]

    def __len__(self) -> int:
        return len(self._seen)
